"""Parsers of closed answers: what a text says to a question of yes and no, or to a choice.

The papers read answers in three different ways. `docs/papers.md` names the file that each parser was checked against.
"""

import re
from collections.abc import Callable
from typing import Any

from iava.benchmarks.task import Question

Parser = Callable[[str, Question], str | None]
"""A text and its question -> "yes", "no" or the letter of a choice; None if the text says none or several of them."""


def word(text: str, _: Any = None) -> str | None:
    """ "yes" or "no" if exactly one of the two occurs as a word, in any case; else None.

    Marks around a word do not matter. VLMEvalKit also looks for exactly one of the two words, but it removes only some
    ASCII marks first: `**Yes**`, `“Yes”`, `Yes:` and `No。` are read here and unknown there.
    """
    words = set(re.findall(r"[^\W_]+(?:['’-][^\W_]+)*", text.lower()))
    return {(True, False): "yes", (False, True): "no"}.get(("yes" in words, "no" in words))


def pope(text: str, _: Any = None) -> str | None:
    """As POPE and LLaVA: "no" if the first sentence holds the word "No", "no" or "not"; else "yes"."""
    words = text.split(".")[0].replace(",", "").split(" ")
    return "no" if {"No", "no", "not"} & set(words) else "yes"


def opera(text: str, _: Any = None) -> str | None:
    """As OPERA, PAI and SID: "no" if any word is "No", "NO", "no" or "not", or ends in "n't"; else "yes"."""
    words = text.replace(".", "").replace(",", "").split(" ")
    return "no" if any(one in ("No", "NO", "no", "not") or one.endswith("n't") for one in words) else "yes"


def vcd(text: str, question: Question) -> str | None:
    """As VCD: the truth, if its letters occur anywhere in the lower-case text; else the opposite.

    The reading depends on the truth: "I know." is right where the truth is no, and wrong where it is yes.
    """
    other = {"yes": "no", "no": "yes"}[question.truth]
    return question.truth if question.truth in text.lower() else other


def exact(text: str, _: Any = None) -> str | None:
    """As lmms-eval: the whole text is "yes" or "no", in any case, blanks aside. "No." is neither."""
    answer = text.strip().lower()
    return answer if answer in ("yes", "no") else None


def yes_first(text: str, _: Any = None) -> str | None:
    """As the scripts of RePOPE and DASH-B: "yes", else "no", if its letters occur anywhere in the lower-case text."""
    return next((answer for answer in ("yes", "no") if answer in text.lower()), None)


def choice(text: str, question: Question) -> str | None:
    """The letter of the one choice that a text names, by its letter or by its words; None if it names several or none.

    A letter counts as "(a)", as "a." or "A:" at the beginning, alone, or after "answer is" or "option". Only a text
    without such a letter is searched for the words of the choices.
    """
    letters = "abcdefghijklmnopqrstuvwxyz"[: len(question.choices)]
    lower = text.strip().lower()
    named = re.findall(rf"\(([{letters}])\)", lower)
    named += re.findall(rf"(?:^|answer is|answer:|option)\s*[\"'*]*([{letters}])(?=[.:),\"'*]|\s*$)", lower)
    if not named:
        named = [
            letter
            for letter, words in zip(letters, question.choices, strict=True)
            if re.search(rf"(?<!\w){re.escape(words.strip().lower())}(?!\w)", lower)
        ]
    return named[0] if len(set(named)) == 1 else None


YES_NO: dict[str, Parser] = {"word": word, "pope": pope, "opera": opera, "vcd": vcd, "exact": exact}
"""Parsers of yes and no by their names on the command line, the default first."""

NOTES = {
    "word": "exactly one of the words yes and no",
    "pope": "no, not or No in the first sentence mean no, all else yes, as POPE and LLaVA",
    "opera": "no, not or n't anywhere mean no, all else yes, as OPERA, PAI and SID",
    "vcd": "the letters of the truth anywhere, as VCD",
    "exact": "the whole answer is yes or no, as lmms-eval",
    "choice": "the one choice that the answer names",
    "official": "as the benchmark's own script",
}
"""A short description of each parser."""
