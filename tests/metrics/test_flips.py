"""Answers put right and spoiled, counted by hand."""

from iava.metrics.flips import flips, shown


def record(image, category, question, truth, parsed):
    return {
        "id": f"{image}-{category}-{question}",
        "image": image,
        "category": category,
        "question": question,
        "truth": truth,
        "parsed": parsed,
    }


def test_a_question_of_three_categories_flips_once():
    asked = [("a", "random", "cat", "yes"), ("a", "popular", "cat", "yes"), ("a", "random", "dog", "no")]
    asked += [("b", "random", "cow", "no"), ("b", "random", "owl", "yes"), ("c", "random", "fox", "yes")]
    greedy = ["no", "no", "no", "no", "yes", None]
    ours = ["yes", "yes", "yes", None, "yes", "yes"]
    theirs = [record(*q, parsed) for q, parsed in zip(asked, greedy, strict=True)]
    found = flips("iava", [record(*q, parsed) for q, parsed in zip(asked, ours, strict=True)], theirs)
    assert found.asked == 5
    assert [(our["id"], their["parsed"]) for their, our in found.gained] == [
        ("a-random-cat", "no"),
        ("c-random-fox", None),
    ]
    assert [our["id"] for _, our in found.lost] == ["a-random-dog", "b-random-cow"]
    assert [our["image"] for _, our in shown(found.gained + found.lost, 2)] == ["a", "c"]


def test_only_questions_that_both_answered_and_of_yes_and_no():
    ours = [record("a", "x", "cat", "yes", "yes"), record("b", "x", "word", ["stop"], "stop")]
    found = flips("iava", ours, [record("b", "x", "word", ["stop"], "go")])
    assert (found.asked, found.gained, found.lost) == (0, [], [])
