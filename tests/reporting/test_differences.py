"""Words that only one of two texts has are marked."""

from iava.reporting.differences import word_differences


def with_brackets(words):
    return " ".join(f"[{word}]" if differs else word for word, differs in words)


def test_words_that_the_other_text_lacks_are_marked():
    left, right = word_differences("A farm with a cow and a dog.", "A farm with two pigs and a dog.")
    assert with_brackets(left) == "A farm with [a] [cow] and a dog."
    assert with_brackets(right) == "A farm with [two] [pigs] and a dog."


def test_equal_and_empty_texts():
    assert word_differences("Yes.", "Yes.") == ([("Yes.", False)], [("Yes.", False)])
    assert word_differences("", "No.") == ([], [("No.", True)])
