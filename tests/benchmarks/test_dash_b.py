"""DASH-B's and RePOPE's files as published, and DASH-B's rates against a table counted by hand."""

import json

import pytest
from PIL import Image

from iava.benchmarks.registry import benchmark
from iava.errors import IavaError
from iava.evaluation.predictions import score_file

NEGATIVE = {"coco": {"backpack": ["11.png", "12.png"]}, "objectnet": {"fire hydrant": ["13.png"]}}
POSITIVE = {"coco": {"backpack": ["1.jpg"]}}


@pytest.fixture
def data(tmp_path):
    for part, lists in (("neg", NEGATIVE), ("pos", POSITIVE)):
        (tmp_path / f"dash_benchmark_{part}.json").write_text(json.dumps(lists))
        for source, objects in lists.items():
            for name, images in objects.items():
                folder = tmp_path / part / source / name
                folder.mkdir(parents=True)
                for image in images:
                    Image.new("RGB", (8, 8)).save(folder / image)
    return tmp_path


def test_questions(data):
    task = benchmark("dash-b").load(data)
    assert [(q.image, q.category, q.truth) for q in task.questions] == [
        ("neg/coco/backpack/11.png", "backpack", "no"),
        ("neg/coco/backpack/12.png", "backpack", "no"),
        ("neg/objectnet/fire hydrant/13.png", "fire hydrant", "no"),
        ("pos/coco/backpack/1.jpg", "backpack", "yes"),
    ]
    asked = "Can you see a fire hydrant in this image? Please answer only with yes or no."
    assert task.questions[2].question == asked
    (data / "dash_benchmark_neg.json").write_text('{"coco": ["backpack"]}')
    with pytest.raises(IavaError, match=r"dash_benchmark_neg\.json: this must be an object of data sets"):
        benchmark("dash-b").load(data)


def test_rates_counted_by_hand(tmp_path):
    # Without the object: no, yes, no, nothing clear. With it: yes, no.
    said = [("no", "No"), ("no", "Yes"), ("no", "no."), ("no", "Maybe"), ("yes", "Yes"), ("yes", "No")]
    rows = [
        {"img_id": f"{number}.png", "object_name": "backpack", "gt": truth, "response": text}
        for number, (truth, text) in enumerate(said)
    ]
    path = tmp_path / "answers.json"
    path.write_text(json.dumps(rows))
    assert score_file("dash-b", path)[0] == {
        "benchmark": "dash-b",
        "parser": "word",
        "n": 6,
        "accuracy": pytest.approx(3 / 6),
        "tnr": pytest.approx(2 / 4),
        "tpr": pytest.approx(1 / 2),
        "harmonic_mean": pytest.approx(1 / 2),
        "yes_ratio": pytest.approx(2 / 6),
        "unparsed": pytest.approx(1 / 6),
    }
    # The authors' script finds the letters of yes and no anywhere.
    rows[3]["response"] = "I know it"
    path.write_text(json.dumps(rows))
    assert score_file("dash-b", path, parser="official")[0]["tnr"] == pytest.approx(3 / 4)


def test_repope_is_popes_questions_with_other_labels(tmp_path):
    lines = [
        {"question_id": number, "image": "COCO_val2014_000000310196.jpg", "text": f"Is it {number}?", "label": label}
        for number, label in ((1, "yes"), (5, "no"))
    ]
    text = "\n".join(json.dumps(line) for line in lines)
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "coco_repope_popular.json").write_text(text)
    (tmp_path / "annotations" / "coco_pope_popular.json").write_text(text.replace('"no"', '"yes"'))
    (tmp_path / "val2014").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "val2014" / "COCO_val2014_000000310196.jpg")
    corrected, original = (benchmark(name).load(tmp_path).questions for name in ("repope", "pope"))
    assert [(q.id, q.truth) for q in corrected] == [("popular-1", "yes"), ("popular-5", "no")]
    assert [(q.id, q.truth) for q in original] == [("popular-1", "yes"), ("popular-5", "yes")]
