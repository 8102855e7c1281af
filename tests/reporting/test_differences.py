from iava.reporting.differences import differing


def marked(words):
    return " ".join(f"[{word}]" if differs else word for word, differs in words)


def test_words_that_the_other_lacks_are_marked():
    left, right = differing("A farm with a cow and a dog.", "A farm with two pigs and a dog.")
    assert marked(left) == "A farm with [a] [cow] and a dog."
    assert marked(right) == "A farm with [two] [pigs] and a dog."


def test_equal_and_empty_texts():
    assert differing("Yes.", "Yes.") == ([("Yes.", False)], [("Yes.", False)])
    assert differing("", "No.") == ([], [("No.", True)])
