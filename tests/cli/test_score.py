"""`iava score`: numbers, tables, and bad files."""

import json
import re
import subprocess
import sys

import pytest

from tests.commands import refused, run

POPE = [
    {"question_id": 1, "category": "random", "question": "a?", "answer": "yes", "prediction": "Yes."},
    {"question_id": 2, "category": "random", "question": "b?", "answer": "No", "prediction": "not sure"},
    {"question_id": 1, "category": "popular", "question": "a?", "answer": "yes", "prediction": "No"},
]


@pytest.fixture
def lines(tmp_path):
    def write(rows, name="answers.jsonl"):
        path = tmp_path / name
        text = "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)
        path.write_text(text + "\n", encoding="utf-8")
        return path

    return write


def scored(*arguments):
    result = run("score", *arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def mme(*images, category="count"):
    return [
        {"question_id": image, "category": category, "question": f"{truth}?", "answer": truth, "prediction": said}
        for image, *answers in images
        for truth, said in zip(("Yes", "No"), answers, strict=True)
    ]


def test_pope_by_category_and_overall(lines):
    word = scored("pope", lines(POPE))
    assert (word["benchmark"], word["parser"]) == ("pope", "word")
    assert word["overall"] == pytest.approx(
        {"n": 3, "accuracy": 1 / 3, "precision": 1, "recall": 0.5, "f1": 2 / 3, "yes_ratio": 1 / 3, "unparsed": 1 / 3}
    )
    assert {name: group["accuracy"] for name, group in word["categories"].items()} == {"random": 0.5, "popular": 0}
    # The parser `opera` reads "not" as no.
    assert scored("pope", lines(POPE), "--parser", "opera")["overall"]["accuracy"] == pytest.approx(2 / 3)


def test_mme(lines):
    result = scored("mme", lines(mme(("a", "Yes", "No"), ("b", "yes", "Yes"))))
    assert result["subtasks"]["count"] == {"n": 4, "acc": 0.75, "acc_plus": 0.5, "score": 125}
    assert (result["parser"], result["perception"], result["cognition"]) == ("official", 125, 0)


def test_textvqa(lines):
    answers = ["Stop"] * 3 + ["go"] * 7
    rows = [{"question_id": i, "answers": answers, "prediction": p} for i, p in enumerate(["stop.", "left"])]
    assert scored("textvqa", lines(rows)) == {"benchmark": "textvqa", "n": 2, "accuracy": pytest.approx(0.45)}


@pytest.fixture
def instances(tmp_path):
    path = tmp_path / "instances.json"
    content = {
        "images": [{"id": 7, "file_name": "7.jpg"}],
        "categories": [{"id": 18, "name": "dog"}],
        "annotations": [{"image_id": 7, "category_id": 18}],
    }
    path.write_text(json.dumps(content))
    return path


def test_chair(lines, instances):
    path = lines([{"image_id": 7, "caption": "A puppy and a man in a hat."}])
    expected = {"benchmark": "chair", "n": 1, "chair_i": 0.5, "chair_s": 1, "recall": 1}
    assert scored("chair", path, "--instances", instances) == expected
    captions = lines([{"annotations": [{"image_id": 7, "caption": "a woman"}]}], "captions.json")
    assert scored("chair", path, "--instances", instances, "--captions", captions)["chair_i"] == 0


def test_amber(lines):
    annotations = [
        {"id": 1, "type": "generative", "truth": ["dog"], "hallu": ["cat"]},
        {"id": 2, "type": "relation", "truth": "no"},
    ]
    path = lines([json.dumps(annotations)], "annotations.json")
    lines(['{"dog": [], "cat": []}'], "relation.json")
    rows = [{"id": 1, "response": "Dogs and a cat"}, {"id": 2, "response": "No."}]
    result = scored("amber", lines(rows), "--annotations", path)
    assert result["generative"] == {"n": 1, "chair": 0.5, "cover": 1, "hal": 1, "cog": 1}
    assert (result["discriminative"]["f1"], result["score"]) == (1, 75)


def test_tables(lines):
    table = run("score", "pope", lines(POPE)).stdout
    assert [word in table for word in ("overall", "random", "popular", "yes_ratio", "0.3333")] == [True] * 5
    table = run("score", "mme", lines(mme(("a", "Yes", "No")))).stdout
    assert "200.00" in table
    assert "perception" in table
    assert "not asked: existence, position" in table


def test_many_columns_fit_a_narrow_terminal(tmp_path, monkeypatch):
    annotations = [
        {"id": 1, "type": "generative", "truth": ["dog"], "hallu": ["cat"]},
        *(
            {"id": 2 + n, "type": kind, "truth": "no"}
            for n, kind in enumerate(("relation", "discriminative-hallucination"))
        ),
    ]
    (tmp_path / "annotations.json").write_text(json.dumps(annotations))
    (tmp_path / "relation.json").write_text("{}")
    rows = [{"id": 1, "response": "A dog"}, {"id": 2, "response": "No."}, {"id": 3, "response": "Yes."}]
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ("score", "amber", path, "--annotations", tmp_path / "annotations.json")
    metrics = json.loads(run(*arguments, "--json").stdout)
    monkeypatch.setattr("rich.console.Console.is_terminal", True)
    monkeypatch.setenv("COLUMNS", "60")
    table = re.sub(r"\x1b\[[0-9;]*m", "", run(*arguments).stdout)
    assert max(map(len, table.splitlines())) <= 60
    for metric in (*metrics["generative"], *metrics["discriminative"]):
        assert metric in table.split()


def test_empty_predictions_count_and_are_reported(lines):
    path = lines([POPE[0] | {"prediction": ""}, POPE[1] | {"prediction": " "}])
    result = run("score", "pope", path, "--json")
    assert json.loads(result.stdout)["overall"]["unparsed"] == 1
    assert result.stderr == f"iava: 2 empty predictions, the first at {path}, line 1\n"


TEN = ["x"] * 10


@pytest.mark.parametrize(
    ("bench", "rows", "words"),
    [
        ("pope", [], "is empty: it must have one JSON object a line"),
        ("pope", [POPE[0], '{"question_id": 2, "cat'], "line 2: this is no JSON, or not all of it"),
        ("pope", [POPE[0], "", "[1]"], "line 3: a line must be one JSON object"),
        ("pope", [*POPE, POPE[1]], "line 4: question_id 2 of category random was there before"),
        ("pope", [POPE[0] | {"answer": "maybe"}], "line 1: 'answer' is 'maybe': it must be yes or no"),
        ("pope", [POPE[0] | {"prediction": None}], "line 1: 'prediction' is None: it must be a string"),
        ("pope", [{"question_id": 1, "category": "random", "answer": "no"}], "line 1: 'prediction' is missing"),
        ("mme", mme(("a", "Yes", "No"))[:1], "line 1: image a has one question"),
        ("mme", mme(("a", "Yes", "No")) * 2, "line 3: image a was asked this before"),
        ("mme", mme(("a", "Yes", "No"), category="colour"), "line 1: MME has no subtask 'colour'"),
        ("textvqa", [{"question_id": 1, "answers": ["x"], "prediction": "x"}], "line 1: there are 1 answers"),
        ("textvqa", [{"question_id": 1, "answers": "x", "prediction": "x"}], "it must be a list of strings"),
        ("textvqa", [{"question_id": True, "answers": TEN, "prediction": ""}], "it must be a string or an integer"),
        ("chair", [{"image_id": 1, "caption": "x"}], "chair needs --instances"),
        ("amber", [{"id": 1, "response": "x"}], "amber needs --annotations"),
        ("vqa", POPE, "unknown benchmark 'vqa': use one of pope, pope-aokvqa"),
    ],
)
def test_bad_predictions(lines, bench, rows, words):
    assert words in refused("score", bench, lines(rows), "--json")


def test_bad_files_and_options(lines, instances, tmp_path):
    path = lines(POPE)
    assert "unknown parser 'vague' for pope: use one of word" in refused("score", "pope", path, "--parser", "vague")
    assert "chair is not answered with yes or no" in refused("score", "chair", path, "--parser", "word")
    assert "--instances was given, but pope has no use for it" in refused("score", "pope", path, "--instances", path)
    assert "cannot read" in refused("score", "pope", tmp_path / "nowhere.jsonl")
    captions = lines([{"image_id": 8, "caption": "x"}], "captions.jsonl")
    assert "line 1" in refused("score", "chair", captions, "--instances", instances)
    assert "has no image 8" in refused("score", "chair", captions, "--instances", instances)
    instances.write_text(instances.read_text()[:40])
    assert "instances.json, line 1, column" in refused("score", "chair", captions, "--instances", instances)
    path.write_bytes(b'{"question_id": 1}\n\xff\n')
    assert "line 2: this is no UTF-8 text" in refused("score", "pope", path)


@pytest.mark.slow
def test_scoring_does_not_import_torch(lines):
    code = (
        "import atexit, sys; from iava.cli.app import main; atexit.register(lambda: print('torch' in sys.modules)); "
        "main()"
    )
    command = [sys.executable, "-c", code, "score", "pope", str(lines(POPE))]
    ended = subprocess.run(command, check=True, capture_output=True, text=True)
    assert ended.stdout.splitlines()[-1] == "False"
