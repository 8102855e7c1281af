"""Words of English sentences, matched to the words of a table."""

import re
from collections.abc import Collection

_IRREGULAR = {"children": "child", "feet": "foot", "geese": "goose", "mice": "mouse", "oxen": "ox", "teeth": "tooth"}


def tokens(text: str) -> list[str]:
    """Words in lower case and punctuation marks, each by itself; words joined by a hyphen are one."""
    return re.findall(r"[^\W_]+(?:-[^\W_]+)*|[^\w\s]", text.lower())


def with_article(name: str) -> str:
    """A name with its article: "an apple"."""
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def singular(word: str, known: Collection[str]) -> str:
    """The word itself or its singular, whichever is among the known ones; the word if neither is."""
    if word in known:
        return word
    return next((form for form in _singulars(word) if form in known), word)


def _singulars(word: str) -> list[str]:
    if word in _IRREGULAR:
        return [_IRREGULAR[word]]
    if word.endswith("men"):
        return [word[:-3] + "man"]
    if word.endswith("ies"):
        return [word[:-3] + "y", word[:-1]]
    if word.endswith("ves"):
        return [word[:-1], word[:-3] + "f", word[:-3] + "fe"]
    if re.search(r"(s|x|z|ch|sh|o)es$", word):
        return [word[:-2], word[:-1]]
    return [word.removesuffix("s")]
