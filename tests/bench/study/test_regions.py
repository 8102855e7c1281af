"""Where tokens lie, counted one by one; boxes from scenes and from annotations."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from iava.bench.study.pictures import coco_pictures, pocket_pictures
from iava.bench.study.regions import _measured, inside, regions, summary
from iava.lvlm import LVLM
from iava.pocket.scenes import load_scene
from tests import families, naive, tiny

SETTINGS = {"top_i": 0.5, "lam": -1.0}


@pytest.fixture(scope="module")
def lvlm():
    return LVLM(tiny.model(), tiny.processor())


def annotated(folder, **changes):
    """Two pictures: a dog and two cats in one, a dog in the other, and a category without a box."""
    for name, colour in (("a.jpg", "red"), ("b.jpg", "blue")):
        Image.new("RGB", (40, 20), colour).save(folder / name)
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


def test_a_token_is_inside_if_its_middle_is():
    tokens = np.array([[x, y, x + 10, y + 10] for y in (0, 10) for x in (0, 10, 20)], dtype=float)
    assert inside(tokens, ((4, 0, 15, 10),)).tolist() == [True, False, False, False, False, False]
    assert inside(tokens, ((4, 0, 16, 10), (20, 10, 30, 20))).tolist() == [True, True, False, False, False, True]
    assert inside(tokens, ()).sum() == 0


def test_counts_and_masses_equal_those_of_a_loop():
    general, query = torch.rand(2, 2, 3, 12, generator=torch.Generator().manual_seed(3)).square().unbind()
    places = torch.zeros(2, 12, dtype=torch.bool)
    places[0, :4], places[1, 6:9] = True, True
    found = _measured(general, query, places, SETTINGS)
    for layer in range(2):
        for head in range(3):
            g, q = general[layer, head].tolist(), query[layer, head].tolist()
            chosen = naive.irrelevant(g, q, SETTINGS["top_i"], SETTINGS["lam"])
            assert found["selected"][layer][head] == sum(chosen) > 0
            assert found["inside"][layer][head] == sum(chosen[:4])
            assert found["elsewhere"][layer][head] == sum(chosen[6:9])
            assert found["general"][layer][head] == pytest.approx(sum(g[:4]) / sum(g), abs=1e-5)
            assert found["query"][layer][head] == pytest.approx(sum(q[:4]) / sum(q), abs=1e-5)


def test_the_summary_by_hand():
    def part(values):
        return dict(zip(("selected", "inside", "elsewhere", "general", "query"), values, strict=True))

    one, other = part([10, 4, 5, 0.2, 0.4]), part([30, 3, 9, 0.4, 0.4])
    none = part([0, 0, 0, 0.1, 0.1])
    records = [
        {"image": image, "tokens": 100, "area": area, "mean": values}
        | {"layers": {k: [v, none[k]] for k, v in values.items()}, "heads": {k: [[v]] for k, v in values.items()}}
        for image, area, values in (("a", 0.1, one), ("b", 0.2, other))
    ]
    found = summary(records, seed=0)
    assert found["area"] == pytest.approx(0.15)
    mean = {name: value for name, (value, _) in found["mean"].items()}
    assert mean["selected_inside"] == pytest.approx(7 / 40)
    assert mean["chance"] == pytest.approx((10 * 0.1 + 30 * 0.2) / 40)
    assert mean["times_chance"] == pytest.approx(1.0)
    assert mean["elsewhere"] == pytest.approx(14 / 40)
    assert (mean["general"], mean["query"]) == (pytest.approx(0.3), pytest.approx(0.4))
    assert mean["query_over_general"] == pytest.approx(4 / 3)
    assert found["heads"]["selected_inside"][0][0] == found["layers"]["selected_inside"][0]
    assert found["mean"]["selected_inside"][1] == [pytest.approx(0.1), pytest.approx(0.4)]
    # Where nothing was ever selected there is no share of it.
    assert found["layers"]["selected_inside"][1] == [None, None]
    assert found["layers"]["query"][1][0] == pytest.approx(0.1)


def test_scenes_tell_their_boxes():
    pictures = pocket_pictures("tune-heldout", limit=4, per_image=2)
    assert len(pictures.task.images) == 4
    for question in pictures.task.questions:
        scene = load_scene("tune-heldout", int(question.image[-5:]))
        assert question.region == tuple(scene.boxes(question.category))
        assert question.category in question.question
        assert set(pictures.things[question.image]) == scene.names
    again, others = (pocket_pictures("tune-heldout", limit=4, per_image=2, seed=seed).task for seed in (42, 1))
    assert again.questions == pictures.task.questions != others.questions


def test_annotations_tell_their_boxes(tmp_path):
    pictures = coco_pictures(annotated(tmp_path), tmp_path)
    regions_of = {(q.image, q.category): q.region for q in pictures.task.questions}
    assert regions_of == {
        ("1", "dog"): ((0, 0, 20, 20),),
        ("1", "cat"): ((20, 0, 30, 10), (30, 10, 40, 20)),
        ("2", "dog"): ((5, 5, 15, 15),),
    }


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"annotations": [{"image_id": 1, "category_id": 1}]}, "has no boxes: its annotations must have 'bbox'"),
        ({"annotations": [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3]}]}, "entry 1: 'bbox' must be"),
        ({"images": [{"id": 1, "file_name": "c.jpg"}, {"id": 2, "file_name": "b.jpg"}]}, "image c.jpg is missing"),
    ],
)
def test_annotations_that_do_not_do(tmp_path, changes, words):
    with pytest.raises(ValueError, match=words):
        coco_pictures(annotated(tmp_path, **changes), tmp_path)


def test_a_study_goes_on_and_counts_what_the_explanation_says(lvlm, tmp_path, monkeypatch):
    folder = tmp_path / "study"
    pictures = coco_pictures(annotated(tmp_path), tmp_path)
    ask_many, asked = LVLM.ask_many, []

    def once(self, image, questions, **more):
        asked.append(questions)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return ask_many(self, image, questions, **more)

    monkeypatch.setattr(LVLM, "ask_many", once)
    with pytest.raises(KeyboardInterrupt):
        regions(lvlm, pictures, SETTINGS, folder, model="tiny")
    assert not (folder / "study.json").exists()
    found = regions(lvlm, pictures, SETTINGS, folder, model="tiny")
    # Each picture once, the second one again, and both for the samples.
    assert [len(questions) for questions in asked] == [2, 1, 1, 1, 1]
    monkeypatch.undo()
    answers = lvlm.ask_many(
        pictures.task.open_image("1"), asked[0], explain=True, max_new_tokens=1, method="iava", **SETTINGS
    )
    regions_of = {question.id: question.region for question in pictures.task.questions}
    lines = (folder / "records.jsonl").read_text().splitlines()
    for answer, line in zip(answers, lines, strict=False):
        record, seen = json.loads(line), answer.explanation
        here = inside(seen.boxes, regions_of[record["id"]])
        assert record["area"] == pytest.approx(here.mean(), abs=1e-6)
        assert record["mean"]["inside"] == int((seen.selected.numpy() & here).sum())
        assert np.shape(record["heads"]["query"]) == seen.heads_query.shape[:2]
    assert found["questions"] == 3
    assert json.loads((folder / "study.json").read_text())["mean"] == found["mean"]
    table = (folder / "study.md").read_text()
    assert "| chosen layers |" in table
    assert "| layer 0, head 1 |" in table
    assert Image.open(folder / "samples.png").width > 500
    with pytest.raises(ValueError, match="seed is 42 there, 1 here"):
        regions(lvlm, pictures, SETTINGS, folder, model="tiny", seed=1)


def test_models_whose_tokens_are_no_patches_are_refused(tmp_path):
    blip = LVLM(*families.build("instructblip"))
    with pytest.raises(ValueError, match="not known where instructblip's image tokens look"):
        regions(blip, coco_pictures(annotated(tmp_path), tmp_path), {}, tmp_path / "study", model="blip")
