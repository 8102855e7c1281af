"""Answers side by side: which words the other one does not have."""

from difflib import SequenceMatcher

Words = list[tuple[str, bool]]


def differing(left: str, right: str) -> tuple[Words, Words]:
    """The words of two texts, each with whether the other lacks it at this place."""
    a, b = left.split(), right.split()
    marks_a, marks_b = [True] * len(a), [True] * len(b)
    for start_a, start_b, size in SequenceMatcher(None, a, b, autojunk=False).get_matching_blocks():
        marks_a[start_a : start_a + size] = [False] * size
        marks_b[start_b : start_b + size] = [False] * size
    return list(zip(a, marks_a, strict=True)), list(zip(b, marks_b, strict=True))
