"""Words of English sentences, matched to the words of a table."""

import re
from collections.abc import Collection, Sequence

_IRREGULAR = {"children": "child", "feet": "foot", "geese": "goose", "mice": "mouse", "oxen": "ox", "teeth": "tooth"}


def tokens(text: str) -> list[str]:
    """Words in lower case and punctuation marks, each by itself; words joined by a hyphen are one."""
    return re.findall(r"[^\W_]+(?:-[^\W_]+)*|[^\w\s]", text.lower())


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_SUBJECTS = _set("i you he she it we they who which there")
_MODALS = _set("can could will would shall should may might must do does did cannot to not n't t")
_DETERMINERS = _set(
    "a an the this that these those his her its their our my your some any no every each another one two three"
)
_OBJECTS = _DETERMINERS | _set("him them it me us you")
_STARTS = ("", ".", "!", "?", ":", ";")
_CERTAIN_OBJECTS = _set("the his her its their him them it me us you")
_PREPOSITIONS = _set(
    "of in on at by with from to into onto near under over behind beside between and or but as for through along"
)
_PLURALS = _set("people men women children")
_BEFORE_CAN = _DETERMINERS | _set("trash garbage soda beer tin metal aluminum watering spray paint red")


def noun_like(words: Sequence[str], place: int) -> bool:
    """Whether a word may be a noun where it stands, judged by its neighbours; for words that are verbs, too.

    It is taken for a verb behind a subject pronoun, a modal verb or "to" ("you can see", "they park"), and between a
    noun and a determiner ("a woman watches the sea", "people watch the sea"). So it is at the start of a sentence
    ("watches the sea"), and behind another verb ("sits and watches the sea"). "can" is a noun only behind a determiner
    or a kind of can.

    Args:
        words: of a text, see `tokens`.
        place: of the word.
    """
    word, before = words[place], words[place - 1] if place else ""
    after = words[place + 1] if place + 1 < len(words) else ""
    if word == "can":
        return before in _BEFORE_CAN
    if before in _SUBJECTS or (before in _MODALS and not (before == "to" and word.endswith("s"))):
        return False
    if before in _STARTS or (before in ("and", "but") and word.endswith("s")):
        return after not in _CERTAIN_OBJECTS
    subject = before.isalpha() and (before == "that" or before not in _DETERMINERS | _PREPOSITIONS)
    agrees = word.endswith("s") or before.endswith("s") or before in _PLURALS
    return not (subject and agrees and after in _OBJECTS)


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
