"""The shipped weights are small, load with `from_pretrained`, and answer questions about scenes."""

from importlib import resources

import numpy as np
import pytest
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, LlavaForConditionalGeneration

import iava
from iava.benchmarks.sources.pocket import pocket
from iava.pocket.scenes import load_scene
from iava.pocket.sprites import ART, CELL
from iava.pocket.world import ART_STYLES, OBJECT_CLASSES

WEIGHTS = resources.files("iava.pocket") / "weights"


@pytest.fixture(scope="module")
def lvlm() -> iava.LVLM:
    return iava.load("pocket")


def test_weights_are_small_and_load_with_from_pretrained() -> None:
    assert len((WEIGHTS / "model.safetensors").read_bytes()) <= 16_000_000
    assert isinstance(AutoModelForImageTextToText.from_pretrained(str(WEIGHTS)), LlavaForConditionalGeneration)
    assert AutoProcessor.from_pretrained(str(WEIGHTS)).chat_template


def test_the_art_has_every_object_class_in_every_style() -> None:
    with Image.open(ART) as art:
        assert art.size == (CELL * len(OBJECT_CLASSES), CELL * len(ART_STYLES))
        alpha = np.asarray(art.convert("RGBA").getchannel("A"))
    opaque = alpha.reshape(len(ART_STYLES), CELL, len(OBJECT_CLASSES), CELL).max(axis=(1, 3))
    assert (opaque > 0).all()


def test_it_recognizes_objects(lvlm: iava.LVLM) -> None:
    task = pocket("pope", "tune", 12)
    asked = [question for question in task.questions if question.category == "random"]
    correct = []
    for image in dict.fromkeys(question.image for question in asked):
        questions = [question for question in asked if question.image == image]
        answers = lvlm.ask_many(task.open_image(image), [q.question for q in questions], method="greedy")
        correct += [a.text == {"yes": "Yes.", "no": "No."}[q.truth] for a, q in zip(answers, questions, strict=True)]
    assert len(correct) >= 60
    assert np.mean(correct) > 0.85


def test_it_describes_a_scene(lvlm: iava.LVLM) -> None:
    scene = load_scene("tune", 0)
    text = lvlm.ask(scene.render(), "Describe this image.", method="greedy", max_new_tokens=64).text
    assert text.startswith("A ")
    assert text.endswith(".")
    assert any(name in text for name in scene.names)


def test_explanation_of_a_scene(lvlm: iava.LVLM) -> None:
    answer = lvlm.ask(load_scene("tune", 1).render(), "Is there a dog in the image?", explain=True)
    explanation = answer.explanation
    assert explanation is not None
    assert explanation.att_query is not None
    assert explanation.boxes is not None
    assert explanation.att_query.shape == (144,)
    assert explanation.boxes[0].tolist() == [0, 0, 16, 16]
    assert explanation.boxes[-1].tolist() == [176, 176, 192, 192]
