"""Functions of pocket_pope.yaml: a question's image, its text, and whether an answer is correct."""

from pathlib import Path

from PIL import Image

IMAGES = Path("runs/pocket/pope/images")


def doc_to_visual(doc):
    return [Image.open(IMAGES / doc["image"])]


def doc_to_text(doc, lmms_eval_specific_kwargs=None):
    return doc["text"]


def process_results(doc, results):
    return {"accuracy": float(results[0].lower().strip(" .") == doc["label"])}
