"""HallusionBench's file as published, and its three accuracies against a table counted by hand."""

import json

import pytest
from PIL import Image

from iava.benchmarks.registry import benchmark
from iava.errors import IavaError
from iava.evaluation.plan import Plan
from iava.evaluation.predictions import score_file
from iava.evaluation.runner import evaluate
from tests.fakes import FakeLVLM


def row(kind, subcategory, shown, set_id, figure, number, truth, **more):
    return {
        "category": kind,
        "subcategory": subcategory,
        "visual_input": shown,
        "set_id": set_id,
        "figure_id": figure,
        "sample_note": "note",
        "question_id": number,
        "question": f"Is it {number}?",
        "gt_answer_details": "It is.",
        "gt_answer": truth,
        "filename": None if shown == "0" else f"./{kind}/{subcategory}/{set_id}_{figure}.png",
        **more,
    }


# A set of an illusion, original and edited, with two questions each; a chart with one question, without an image too.
ROWS = [
    row("VD", "illusion", "1", "0", "0", "0", "1"),
    row("VD", "illusion", "1", "0", "0", "1", "0"),
    row("VD", "illusion", "2", "0", "1", "0", "0"),
    row("VD", "illusion", "2", "0", "1", "1", "1"),
    row("VS", "chart", "0", "3", "0", "0", "1"),
    row("VS", "chart", "1", "3", "1", "0", "1"),
    row("VS", "chart", "2", "3", "2", "0", "0"),
]


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "hallusionbench"
    for one in ROWS:
        if one["filename"]:
            path = folder / "hallusion_bench" / one["filename"]
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (40 * int(one["figure_id"]), 0, 0)).save(path)
    (folder / "HallusionBench.json").write_text(json.dumps(ROWS))
    return tmp_path


def test_questions_with_and_without_images(data):
    task = benchmark("hallusionbench").load(data / "hallusionbench")
    assert [(q.id, q.images, q.category, q.truth, q.group) for q in task.questions][::2] == [
        ("VD/illusion/0/0/0", ("VD/illusion/0_0.png",), "VD image", "yes", "VD/illusion/0"),
        ("VD/illusion/0/1/0", ("VD/illusion/0_1.png",), "VD edited", "no", "VD/illusion/0"),
        ("VS/chart/3/0/0", (), "VS text", "yes", "VS/chart/3"),
        ("VS/chart/3/2/0", ("VS/chart/3_2.png",), "VS edited", "no", "VS/chart/3"),
    ]
    assert task.open_image("VS/chart/3_1.png").size == (8, 8)


def test_accuracies_counted_by_hand(tmp_path):
    # Right: the first figure of the illusion (2), one of two of its second; the chart without an image, because the
    # answer is uncertain; with its image; wrong about the edited one.
    said = ["Yes.", "No.", "No.", "No.", "I cannot tell.", "Yes", "Yes"]
    answers = [one | {"model_prediction": text} for one, text in zip(ROWS, said, strict=True)]
    path = tmp_path / "HallusionBench_result.json"
    path.write_text(json.dumps(answers))
    result, _ = score_file("hallusionbench", path)
    # Pairs: question 0 of the illusion is right about both, question 1 is not, the chart's is not.
    # Figures: of four (two illusions, two charts) two are right.
    assert result["overall"] == pytest.approx(
        {"n": 7, "a_acc": 5 / 7, "q_acc": 1 / 3, "f_acc": 2 / 4, "unparsed": 1 / 7}
    )
    assert result["categories"]["VD"] == pytest.approx(
        {"n": 4, "a_acc": 3 / 4, "q_acc": 1 / 2, "f_acc": 1 / 2, "unparsed": 0}
    )
    assert result["categories"]["VS"]["a_acc"] == pytest.approx(2 / 3)
    assert result["categories"]["easy"]["a_acc"] == 1
    assert result["categories"]["hard"]["a_acc"] == pytest.approx(1 / 3)
    # An empty answer is not uncertain.
    answers[4]["model_prediction"] = ""
    path.write_text(json.dumps(answers))
    assert score_file("hallusionbench", path)[0]["overall"]["a_acc"] == pytest.approx(4 / 7)


def test_a_run_asks_questions_without_an_image_too(data, tmp_path):
    plan = Plan("fake", {"greedy": {}, "iava": {}}, benchmark="hallusionbench", data=data)
    results = evaluate(FakeLVLM(), plan, tmp_path / "run")
    assert {row["n"] for row in results["rows"] if row["category"] == "overall"} == {7}
    assert {row["errors"] for row in results["rows"]} == {0}
    few = evaluate(
        FakeLVLM(), Plan("fake", {"greedy": {}}, benchmark="hallusionbench", data=data, limit=1), tmp_path / "1"
    )
    assert [row["n"] for row in few["rows"]] == [4, 4, 2, 2]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"gt_answer": "2"}, "entry 1: 'gt_answer' is '2': it must be 0 or 1"),
        ({"category": "VX"}, "entry 1: category 'VX' with visual_input '1' is unknown"),
        ({"set_id": None}, "entry 1: 'set_id' is None"),
    ],
)
def test_broken_rows(data, change, words):
    (data / "hallusionbench" / "HallusionBench.json").write_text(json.dumps([ROWS[0] | change]))
    with pytest.raises(IavaError, match=words):
        benchmark("hallusionbench").load(data / "hallusionbench")
