"""Benchmarks in the files that their authors publish: what is read, and the message about each broken file."""

import json

import pytest
from PIL import Image

from iava.benchmarks.registry import BENCHMARKS, benchmark
from iava.benchmarks.sources.find import check, find

COLOURS = {"a.jpg": "red", "b.jpg": "green", "c.jpg": "blue"}


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for name, colour in COLOURS.items():
        Image.new("RGB", (8, 8), colour).save(folder / name)
    return tmp_path


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def pope_line(number, image, label="yes", **more):
    return (
        json.dumps({"question_id": number, "image": image, "text": f"Is it {number}?", "label": label, **more}) + "\n"
    )


def test_pope(data):
    write(data / "coco_pope_random.json", pope_line(1, "b.jpg") + pope_line(2, "a.jpg", "no"))
    write(data / "coco_pope_popular.json", pope_line(1, "b.jpg", "no"))
    task = benchmark("pope").load(data)
    asked = [(q.id, q.image, q.category, q.question, q.truth) for q in task.questions]
    # Files in alphabetical order; the questions about an image stand together.
    assert asked == [
        ("popular-1", "b.jpg", "popular", "Is it 1?", "no"),
        ("random-1", "b.jpg", "random", "Is it 1?", "yes"),
        ("random-2", "a.jpg", "random", "Is it 2?", "no"),
    ]
    assert task.open_image("b.jpg").size == (8, 8)


def test_pope_in_one_file_that_names_the_category(data):
    write(data / "questions.json", pope_line(1, "a.jpg", category="adversarial"))
    assert benchmark("pope").load(data).questions[0].category == "adversarial"


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
def test_broken_pope(data, content, words):
    write(data / "coco_pope_random.json", content)
    with pytest.raises(ValueError, match=words):
        benchmark("pope").load(data)


def test_pope_without_a_category(data):
    write(data / "questions.json", pope_line(1, "a.jpg"))
    with pytest.raises(ValueError, match="line 1: 'category' is missing"):
        benchmark("pope").load(data)


def mme_text(*answers):
    return "".join(f"Is it {number}?\t{answer}\n" for number, answer in enumerate(answers, start=1))


def test_mme_flat_and_in_two_folders(tmp_path):
    flat, apart = tmp_path / "existence", tmp_path / "celebrity"
    for folder, text in ((flat, flat / "1.txt"), (apart / "images", apart / "questions_answers_YN" / "1.txt")):
        folder.mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(folder / "1.png")
        write(text, mme_text("Yes", "No"))
    task = benchmark("mme").load(tmp_path)
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
        benchmark("mme").load(tmp_path)
    Image.new("RGB", (8, 8)).save(tmp_path / "OCR" / "1.png")
    with pytest.raises(ValueError, match=words):
        benchmark("mme").load(tmp_path)


def test_a_folder_without_mme(tmp_path):
    with pytest.raises(ValueError, match="has none of MME's folders"):
        benchmark("mme").load(tmp_path)


def test_textvqa(data):
    rows = [
        {"question_id": number, "image_id": image, "question": "What?", "answers": ["x"] * 10}
        for number, image in ((1, "a"), (2, "b"), (3, "a"))
    ]
    textvqa = benchmark("textvqa")
    write(data / "val.json", {"data": rows})
    task = textvqa.load(data)
    assert [(q.id, q.image) for q in task.questions] == [("1", "a.jpg"), ("3", "a.jpg"), ("2", "b.jpg")]
    assert (
        textvqa.prompt(task.questions[0], textvqa.style) == "What?\nAnswer the question using a single word or phrase."
    )
    assert task.read(task.questions[0], "The Stop!") == "stop"
    assert task.questions[0].truth == ["x"] * 10
    rows[1]["answers"] = ["x"] * 9
    write(data / "val.json", {"data": rows})
    with pytest.raises(ValueError, match="data entry 2: there are 9 answers"):
        textvqa.load(data)
    write(data / "val.json", [1])
    with pytest.raises(ValueError, match="there is no list 'data'"):
        textvqa.load(data)


INSTANCES = {
    "images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "z.jpg"}],
    "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "wine glass"}],
    "annotations": [{"image_id": 1, "category_id": 1}, {"image_id": 1, "category_id": 1}],
}


def test_chair(data):
    write(data / "instances.json", INSTANCES)
    (question,) = benchmark("chair").load(data).questions
    assert (question.id, question.image, question.truth) == ("1", "a.jpg", ["dog"])
    write(data / "captions.json", {"annotations": [{"image_id": 1, "caption": "A man."}]})
    assert benchmark("chair").load(data).questions[0].truth == ["dog", "person"]
    for image in (data / "images").iterdir():
        image.unlink()
    with pytest.raises(ValueError, match="has none of the 2 images"):
        benchmark("chair").load(data)


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
def test_broken_instances(data, change, words):
    write(data / "instances.json", INSTANCES | change)
    with pytest.raises(ValueError, match=words):
        benchmark("chair").load(data)


def test_amber(data):
    rows = [
        {"id": 1, "type": "generative", "truth": ["dog"], "hallu": []},
        {"id": 2, "type": "relation", "truth": "no"},
    ]
    write(data / "data" / "relation.json", {"dog": []})
    write(data / "data" / "annotations.json", rows)
    queries = [
        {"id": 1, "image": "a.jpg", "query": "Describe."},
        {"id": 2, "image": "a.jpg", "query": "Touching?"},
    ]
    query = write(data / "data" / "query" / "query_all.json", queries)
    task = benchmark("amber").load(data)
    assert [(q.category, q.question, q.truth) for q in task.questions] == [
        ("generative", "Describe.", ["dog"]),
        ("relation", "Touching?", "no"),
    ]
    write(query, [queries[0] | {"id": 3}])
    with pytest.raises(ValueError, match=r"query entry 1: .* has no question 3"):
        benchmark("amber").load(data)


def test_data_sets_are_found_by_their_folders(data):
    write(data / "pope" / "coco_pope_random.json", pope_line(1, "a.jpg") + pope_line(2, "a.jpg", "no"))
    (data / "images").rename(data / "pope" / "images")
    write(data / "amber" / "notes.txt", "")
    found = {one.name: one for one in check(data)}
    assert list(found) == list(BENCHMARKS)
    assert (found["pope"].state, found["pope"].questions, found["pope"].images) == ("ready", 2, 1)
    assert (found["amber"].state, found["mme"].state) == ("broken", "missing")
    assert "lmms-lab/MME" in found["mme"].detail
    assert "query_all.json" in found["amber"].detail
    assert len(find(benchmark("pope"), data, None).questions) == 2
    with pytest.raises(ValueError, match="unknown benchmark 'vqa'"):
        find(benchmark("vqa"), data, None)
    write(data / "pope-gqa" / "gqa_pope_random.json", pope_line(1, "a.jpg"))
    with pytest.raises(ValueError, match="has no folder of images"):
        find(benchmark("pope-gqa"), data, None)
