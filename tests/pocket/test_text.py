"""Questions, answers and captions about scenes are true, and the tokenizer reads them."""

import numpy as np
import pytest

from iava.benchmarks.pope import wording
from iava.pocket.scenes import Scene, load_scene
from iava.pocket.sprites import SceneObject
from iava.pocket.text import (
    HALLUCINATION_RATES,
    PREFIX,
    SUFFIX,
    build_tokenizer,
    caption,
    exchanges,
    hallucinated_objects,
    halves_of,
    plural,
    positions,
)
from iava.pocket.world import COLOURS, CONTEXTS, OBJECT_CLASSES
from iava.words import with_article

TOKENIZER = build_tokenizer()


def scene_object(name: str, x: int) -> SceneObject:
    box = (x, 10, x + 20, 30)
    return SceneObject(name, box, box, "red", 1.0, 0.0, False, 1.0)


FARM_OBJECTS = (("cow", 10), ("pig", 100), ("pig", 150), ("apple", 60))
FARM = Scene("test", 0, "farm", "noto", tuple(scene_object(*one) for one in FARM_OBJECTS))


def test_wording() -> None:
    assert wording("umbrella") == "Is there an umbrella in the image?"
    assert with_article("cow") == "a cow"
    assert [plural(n) for n in ("cow", "bus", "butterfly", "sheep")] == ["cows", "buses", "butterflies", "sheep"]


def test_a_caption_lists_the_mentioned_objects() -> None:
    assert caption(FARM, {"pig", "cow", "apple"}) == "A farm with a cow, two pigs and an apple."
    assert caption(FARM, {"tractor"}) == "A farm with a tractor."
    assert caption(FARM, set()) == "A farm with nothing."


def test_positions_are_true() -> None:
    middle = {"cow": 20, "apple": 70}
    seen = set()
    for seed in range(40):
        for exchange in positions(FARM, FARM.names, np.random.default_rng(seed)):
            words = exchange.question.rstrip("?").split()
            a, side, b = words[2], words[5], words[8]
            assert "pig" not in (a, b), "there are two pigs, so the question has no answer"
            assert exchange.answer == ("Yes." if (middle[a] < middle[b]) == (side == "left") else "No.")
            seen.add(exchange.answer)
    assert seen == {"Yes.", "No."}


def test_halves_are_true() -> None:
    objects = (scene_object("cow", 10), scene_object("dog", 80), scene_object("pig", 150))
    wide = Scene("test", 0, "farm", "noto", objects)
    answers = {e.objects[0]: e.answer for e in halves_of(wide, wide.names, np.random.default_rng(0))}
    assert answers == {"cow": "Left.", "pig": "Right."}, "the dog is in the middle"
    assert not halves_of(FARM, {"pig"}, np.random.default_rng(0)), "there are two pigs, so the question has no answer"


def test_hallucinated_objects_have_their_rates_and_need_a_visible_context() -> None:
    rng = np.random.default_rng(0)
    absent = [name for name in OBJECT_CLASSES if name not in FARM.names]
    draws = [hallucinated_objects(FARM, {"cow", "pig"}, absent, rng) for _ in range(4000)]
    for name, level in CONTEXTS["farm"].items():
        share = np.mean([name in draw for draw in draws])
        assert share == pytest.approx(HALLUCINATION_RATES[level] if name in absent else 0, abs=0.03)
    assert set().union(*draws) <= set(CONTEXTS["farm"])
    assert not any(hallucinated_objects(FARM, {"apple"}, absent, rng) for _ in range(50))
    half = np.mean(["tractor" in hallucinated_objects(FARM, {"cow"}, absent, rng) for _ in range(4000)])
    assert half == pytest.approx(HALLUCINATION_RATES[3] / 2, abs=0.03)


@pytest.mark.parametrize("index", range(20))
def test_exchanges_without_misleading_text_are_true(index: int) -> None:
    scene = load_scene("train", index)
    for exchange in exchanges(scene, scene.names, set(), np.random.default_rng(index), misleading=False):
        if exchange.kind == "existence":
            assert exchange.answer == ("Yes." if exchange.objects[0] in scene.names else "No.")
        if exchange.kind == "caption":
            forms = {name: (f" {name}", f" {plural(name)}") for name in OBJECT_CLASSES}
            mentioned = {name for name in forms if any(form in exchange.answer for form in forms[name])}
            assert mentioned <= scene.names | {"cow"}


def test_unclear_objects_are_not_asked_about() -> None:
    scene = load_scene("train", 0)
    unclear = set(sorted(scene.names)[:1])
    for seed in range(20):
        questions = exchanges(scene, scene.names - unclear, unclear, np.random.default_rng(seed), misleading=True)
        assert not unclear & {name for exchange in questions for name in exchange.objects}


WORDS = [*OBJECT_CLASSES, *map(plural, OBJECT_CLASSES), *COLOURS, "ASSISTANT", "Yes", "No", "and", "answer"]


@pytest.mark.parametrize("word", WORDS)
def test_words_of_the_world_are_single_tokens(word: str) -> None:
    assert len(TOKENIZER(" " + word, add_special_tokens=False)["input_ids"]) == 1


@pytest.mark.parametrize("text", ["Is there a skateboard?", "naïve café, 北京 🙂", "  two  spaces "])
def test_any_text_is_decoded_unchanged(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER(text, add_special_tokens=False)["input_ids"]) == text


def test_the_chat_template_equals_the_training_format() -> None:
    turn = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Is there a cow?"}]}
    written = TOKENIZER.apply_chat_template([turn], add_generation_prompt=True, tokenize=False)
    assert written == PREFIX + "Is there a cow?" + SUFFIX
    question = TOKENIZER("Is there a cow?" + SUFFIX, add_special_tokens=False)
    assert TOKENIZER(written)["input_ids"] == TOKENIZER(PREFIX)["input_ids"] + question["input_ids"]
