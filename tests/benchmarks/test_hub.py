"""Parquet folders as the Hub has them; images come back as they were put in."""

import io
import sys

import pytest
from PIL import Image

from iava.benchmarks.registry import benchmark
from iava.errors import IavaError

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

COLOURS = ("red", "green", "blue")


def picture(colour):
    data = io.BytesIO()
    Image.new("RGB", (4, 4), colour).save(data, format="PNG")
    return {"bytes": data.getvalue(), "path": f"{colour}.png"}


def pope_rows():
    return [
        {
            "question_id": str(number),
            "question": f"Is it {number}?",
            "answer": ("yes", "no")[number % 2],
            "image_source": f"COCO_{colour}",
            "category": category,
            "image": picture(colour),
        }
        for category in ("random", "popular")
        for number, colour in enumerate(COLOURS)
    ]


def write(folder, rows, name="test-00000-of-00001.parquet"):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    parquet.write_table(pa.Table.from_pylist(rows), path, row_group_size=2)
    return path


def test_pope_and_its_images(tmp_path):
    rows = pope_rows()
    write(tmp_path / "data", rows[:4], "test-00000-of-00002.parquet")
    write(tmp_path / "data", rows[4:], "test-00001-of-00002.parquet")
    write(tmp_path / "data", rows, "train-00000-of-00001.parquet")
    task = benchmark("pope").load(tmp_path)
    assert [(q.id, q.image) for q in task.questions[:3]] == [
        ("random-0", "COCO_red"),
        ("popular-0", "COCO_red"),
        ("random-1", "COCO_green"),
    ]
    assert [q.truth for q in task.questions] == ["yes", "yes", "no", "no", "yes", "yes"]
    for colour in (*COLOURS, *COLOURS):
        expected = Image.new("RGB", (4, 4), colour)
        assert task.open_image(f"COCO_{colour}").tobytes() == expected.tobytes()


def mme_rows(*answers):
    return [
        {
            "question_id": "OCR/1.png",
            "question": f"{number}?",
            "answer": answer,
            "category": "OCR",
            "image": picture("red"),
        }
        for number, answer in enumerate(answers)
    ]


def test_mme_and_textvqa(tmp_path):
    write(tmp_path / "mme", mme_rows("Yes", "No"))
    asked = benchmark("mme").load(tmp_path / "mme").questions
    assert [(q.id, q.category, q.truth) for q in asked] == [("OCR/1.png-1", "OCR", "yes"), ("OCR/1.png-2", "OCR", "no")]
    row = {"question_id": 5, "question": "What?", "answers": ["x"] * 10, "image_id": "i", "image": picture("blue")}
    write(tmp_path / "textvqa", [row], "validation-00000-of-00001.parquet")
    task = benchmark("textvqa").load(tmp_path / "textvqa")
    assert [(q.id, q.image, q.truth) for q in task.questions] == [("5", "i", ["x"] * 10)]
    assert task.open_image("i").getpixel((0, 0)) == (0, 0, 255)


def changed(rows, number, **cells):
    return [row | cells if index == number else row for index, row in enumerate(rows)]


@pytest.mark.parametrize(
    ("name", "rows", "words"),
    [
        ("pope", changed(pope_rows(), 3, answer="maybe"), "row 4: 'answer' is 'maybe': it must be yes or no"),
        ("pope", changed(pope_rows(), 2, question_id="0"), "row 3: question_id random-0 was there before .*row 1"),
        ("pope", mme_rows("Yes", "No"), "has no column 'image_source'"),
        ("mme", mme_rows("Yes"), "row 1: image OCR/1.png has one question"),
        ("mme", changed(mme_rows("Yes", "No"), 0, question=None), "row 1: 'question' is None: it must be a string"),
    ],
)
def test_bad_rows(tmp_path, name, rows, words):
    write(tmp_path, rows)
    with pytest.raises(ValueError, match=words):
        benchmark(name).load(tmp_path)


def test_truncated_and_missing_files(tmp_path):
    with pytest.raises(ValueError, match="has no file"):
        benchmark("pope").load(tmp_path)
    path = write(tmp_path, pope_rows())
    whole = path.read_bytes()
    for cut in (0, 4, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match="is truncated or no parquet file") as caught:
            benchmark("pope").load(tmp_path)
        assert "\n" not in str(caught.value)


def test_damage_in_the_middle_is_named_when_it_is_met(tmp_path):
    path = write(tmp_path, pope_rows())
    whole = path.read_bytes()
    refused = []
    for start in range(4, len(whole) - 60, len(whole) // 12):
        path.write_bytes(whole[:start] + bytes(60) + whole[start + 60 :])
        try:
            task = benchmark("pope").load(tmp_path)
            for colour in COLOURS:
                task.open_image(f"COCO_{colour}")
        except ValueError as error:
            refused.append(type(error))
    assert len(refused) > 3
    assert set(refused) == {IavaError}


def test_without_pyarrow_the_reason_is_said(tmp_path, monkeypatch):
    write(tmp_path, pope_rows())
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match="can only be read with pyarrow: pip install pyarrow"):
        benchmark("pope").load(tmp_path)


def test_a_row_without_an_image(tmp_path):
    write(tmp_path, changed(pope_rows(), 0, image={"bytes": None, "path": "red.png"}))
    task = benchmark("pope").load(tmp_path)
    with pytest.raises(ValueError, match="row 1 of row group 1, has no image"):
        task.open_image("COCO_red")
    assert task.open_image("COCO_blue").size == (4, 4)
