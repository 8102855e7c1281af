"""The words in which two answers differ."""

from difflib import SequenceMatcher

MarkedWords = list[tuple[str, bool]]
"""The words of a text, each with True if the other text does not have it there."""


def word_differences(left: str, right: str) -> tuple[MarkedWords, MarkedWords]:
    """Aligns two texts word by word and marks in each what the other lacks."""
    left_words, right_words = left.split(), right.split()
    left_marks, right_marks = [True] * len(left_words), [True] * len(right_words)
    matcher = SequenceMatcher(None, left_words, right_words, autojunk=False)
    for left_start, right_start, size in matcher.get_matching_blocks():
        left_marks[left_start : left_start + size] = [False] * size
        right_marks[right_start : right_start + size] = [False] * size
    return list(zip(left_words, left_marks, strict=True)), list(zip(right_words, right_marks, strict=True))
