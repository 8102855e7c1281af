"""Every benchmark as its authors publish it, about a red, a green and a broken picture."""

import json

from PIL import Image

COLOURS = ("red", "green", "bad")


def written(data):
    """Writes the folders of pope-gqa, mme, textvqa, chair and amber; gives `data` back."""
    for name, folder in (
        ("pope-gqa", "images"),
        ("mme", "count"),
        ("textvqa", "train_images"),
        ("chair", "images"),
        ("amber", "image"),
    ):
        images = data / name / folder
        images.mkdir(parents=True)
        for colour in COLOURS[:2]:
            Image.new("RGB", (16, 16), colour).save(images / f"{colour}.jpg")
        (images / "bad.jpg").write_bytes((images / "red.jpg").read_bytes()[:100])
    lines = [
        json.dumps({"question_id": 2 * i + n, "image": f"{name}.jpg", "text": f"Is there a {thing}?", "label": label})
        for i, name in enumerate(COLOURS)
        for n, (thing, label) in enumerate((("dog", "yes"), ("cat", "no")))
    ]
    _write(data / "pope-gqa" / "gqa_pope_random.json", "\n".join(lines))
    for name in COLOURS:
        _write(data / "mme" / "count" / f"{name}.txt", "Is there one dog?\tYes\nAre there two dogs?\tNo\n")
    rows = [
        {"question_id": i, "image_id": name, "question": "What is written?", "answers": ["a dog"] * 10}
        for i, name in enumerate(COLOURS)
    ]
    _write(data / "textvqa" / "TextVQA_0.5.1_val.json", {"data": rows})
    instances = {
        "images": [{"id": i, "file_name": f"{name}.jpg"} for i, name in enumerate(COLOURS)],
        "categories": [{"id": 1, "name": "dog"}],
        "annotations": [{"image_id": i, "category_id": 1} for i in range(len(COLOURS))],
    }
    _write(data / "chair" / "instances_val2014.json", instances)
    annotations, queries = [], []
    for i, name in enumerate(COLOURS):
        annotations += [
            {"id": 2 * i, "type": "generative", "truth": ["dog", "cow"], "hallu": ["cat", "cup"]},
            {"id": 2 * i + 1, "type": "relation", "truth": ("yes", "no")[i % 2]},
        ]
        for number, query in ((2 * i, "Describe this image."), (2 * i + 1, "Does the dog touch the cow?")):
            queries.append({"id": number, "image": f"{name}.jpg", "query": query})
    _write(data / "amber" / "data" / "relation.json", {word: [] for word in ("dog", "cow", "cat", "cup")})
    _write(data / "amber" / "data" / "annotations.json", annotations)
    _write(data / "amber" / "data" / "query" / "query_all.json", queries)
    return data


def _write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
