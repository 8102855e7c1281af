"""Parsers of closed answers: what a text says to a question of yes and no, or to a choice."""

import re
from collections.abc import Callable
from typing import Any

from iava.benchmarks.task import Question

Parser = Callable[[str, Question], str | None]
"""A text and its question -> "yes", "no" or the letter of a choice; None if the text says none or several of them."""


def word(text: str, _: Any = None) -> str | None:
    """Word-level: "yes" or "no" if exactly one of the two words occurs, else None (as VLMEvalKit reads answers)."""
    words = set(re.findall(r"[^\W_]+(?:['’-][^\W_]+)*", text.lower()))
    return {(True, False): "yes", (False, True): "no"}.get(("yes" in words, "no" in words))


def substring(text: str, _: Any = None) -> str | None:
    """As the papers' scripts do: "no" if these letters occur anywhere ("not", "know"), else "yes" likewise."""
    return next((answer for answer in ("no", "yes") if answer in text.lower()), None)


def exact(text: str, _: Any = None) -> str | None:
    """As lmms-eval reads it: the whole answer is "yes" or "no", in any case; "No." is neither."""
    answer = text.strip().lower()
    return answer if answer in ("yes", "no") else None


YES_NO: dict[str, Parser] = {"word": word, "substring": substring, "exact": exact}
"""Parsers of yes and no by their names on the command line, the default first."""
