import numpy as np
import pytest

from iava.benchmarks.pope import wording
from iava.pocket.scenes import COLOURS, CONTEXTS, THINGS, Scene, Thing, load_scene
from iava.pocket.text import (
    GHOST_RATES,
    PREFIX,
    SUFFIX,
    build_tokenizer,
    caption,
    exchanges,
    ghosts,
    halves_of,
    plural,
    positions,
)
from iava.words import with_article

TOKENIZER = build_tokenizer()


def thing(name: str, x: int) -> Thing:
    box = (x, 10, x + 20, 30)
    return Thing(name, box, box, "red", 1.0, 0.0, False, 1.0)


FARM = Scene("test", 0, "farm", "noto", (thing("cow", 10), thing("pig", 100), thing("pig", 150), thing("apple", 60)))


def test_wording() -> None:
    assert wording("umbrella") == "Is there an umbrella in the image?"
    assert with_article("cow") == "a cow"
    assert [plural(n) for n in ("cow", "bus", "butterfly", "sheep")] == ["cows", "buses", "butterflies", "sheep"]


def test_caption_lists_what_is_mentioned() -> None:
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
            assert "pig" not in (a, b), "two pigs: the question would have no answer"
            assert exchange.answer == ("Yes." if (middle[a] < middle[b]) == (side == "left") else "No.")
            seen.add(exchange.answer)
    assert seen == {"Yes.", "No."}


def test_halves_are_true() -> None:
    wide = Scene("test", 0, "farm", "noto", (thing("cow", 10), thing("dog", 80), thing("pig", 150)))
    answers = {e.things[0]: e.answer for e in halves_of(wide, wide.names, np.random.default_rng(0))}
    assert answers == {"cow": "Left.", "pig": "Right."}, "the dog stands in the middle"
    assert not halves_of(FARM, {"pig"}, np.random.default_rng(0)), "two pigs: the question would have no answer"


def test_ghosts_come_as_often_as_said_and_only_where_the_context_shows() -> None:
    rng = np.random.default_rng(0)
    absent = [name for name in THINGS if name not in FARM.names]
    draws = [ghosts(FARM, {"cow", "pig"}, absent, rng) for _ in range(4000)]
    for name, level in CONTEXTS["farm"].items():
        share = np.mean([name in draw for draw in draws])
        assert share == pytest.approx(GHOST_RATES[level] if name in absent else 0, abs=0.03)
    assert set().union(*draws) <= set(CONTEXTS["farm"])
    assert not any(ghosts(FARM, {"apple"}, absent, rng) for _ in range(50))
    half = np.mean(["tractor" in ghosts(FARM, {"cow"}, absent, rng) for _ in range(4000)])
    assert half == pytest.approx(GHOST_RATES[3] / 2, abs=0.03)


@pytest.mark.parametrize("index", range(20))
def test_true_exchanges_tell_the_truth(index: int) -> None:
    scene = load_scene("train", index)
    for exchange in exchanges(scene, scene.names, set(), np.random.default_rng(index), misleading=False):
        if exchange.kind == "existence":
            assert exchange.answer == ("Yes." if exchange.things[0] in scene.names else "No.")
        if exchange.kind == "caption":
            mentioned = {name for name in THINGS if any(w in exchange.answer for w in (f" {name}", f" {plural(name)}"))}
            assert mentioned <= scene.names | {"cow"}


def test_hidden_things_are_not_asked_about() -> None:
    scene = load_scene("train", 0)
    hidden = set(sorted(scene.names)[:1])
    for seed in range(20):
        talk = exchanges(scene, scene.names - hidden, hidden, np.random.default_rng(seed), misleading=True)
        assert not hidden & {name for exchange in talk for name in exchange.things}


@pytest.mark.parametrize("word", [*THINGS, *map(plural, THINGS), *COLOURS, "ASSISTANT", "Yes", "No", "and", "answer"])
def test_words_of_the_world_are_single_tokens(word: str) -> None:
    assert len(TOKENIZER(" " + word, add_special_tokens=False)["input_ids"]) == 1


@pytest.mark.parametrize("text", ["Is there a skateboard?", "naïve café, 北京 🙂", "  two  spaces "])
def test_any_text_survives_the_tokenizer(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER(text, add_special_tokens=False)["input_ids"]) == text


def test_chat_template_writes_what_training_reads() -> None:
    turn = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Is there a cow?"}]}
    written = TOKENIZER.apply_chat_template([turn], add_generation_prompt=True, tokenize=False)
    assert written == PREFIX + "Is there a cow?" + SUFFIX
    question = TOKENIZER("Is there a cow?" + SUFFIX, add_special_tokens=False)
    assert TOKENIZER(written)["input_ids"] == TOKENIZER(PREFIX)["input_ids"] + question["input_ids"]
