"""Benchmarks written as their authors publish them are read as they are meant, and what is broken is named."""

import json

import pytest
from PIL import Image

from iava.benchmarks.layouts import read_amber, read_chair, read_mme, read_pope, read_textvqa
from iava.benchmarks.sources import SOURCES, check, load

COLOURS = {"a.jpg": "red", "b.jpg": "green", "c.jpg": "blue"}


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for name, colour in COLOURS.items():
        Image.new("RGB", (8, 8), colour).save(folder / name)
    return folder


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def pope_line(number, image, label="yes", **more):
    return (
        json.dumps({"question_id": number, "image": image, "text": f"Is it {number}?", "label": label, **more}) + "\n"
    )


def test_pope(tmp_path, images):
    random = write(tmp_path / "coco_pope_random.json", pope_line(1, "b.jpg") + pope_line(2, "a.jpg", "no"))
    popular = write(tmp_path / "coco_pope_popular.json", pope_line(1, "b.jpg", "no"))
    task = read_pope([random, popular], images)
    asked = [(q.id, q.image, q.category, q.question, q.truth) for q in task.questions]
    assert asked == [
        ("random-1", "b.jpg", "random", "Is it 1?", "yes"),
        ("popular-1", "b.jpg", "popular", "Is it 1?", "no"),
        ("random-2", "a.jpg", "random", "Is it 2?", "no"),
    ]
    assert task.open_image("b.jpg").size == (8, 8)
    one = write(tmp_path / "questions.json", pope_line(1, "a.jpg", category="adversarial"))
    assert read_pope([one], images).questions[0].category == "adversarial"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (pope_line(1, "a.jpg", "perhaps"), "line 1: 'label' is 'perhaps': it must be yes or no"),
        (pope_line(1, "a.jpg") + pope_line(1, "b.jpg"), "line 2: question_id random-1 was there before .*line 1"),
        (pope_line(1, "a.jpg") + pope_line(2, "x.jpg"), "line 2: the image x.jpg is missing from .*images$"),
        (pope_line(1, "x.jpg") + pope_line(2, "y.jpg"), r"line 1: the image x.jpg is missing .*\(2 of 2 images are\)"),
        (pope_line(1, "a.jpg") + '{"question_id"', "line 2: this is no JSON"),
        (pope_line(1, "a.jpg", text=" "), "line 1: 'text' is ' ': it must say something"),
        ("", "is empty"),
    ],
)
def test_broken_pope(tmp_path, images, content, words):
    with pytest.raises(ValueError, match=words):
        read_pope([write(tmp_path / "coco_pope_random.json", content)], images)


def test_pope_of_no_category(tmp_path, images):
    with pytest.raises(ValueError, match="line 1: 'category' is missing"):
        read_pope([write(tmp_path / "questions.json", pope_line(1, "a.jpg"))], images)


def mme_text(*answers):
    return "".join(f"Is it {number}?\t{answer}\n" for number, answer in enumerate(answers, start=1))


def test_mme_flat_and_in_two_folders(tmp_path):
    flat, apart = tmp_path / "existence", tmp_path / "celebrity"
    for folder, text in ((flat, flat / "1.txt"), (apart / "images", apart / "questions_answers_YN" / "1.txt")):
        folder.mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(folder / "1.png")
        write(text, mme_text("Yes", "No"))
    task = read_mme(tmp_path)
    assert [(q.id, q.image, q.category, q.question, q.truth) for q in task.questions] == [
        ("existence/1.png-1", "existence/1.png", "existence", "Is it 1?", "yes"),
        ("existence/1.png-2", "existence/1.png", "existence", "Is it 2?", "no"),
        ("celebrity/images/1.png-1", "celebrity/images/1.png", "celebrity", "Is it 1?", "yes"),
        ("celebrity/images/1.png-2", "celebrity/images/1.png", "celebrity", "Is it 2?", "no"),
    ]
    assert task.open_image("celebrity/images/1.png").size == (8, 8)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (mme_text("Yes"), r"1.txt, line 1: image OCR/1.png has one question"),
        (mme_text("Yes", "No", "No"), r"1.txt, line 3: this is the third question"),
        (mme_text("Yes", "Never"), r"1.txt, line 2: 'answer' is 'Never': it must be yes or no"),
        ("Is it? Yes\n", r"1.txt, line 1: a line must be a question, a tab, and yes or no"),
        ("", r"1.txt is empty"),
    ],
)
def test_broken_mme(tmp_path, text, words):
    write(tmp_path / "OCR" / "1.txt", text)
    with pytest.raises(ValueError, match=r"1\.txt: its image 1.* is missing from"):
        read_mme(tmp_path)
    Image.new("RGB", (8, 8)).save(tmp_path / "OCR" / "1.png")
    with pytest.raises(ValueError, match=words):
        read_mme(tmp_path)


def test_a_folder_without_mme(tmp_path):
    with pytest.raises(ValueError, match="has none of MME's folders"):
        read_mme(tmp_path)


def test_textvqa(tmp_path, images):
    rows = [
        {"question_id": number, "image_id": image, "question": "What?", "answers": ["x"] * 10}
        for number, image in ((1, "a"), (2, "b"), (3, "a"))
    ]
    task = read_textvqa(write(tmp_path / "val.json", {"data": rows}), images)
    assert [(q.id, q.image) for q in task.questions] == [("1", "a.jpg"), ("3", "a.jpg"), ("2", "b.jpg")]
    assert task.questions[0].question == "What?\nAnswer the question using a single word or phrase."
    assert task.read(task.questions[0], "The Stop!") == "stop"
    assert task.questions[0].truth == ["x"] * 10
    rows[1]["answers"] = ["x"] * 9
    with pytest.raises(ValueError, match="data entry 2: there are 9 answers"):
        read_textvqa(write(tmp_path / "val.json", {"data": rows}), images)
    with pytest.raises(ValueError, match="there is no list 'data'"):
        read_textvqa(write(tmp_path / "val.json", [1]), images)


INSTANCES = {
    "images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "z.jpg"}],
    "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "wine glass"}],
    "annotations": [{"image_id": 1, "category_id": 1}, {"image_id": 1, "category_id": 1}],
}


def test_chair(tmp_path, images):
    captions = write(tmp_path / "captions.json", {"annotations": [{"image_id": 1, "caption": "A man."}]})
    instances = write(tmp_path / "instances.json", INSTANCES)
    (question,) = read_chair(instances, images).questions
    assert (question.id, question.image, question.truth) == ("1", "a.jpg", ["dog"])
    assert read_chair(instances, images, captions).questions[0].truth == ["dog", "person"]
    with pytest.raises(ValueError, match="has none of the 2 images"):
        read_chair(instances, tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"images": []}, "'images' is empty"),
        ({"images": INSTANCES["images"] * 2}, "images entry 3: id 1 was there before"),
        ({"annotations": [{"image_id": 3, "category_id": 1}]}, "annotations entry 1: there is no image 3"),
        ({"annotations": [{"image_id": 1, "category_id": 3}]}, "annotations entry 1: there is no category 3"),
        ({"annotations": None}, "there is no list 'annotations'"),
        ({"categories": [{"id": 1, "name": "unicorn"}]}, "category 'unicorn' is none of COCO's 80 classes"),
    ],
)
def test_broken_instances(tmp_path, images, change, words):
    with pytest.raises(ValueError, match=words):
        read_chair(write(tmp_path / "instances.json", INSTANCES | change), images)


def test_amber(tmp_path, images):
    annotations = write(
        tmp_path / "annotations.json",
        [
            {"id": 1, "type": "generative", "truth": ["dog"], "hallu": []},
            {"id": 2, "type": "relation", "truth": "no"},
        ],
    )
    queries = [
        {"id": 1, "image": "a.jpg", "query": "Describe."},
        {"id": 2, "image": "a.jpg", "query": "Touching?"},
    ]
    task = read_amber(write(tmp_path / "query.json", queries), annotations, images)
    assert [(q.category, q.question, q.truth) for q in task.questions] == [
        ("generative", "Describe.", ["dog"]),
        ("relation", "Touching?", "no"),
    ]
    with pytest.raises(ValueError, match=r"query entry 1: .* has no question 3"):
        read_amber(write(tmp_path / "query.json", [queries[0] | {"id": 3}]), annotations, images)


def test_data_sets_are_found_by_their_folders(tmp_path, images):
    write(tmp_path / "pope" / "coco_pope_random.json", pope_line(1, "a.jpg") + pope_line(2, "a.jpg", "no"))
    images.rename(tmp_path / "pope" / "images")
    write(tmp_path / "amber" / "notes.txt", "")
    found = {one.name: one for one in check(tmp_path)}
    assert list(found) == list(SOURCES)
    assert (found["pope"].state, found["pope"].questions, found["pope"].images) == ("ready", 2, 1)
    assert (found["amber"].state, found["mme"].state) == ("broken", "missing")
    assert "lmms-lab/MME" in found["mme"].detail
    assert "query_all.json" in found["amber"].detail
    assert len(load("pope", tmp_path / "pope").questions) == 2
    with pytest.raises(ValueError, match="unknown data set 'vqa'"):
        load("vqa", tmp_path)
    with pytest.raises(ValueError, match="has no folder of images"):
        load("pope-gqa", write(tmp_path / "gqa" / "gqa_pope_random.json", pope_line(1, "a.jpg")).parent)
