"""`iava data`: building POPE questions, and listing the data sets in a folder."""

import json
import re
from collections import Counter

import pytest

from iava.benchmarks.registry import BENCHMARKS, benchmark
from tests.commands import refused, run


@pytest.fixture
def farm(tmp_path):
    """Twelve images, each with two of six kinds of objects."""
    folder = tmp_path / "images"
    folder.mkdir()
    kinds = ["dog", "cat", "cow", "car", "bed", "apple"]
    content = {
        "images": [{"id": i, "file_name": f"{i}.jpg"} for i in range(13)],
        "categories": [{"id": i, "name": name} for i, name in enumerate(kinds)],
        "annotations": [{"image_id": i, "category_id": (i + k) % 6} for i in range(12) for k in (0, 1)],
    }
    for i in range(12):
        (folder / f"{i}.jpg").touch()
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(content))
    return path, folder, content, kinds


def build(farm, out, *more):
    return run("data", "build-pope", "--instances", farm[0], "--images", farm[1], "--out", out, *more)


def test_built_questions_are_true_and_readable(farm, tmp_path):
    out = tmp_path / "pope.json"
    assert build(farm, out).stdout == f"144 questions: {out}\n"
    _, folder, content, kinds = farm
    there = {(f"{a['image_id']}.jpg", kinds[a["category_id"]]) for a in content["annotations"]}
    data = out.parent / "data"
    data.mkdir()
    (data / "pope.json").write_text(out.read_text())
    folder.rename(data / "images")
    questions = benchmark("pope").load(data).questions
    for question in questions:
        kind = re.fullmatch(r"Is there an? (\w+) in the image\?", question.question)[1]
        assert question.truth == ("yes" if (question.image, kind) in there else "no")
    # Two positives and two negatives an image and category.
    assert Counter((q.category, q.truth) for q in questions) == {
        (category, truth): 24 for category in ("random", "popular", "adversarial") for truth in ("yes", "no")
    }


def test_built_questions_follow_the_seed_and_the_limit(farm, tmp_path):
    def lines_of(*more):
        build(farm, tmp_path / "pope.json", *more)
        return [json.loads(line) for line in (tmp_path / "pope.json").read_text().splitlines()]

    assert lines_of("--seed", "1") == lines_of("--seed", "1") != lines_of("--seed", "2")
    every = {(row["image"], row["text"], row["category"]) for row in lines_of("--seed", "3")}
    few = lines_of("--seed", "3", "--limit", "4", "--per-image", "2")
    assert len({row["image"] for row in few}) == 4
    assert {(row["image"], row["text"], row["category"]) for row in few} <= every
    assert len(few) == 4 * 12


def test_nothing_is_written_when_building_fails(farm, tmp_path):
    instances, folder, content, _ = farm
    out = tmp_path / "pope.json"
    out.write_text("old")
    arguments = ("data", "build-pope", "--instances", instances, "--images", folder, "--out")
    assert "limit is 13: it must be from 1 to 12" in refused(*arguments, out, "--limit", "13")
    assert "per_image is 0" in refused(*arguments, out, "--per-image", "0")
    assert "there is no folder" in refused(*arguments, tmp_path / "nowhere" / "pope.json")
    (folder / "3.jpg").unlink()
    assert "the image 3.jpg is missing from" in refused(*arguments, out)
    instances.write_text(json.dumps(content | {"annotations": []}))
    assert "has no objects in its images" in refused(*arguments, out)
    assert out.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "instances.json", "pope.json"]


def test_check_lists_data_sets_and_where_to_get_missing_ones(farm, tmp_path):
    data = tmp_path / "data"
    (data / "pope").mkdir(parents=True)
    build(farm, data / "pope" / "pope.json")
    farm[1].rename(data / "pope" / "images")
    result = run("data", "check", "--data", data)
    assert result.exit_code == 0
    assert "144 questions about 12 images (random 48, popular 48, adversarial 48)" in result.stdout
    assert "lmms-lab/textvqa" in " ".join(result.stdout.split())
    found = json.loads(run("data", "check", "--data", data, "--json").stdout)
    assert [one["state"] for one in found] == ["ready", *["missing"] * (len(BENCHMARKS) - 1)]
    (data / "pope" / "pope.json").write_text("broken")
    result = run("data", "check", "--data", data)
    assert result.exit_code == 2
    assert "pope.json, line 1: this is no JSON" in " ".join(result.stdout.split())
    assert result.stderr.startswith("iava: error: pope in ")
    assert "is a file" in refused("data", "check", "--data", farm[0])


def test_check_takes_the_folder_of_one_data_set(farm, tmp_path):
    (tmp_path / "mine").mkdir()
    build(farm, tmp_path / "mine" / "coco_pope.json")
    farm[1].rename(tmp_path / "mine" / "images")
    found = json.loads(run("data", "check", "--data", tmp_path / "mine", "--json").stdout)
    ready = {one["name"]: one["questions"] for one in found if one["state"] == "ready"}
    assert ready["pope"] == 144
    assert {one["state"] for one in found} == {"ready", "missing"}
