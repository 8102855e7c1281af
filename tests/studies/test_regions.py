"""Tokens inside a region, counted one by one, with boxes from scenes and from annotations."""

import json

import numpy as np
import pytest
from PIL import Image

from iava.benchmarks.sources.pocket import pocket
from iava.benchmarks.task import Question, Task
from iava.errors import IavaError
from iava.lvlm.model import LVLM
from iava.pocket.scenes import load_scene
from iava.studies.regions import coco_task, map_names, region_questions, run_regions_study, summarize, tokens_inside
from tests import families, naive, tiny
from tests.commands import run

SETTINGS = {"top_i": 0.5, "lam": -1.0}


@pytest.fixture(scope="module")
def lvlm():
    return LVLM(tiny.model(), tiny.processor())


def annotated(folder, **changes):
    """Two images: a dog and two cats in one, a dog in the other, and a category without a box."""
    for name, colour in (("a.jpg", "red"), ("b.jpg", "blue")):
        Image.new("RGB", (42, 42), colour).save(folder / name)
    boxes = [(1, 1, [0, 0, 20, 20]), (1, 2, [20, 0, 10, 10]), (1, 2, [30, 10, 10, 10]), (2, 1, [5, 5, 10, 10])]
    content = {
        "images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}],
        "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}, {"id": 3, "name": "cup"}],
        "annotations": [{"image_id": image, "category_id": kind, "bbox": box} for image, kind, box in boxes]
        + [{"image_id": 2, "category_id": 3}],
    }
    path = folder / "instances.json"
    path.write_text(json.dumps(content | changes))
    return path


def test_a_token_is_inside_if_its_centre_is():
    tokens = np.array([[x, y, x + 10, y + 10] for y in (0, 10) for x in (0, 10, 20)], dtype=float)
    assert tokens_inside(tokens, ((4, 0, 15, 10),)).tolist() == [True, False, False, False, False, False]
    assert tokens_inside(tokens, ((4, 0, 16, 10), (20, 10, 30, 20))).tolist() == [True, True, False, False, False, True]
    assert tokens_inside(tokens, ()).sum() == 0


def test_totals_by_hand():
    def record(image, area, *columns):
        return {"image": image, "area": area} | dict(
            zip(("selected", "inside", "general", "query"), zip(*columns, strict=True), strict=True)
        )

    never = (0, 0, 0.1, 0.1)
    records = [record("a", 0.1, (10, 4, 0.2, 0.4), never), record("b", 0.2, (30, 3, 0.4, 0.4), never)]
    found = summarize(records, ["mean", "never"], seed=0)
    mean = {key: value for key, (value, _) in found["mean"].items()}
    assert mean["inside"] == pytest.approx(7 / 40)
    assert mean["chance"] == pytest.approx((10 * 0.1 + 30 * 0.2) / 40)
    assert mean["times_chance"] == pytest.approx(1.0)
    assert (mean["general"], mean["query"]) == (pytest.approx(0.3), pytest.approx(0.4))
    assert mean["query_over_general"] == pytest.approx(4 / 3)
    assert found["mean"]["inside"][1] == [pytest.approx(0.1), pytest.approx(0.4)]
    # Without any selected token there is no share inside.
    assert found["never"]["inside"] is found["never"]["times_chance"] is None
    assert found["never"]["query"][0] == pytest.approx(0.1)


def test_scenes_have_boxes():
    task = pocket("pope", "tune-heldout", 4)
    found = region_questions(task)
    assert list(found) == task.images
    for image, questions in found.items():
        scene = load_scene("tune-heldout", int(image[-5:]))
        kinds = [next(kind for kind in scene.names if f" {kind} in " in question.question) for question in questions]
        assert len(set(kinds)) == len(kinds) == min(3, len(scene.names))
        assert [question.region for question in questions] == [tuple(scene.boxes(kind)) for kind in kinds]


def test_annotations_have_boxes(tmp_path):
    task = coco_task(annotated(tmp_path), tmp_path)
    assert {question.id: question.region for question in task.questions} == {
        "1-dog": ((0, 0, 20, 20),),
        "1-cat": ((20, 0, 30, 10), (30, 10, 40, 20)),
        "2-dog": ((5, 5, 15, 15),),
    }
    assert coco_task(annotated(tmp_path), tmp_path, limit=1).images == ["1"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"annotations": [{"image_id": 1, "category_id": 1}]}, "has no boxes: its annotations must have 'bbox'"),
        ({"annotations": [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3]}]}, "entry 1: 'bbox' must be"),
        ({"images": [{"id": 1, "file_name": "c.jpg"}, {"id": 2, "file_name": "b.jpg"}]}, "image c.jpg is missing"),
    ],
)
def test_broken_annotations_are_refused(tmp_path, changes, words):
    with pytest.raises(IavaError, match=words):
        coco_task(annotated(tmp_path, **changes), tmp_path)


def test_benchmarks_without_boxes_are_refused():
    question = Question("1", "a", "random", "Is there a dog in the image?", "yes")
    with pytest.raises(IavaError, match="pope does not say where objects are: give --instances and --images"):
        region_questions(Task("pope", "test", [question], Image.open))


def test_a_stopped_study_continues_and_counts_as_a_loop_does(lvlm, tmp_path, monkeypatch):
    folder, task = tmp_path / "study", coco_task(annotated(tmp_path), tmp_path)
    ask_many, calls = LVLM.ask_many, []

    def once(self, image, questions, **more):
        calls.append(questions)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return ask_many(self, image, questions, **more)

    monkeypatch.setattr(LVLM, "ask_many", once)
    with pytest.raises(KeyboardInterrupt):
        run_regions_study(lvlm, task, SETTINGS, folder, model="tiny")
    assert not (folder / "results.json").exists()
    found = run_regions_study(lvlm, task, SETTINGS, folder, model="tiny")
    # Each image once, the second one again, and both for the samples.
    assert [len(questions) for questions in calls] == [2, 1, 1, 1, 1]
    monkeypatch.undo()

    records = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    assert [record["id"] for record in records] == [question.id for question in task.questions]
    for record, question in zip(records, task.questions, strict=True):
        picture = task.open_image(question.image)
        # The tiny model has 3 x 3 patches, of 14 pixels each in these images.
        centres = [(x, y) for y in (7, 21, 35) for x in (7, 21, 35)]
        here = [any(x0 <= x < x1 and y0 <= y < y1 for x0, y0, x1, y1 in question.region) for x, y in centres]
        assert record["area"] == pytest.approx(sum(here) / 9)
        general, query = (
            naive.attention(lvlm.model, lvlm.processor, picture, text)
            for text in ("Describe this image.", question.question)
        )
        for n, layer in enumerate(general):
            for h in range(len(layer)):
                g, q = general[n, h].tolist(), query[n, h].tolist()
                at = map_names(*general.shape[:2]).index(f"layer {n}, head {h}")
                chosen = naive.irrelevant(g, q, SETTINGS["top_i"], SETTINGS["lam"])
                assert record["selected"][at] == sum(chosen)
                assert record["inside"][at] == sum(one and within for one, within in zip(chosen, here, strict=True))
                for part, values in (("general", g), ("query", q)):
                    share = sum(v for v, within in zip(values, here, strict=True) if within) / sum(values)
                    assert record[part][at] == pytest.approx(share, abs=1e-4)
    assert json.loads((folder / "results.json").read_text()) == json.loads(json.dumps(found))
    assert (found["questions"], found["images"]) == (3, 2)
    rows = [line.split(" | ")[0] for line in (folder / "table.md").read_text().splitlines() if "layer" in line]
    most = max((name for name in found["attention"] if "head" in name), key=lambda n: found["attention"][n]["query"][0])
    depth = found["shape"][0]
    assert rows[1 : 3 + depth] == ["| chosen layers", *(f"| layer {n}" for n in range(depth)), f"| {most}"]
    assert all(Image.open(folder / name).width > 500 for name in ("plot.png", "samples.png"))
    with pytest.raises(IavaError, match="seed is 42 there, 1 here"):
        run_regions_study(lvlm, task, SETTINGS, folder, model="tiny", seed=1)


def test_the_command(lvlm, tmp_path, monkeypatch):
    monkeypatch.setattr("iava.lvlm.loading.load", lambda name: lvlm)
    source = ("--model", "tiny", "--instances", annotated(tmp_path), "--images", tmp_path, "--limit", 1)
    result = run("study", "regions", *source, "--out", tmp_path / "study")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "study" / "table.md").read_text() in result.stdout


def test_models_whose_tokens_are_not_patches_are_refused(tmp_path):
    blip = LVLM(*families.build("instructblip"))
    with pytest.raises(IavaError, match="the positions of instructblip's image tokens are unknown"):
        run_regions_study(blip, coco_task(annotated(tmp_path), tmp_path), {}, tmp_path / "study", model="blip")
