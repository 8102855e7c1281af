"""Answers in the formats that other projects write are scored like our own."""

import json

import pytest

from iava.errors import IavaError
from iava.evaluation.plan import Plan
from iava.evaluation.predictions import score_file
from iava.evaluation.runner import evaluate
from tests.commands import run
from tests.fakes import FakeLVLM

IMAGE = "COCO_val2014_000000310196.jpg"
QUESTIONS = [
    {"question_id": 1, "image": IMAGE, "text": "Is there a snowboard in the image?", "label": "yes"},
    {"question_id": 2, "image": IMAGE, "text": "Is there a car in the image?", "label": "no"},
    {"question_id": 3, "image": IMAGE, "text": "Is there a person in the image?", "label": "yes"},
]
SAID = ["Yes, there is.", "Yes", "No"]
# One of three right; of two that are there one found.
EXPECTED = {"n": 3, "accuracy": 1 / 3, "precision": 1 / 2, "recall": 1 / 2, "f1": 1 / 2, "yes_ratio": 2 / 3}


def lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def array(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows, indent=4))
    return path


def scored(path, questions, **more):
    return score_file("pope", path, files={"questions": questions}, **more)[0]


@pytest.mark.parametrize("write", [lines, array])
def test_vcds_answers_are_joined_by_question_id(tmp_path, write):
    questions = write(tmp_path / "coco_pope_popular.json", QUESTIONS)
    rows = [
        {"question_id": q["question_id"], "prompt": q["text"], "text": text, "model_id": "llava", "image": IMAGE}
        for q, text in zip(QUESTIONS, SAID, strict=True)
    ]
    result = scored(write(tmp_path / "answers.jsonl", rows), questions)
    assert {key: result["overall"][key] for key in EXPECTED} == pytest.approx(EXPECTED)
    assert list(result["categories"]) == ["popular"]
    rows[0]["question_id"] = 9
    with pytest.raises(IavaError, match=r"(line|entry) 1: .* has no question 9"):
        scored(write(tmp_path / "answers.jsonl", rows), questions)
    with pytest.raises(IavaError, match="holds no labels: give --questions with POPE's files"):
        score_file("pope", tmp_path / "answers.jsonl")


def test_the_answers_file_says_the_category_where_several_are_known(tmp_path):
    folder = tmp_path / "coco"
    for category in ("popular", "random"):
        lines(folder / f"coco_pope_{category}.json", QUESTIONS)
    rows = [{"question_id": q["question_id"], "text": text} for q, text in zip(QUESTIONS, SAID, strict=True)]
    result = scored(lines(tmp_path / "llava15_coco_pope_random_answers.jsonl", rows), folder)
    assert list(result["categories"]) == ["random"]
    with pytest.raises(IavaError, match=r"question 1 is in several categories \(popular, random\): give one file"):
        scored(lines(tmp_path / "answers.jsonl", rows), folder)


def test_llavas_numbers_are_joined_with_popes_labels(tmp_path):
    folder = tmp_path / "questions"
    folder.mkdir()
    # Other files of a project beside the questions.
    (folder / "notes.json").write_text("{}")
    for category in ("adversarial", "popular"):
        lines(folder / f"coco_pope_{category}.json", QUESTIONS)
    ending = "\nAnswer the question using a single word or phrase."
    numbered = [
        {"question_id": 3 * n + q["question_id"], "image": IMAGE, "text": q["text"] + ending, "category": category}
        for n, category in enumerate(("adversarial", "popular"))
        for q in QUESTIONS
    ]
    lines(folder / "llava_pope_test.jsonl", numbered)
    rows = [{"question_id": row["question_id"], "prompt": row["text"], "text": "Yes"} for row in numbered]
    answers = lines(tmp_path / "llava-v1.5-13b.jsonl", rows)
    # POPE's files beside LLaVA's, and below it, as LLaVA's guide lays them.
    for place in (folder, folder / "coco"):
        place.mkdir(exist_ok=True)
        for file in folder.glob("coco_pope_*.json"):
            file.rename(place / file.name)
        result = scored(answers, folder)
        assert {name: group["accuracy"] for name, group in result["categories"].items()} == pytest.approx(
            {"popular": 2 / 3, "adversarial": 2 / 3}
        )
    with pytest.raises(IavaError, match="holds no questions with labels: give POPE's own files, or a folder"):
        scored(answers, folder / "llava_pope_test.jsonl")
    other = lines(tmp_path / "vcd.jsonl", [{**rows[0], "image": "other.jpg"}])
    with pytest.raises(IavaError, match=r"line 1: this answers a question about other\.jpg, and the question there is"):
        scored(other, folder)


def test_popes_own_answers_are_joined_in_order(tmp_path):
    questions = array(tmp_path / "coco_pope_random.json", QUESTIONS)
    rows = [{"question": q["text"].lower(), "answer": text} for q, text in zip(QUESTIONS, SAID, strict=True)]
    result = scored(lines(tmp_path / "answer.json", rows), questions, parser="pope")
    assert {key: result["overall"][key] for key in EXPECTED} == pytest.approx(EXPECTED)
    with pytest.raises(IavaError, match="has 3 questions and there are 2 answers"):
        scored(lines(tmp_path / "answer.json", rows[:2]), questions)
    with pytest.raises(IavaError, match=r"line 1: this answers 'is there a car in the image[?]'"):
        scored(lines(tmp_path / "answer.json", [rows[1], rows[0], rows[2]]), questions)


def test_textvqas_answers_by_llava_and_as_submitted(tmp_path):
    data = [
        {"question_id": 34602, "image_id": "003a8ae2ef43b901", "question": "What brand?", "answers": ["nous"] * 10},
        {"question_id": 34603, "image_id": "003a8ae2ef43b901", "question": "How many?", "answers": ["two"] * 10},
    ]
    questions = array(tmp_path / "TextVQA_0.5.1_val.json", {"data": data})
    ending = "\nAnswer the question using a single word or phrase."
    llava = [
        {
            "question_id": "003a8ae2ef43b901",
            "prompt": f"what brand?\nReference OCR token: x, y{ending}",
            "text": "Nous",
        },
        {"question_id": "003a8ae2ef43b901", "prompt": f"How many?{ending}", "text": "3"},
    ]
    result, _ = score_file("textvqa", lines(tmp_path / "llava.jsonl", llava), files={"questions": questions})
    assert result == {"benchmark": "textvqa", "n": 2, "accuracy": 0.5}
    submitted = [{"question_id": 34602, "answer": "nous"}, {"question_id": 34603, "answer": "2"}]
    result, _ = score_file("textvqa", array(tmp_path / "submission.json", submitted), files={"questions": questions})
    assert result["accuracy"] == 1
    llava[0]["prompt"] = "Which brand?"
    with pytest.raises(IavaError, match=r"line 1: .* has no question 003a8ae2ef43b901 'which brand[?]'"):
        score_file("textvqa", lines(tmp_path / "llava.jsonl", llava), files={"questions": questions})


def test_mmes_results_folder(tmp_path):
    rows = [("a.jpg", "Is it?", "Yes", "Yes."), ("a.jpg", "Is it not?", "No", "yes")]
    (tmp_path / "count.txt").write_text("".join("\t".join(row) + "\n" for row in rows))
    (tmp_path / "notes.txt").write_text("none of MME's")
    result, _ = score_file("mme", tmp_path)
    assert result["subtasks"] == {"count": {"n": 2, "acc": 0.5, "acc_plus": 0, "score": 50}}
    (tmp_path / "count.txt").write_text("a.jpg\tIs it?\tYes\n")
    with pytest.raises(IavaError, match=r"count\.txt, line 1: there must be question_id, question, answer, prediction"):
        score_file("mme", tmp_path)


def test_ambers_array(tmp_path):
    array(tmp_path / "annotations.json", [{"id": 5, "type": "relation", "truth": "no"}])
    (tmp_path / "relation.json").write_text("{}")
    path = array(tmp_path / "responses.json", [{"id": 5, "response": "No"}])
    result, _ = score_file("amber", path, files={"annotations": tmp_path / "annotations.json"})
    assert result["discriminative"]["accuracy"] == 1


def test_the_records_of_a_run_are_scored_method_by_method(tmp_path):
    plan = Plan("fake", {"greedy": {}, "iava": {}}, split="tune-heldout", limit=3)
    results = evaluate(FakeLVLM(), plan, tmp_path)
    result, _ = score_file("pope", tmp_path / "records.jsonl")
    for method in plan.methods:
        row = next(r for r in results["rows"] if (r["method"], r["category"]) == (method, "overall"))
        found = result["methods"][method]["overall"]
        assert found.pop("n") == row["n"]
        assert found == pytest.approx({key: row["metrics"][key] for key in found})
    shown = run("score", "pope", tmp_path / "records.jsonl").stdout
    assert "pope greedy word" in " ".join(shown.split())


def test_files_are_wanted_by_their_benchmark_only(tmp_path):
    with pytest.raises(
        IavaError, match="--questions was given, but chair has no use for it: it belongs to pope, pope-"
    ):
        score_file("chair", tmp_path / "x", files={"questions": tmp_path / "y"})
