"""Pages in plain technical English: short sentences, one a line."""

import re

import pytest

from tests.docs.pages import NAMES, PAGES, without_code

LONGEST_SENTENCE = 25
LONGEST_LINE = 160


def sentences(text: str) -> list[str]:
    """The sentences of a page, those in cells of tables and in items of lists among them."""
    text = re.sub(r"\]\([^)]*\)", "]", without_code(text))
    text = re.sub(r"^#.*$", "\n\n", text, flags=re.MULTILINE)
    text = re.sub(r"^\|.*$", lambda row: row.group().replace("|", "\n\n"), text, flags=re.MULTILINE)
    blocks = re.split(r"\n\s*\n|^\s*(?:[-*]|\d+\.) ", text, flags=re.MULTILINE)
    return [part for block in blocks for part in re.split(r"(?<=[.!?])[*_\"”)]*\s+", block)]


def words(sentence: str) -> int:
    return sum(bool(re.search(r"\w", word)) for word in sentence.split())


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_sentences_are_short(page) -> None:
    long = [one for one in sentences(page.read_text(encoding="utf-8")) if words(one) > LONGEST_SENTENCE]
    assert not long, f"over {LONGEST_SENTENCE} words:\n" + "\n".join(" ".join(one.split()) for one in long)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_lines_are_short(page) -> None:
    lines = without_code(page.read_text(encoding="utf-8")).splitlines()
    long = [line for line in lines if len(line) > LONGEST_LINE and not line.startswith(("|", "!["))]
    assert not long, f"over {LONGEST_LINE} characters:\n" + "\n".join(long)


def test_a_sentence_ends_at_a_full_stop_an_item_or_a_cell() -> None:
    text = "# Head\nOne two. Three four\nfive?\n- six\n- seven 0.5\n\n| a b | c |\n|---|---|\n\n```\nno. no\n```\n"
    found = [" ".join(one.split()) for one in sentences(text) if words(one)]
    assert found == ["One two.", "Three four five?", "six", "seven 0.5", "a b", "c"]
