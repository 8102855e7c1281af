"""Words of captions as NLTK finds them (the extras `chair` and `amber`).

NLTK's tokenizer, tagger and WordNet are data of their own: `python -m nltk.downloader punkt_tab
averaged_perceptron_tagger_eng wordnet`.
"""

from functools import cache
from typing import Any

from iava.errors import IavaError

_KINDS = {"J": "a", "V": "v", "N": "n", "R": "r"}
"""First letter of a tag -> WordNet's part of speech."""
_DATA = "python -m nltk.downloader punkt_tab averaged_perceptron_tagger_eng wordnet"


def lemmas(caption: str) -> list[str]:
    """The lemmas of a caption in lower case, each by its part of speech, as OPERA's chair.py takes them.

    Raises:
        IavaError: if NLTK or its data is missing.
    """
    lemmatize = _lemmatizer()
    return [lemmatize(word, _KINDS.get(tag[0], "n")) for word, tag in _tagged(caption.lower())]


def nouns(text: str) -> list[str]:
    """The lemmas of a text's nouns, as AMBER's script takes them.

    Raises:
        IavaError: if NLTK or its data is missing.
    """
    lemmatize = _lemmatizer()
    return [lemmatize(word, "n") for word, tag in _tagged(text) if tag.startswith("NN")]


def _tagged(text: str) -> list[tuple[str, str]]:
    nltk = _nltk()
    try:
        return nltk.pos_tag(nltk.word_tokenize(text))
    except LookupError:
        raise IavaError(f"NLTK lacks its data: {_DATA}") from None


@cache
def _lemmatizer() -> Any:
    lemmatizer = _nltk().stem.WordNetLemmatizer()
    try:
        lemmatizer.lemmatize("dogs", "n")
    except LookupError:
        raise IavaError(f"NLTK lacks its data: {_DATA}") from None
    return lemmatizer.lemmatize


def _nltk() -> Any:
    try:
        import nltk
    except ImportError:
        raise IavaError("this needs NLTK: pip install 'iava[chair]', then " + _DATA) from None
    return nltk
