import numpy as np
import pytest
import torch
from PIL import Image

import iava
from iava import IAVA, Greedy
from iava.lvlm.answers import Explanation
from tests import naive, tiny

QUESTIONS = ["Is there a dog ?", "where is the blue boat ? on the street ?", "What ?"]
PICTURE = tiny.image(2)


@pytest.fixture(scope="module")
def lvlm():
    return iava.load(tiny.model(4), tiny.processor())


def plain(lvlm, question, steps) -> list[int]:
    inputs = naive.prompt_inputs(lvlm.processor, PICTURE, question)
    row = lvlm.model.generate(**inputs, max_new_tokens=steps)[0, inputs["input_ids"].shape[1] :].tolist()
    return row[: row.index(2)] if 2 in row else row


@pytest.mark.parametrize("question", QUESTIONS)
def test_greedy_is_what_generate_says(lvlm, question):
    answer = lvlm.ask(PICTURE, question, method="greedy", max_new_tokens=7)
    assert answer.tokens == plain(lvlm, question, 7)
    assert answer.text == lvlm.processor.decode(answer.tokens)
    assert (answer.method, answer.settings, answer.explanation) == ("greedy", {}, None)
    assert answer.seconds > 0
    inputs = naive.prompt_inputs(lvlm.processor, PICTURE, question)
    expected = naive.logits_after(lvlm.model, naive.embeddings(lvlm.model, inputs), [])
    assert answer.logits.dtype == torch.float32
    torch.testing.assert_close(answer.logits, expected, atol=1e-4, rtol=1e-4)


def test_iava_is_the_naive_method_and_its_logits_stay_finite(lvlm):
    answer = lvlm.ask(PICTURE, QUESTIONS[0], top_i=3, lam=-0.5, alpha=0.8, negative="zeros", max_new_tokens=5)
    branches = naive.Branches(lvlm.model, lvlm.processor, PICTURE, QUESTIONS[0], top_i=3, lam=-0.5, alpha=0.8)
    assert answer.tokens == [token for token in branches.decode(5) if token != 2]
    branches.beta = 0.0
    torch.testing.assert_close(answer.logits, branches.logits([]), atol=1e-4, rtol=1e-4)
    assert answer.settings == {
        "general": "Describe this image.",
        "top_i": 3,
        "lam": -0.5,
        "alpha": 0.8,
        "beta": 0.1,
        "negative": "zeros",
        "strength": 0.01,
        "layers": "all",
        "qformer": "own",
    }


@pytest.mark.parametrize("method", ["greedy", "iava", IAVA(top_i=2), Greedy()])
def test_many_questions_get_what_each_gets_alone(lvlm, method):
    together = lvlm.ask_many(PICTURE, QUESTIONS, method=method, max_new_tokens=6, explain=True)
    for question, answer in zip(QUESTIONS, together, strict=True):
        alone = lvlm.ask(PICTURE, question, method=method, max_new_tokens=6, explain=True)
        assert answer.tokens == alone.tokens
        assert len(answer.explanation.steps) == len(alone.explanation.steps)
        torch.testing.assert_close(answer.logits, alone.logits, atol=1e-4, rtol=1e-4)
    assert lvlm.ask_many(PICTURE, [], method=method) == []


@pytest.mark.parametrize(
    "failure",
    [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("DefaultCPUAllocator: can't allocate memory")],
)
@pytest.mark.parametrize("method", ["greedy", "iava"])
def test_what_memory_does_not_hold_is_asked_in_halves(monkeypatch, capsys, method, failure):
    small = iava.load(tiny.model(4), tiny.processor())
    questions = [*QUESTIONS, "Is there a boat ?", "where ?"]
    expected = small.ask_many(PICTURE, questions, method=method, max_new_tokens=6)
    generate, sizes = small.model.generate, []

    def fails(**inputs):
        sizes.append(len(inputs["input_ids"]))
        if sizes[-1] > 2:
            raise failure
        return generate(**inputs)

    monkeypatch.setattr(small.model, "generate", fails)
    for _ in range(2):
        for answer, other in zip(
            small.ask_many(PICTURE, questions, method=method, max_new_tokens=6), expected, strict=True
        ):
            assert (answer.text, answer.tokens) == (other.text, other.tokens)
            torch.testing.assert_close(answer.logits, other.logits, atol=1e-4, rtol=1e-4)
    assert sizes == [5, 2, 3, 1, 2] * 2
    assert capsys.readouterr().err == "iava: out of memory: the questions of an image are asked in smaller batches\n"
    monkeypatch.setattr(small.model, "generate", lambda **_: (_ for _ in ()).throw(failure))
    with pytest.raises(RuntimeError, match="memory"):
        small.ask_many(PICTURE, questions, method=method)


def test_an_answer_ends_before_the_end_token(lvlm):
    first = plain(lvlm, QUESTIONS[0], 4)
    config = lvlm.model.generation_config
    config.eos_token_id = [2, first[2]]
    try:
        answer = lvlm.ask(PICTURE, QUESTIONS[0], method="greedy", explain=True)
    finally:
        config.eos_token_id = 2
    assert answer.tokens == first[:2]
    assert len(answer.explanation.steps) == 3


def test_a_seed_fixes_what_is_drawn_and_leaves_the_callers_state_alone(lvlm):
    def draw(seed):
        return lvlm.ask(PICTURE, QUESTIONS[0], method="sample", seed=seed, max_new_tokens=8).tokens

    state = torch.random.get_rng_state()
    assert draw(1) == draw(1)
    assert len({tuple(draw(seed)) for seed in range(5)}) > 1
    assert torch.equal(state, torch.random.get_rng_state())
    draw(None)
    assert not torch.equal(state, torch.random.get_rng_state())


def test_the_explanation_holds_what_was_seen_and_weighed(lvlm):
    answer = lvlm.ask(PICTURE, QUESTIONS[1], layers=[0, 2], top_i=4, lam=-0.5, max_new_tokens=3, explain=True)
    seen = answer.explanation
    for found, layers, question in (
        (seen.att_general, seen.layers_general, naive.GENERAL),
        (seen.att_query, seen.layers_query, QUESTIONS[1]),
    ):
        expected = naive.attention(lvlm.model, lvlm.processor, PICTURE, question).mean(dim=1)
        torch.testing.assert_close(layers, expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(found, expected[[0, 2]].mean(0), atol=1e-5, rtol=0)
    expected = naive.selection(lvlm.model, lvlm.processor, PICTURE, QUESTIONS[1], 4, -0.5, [0, 2])
    assert seen.selected.tolist() == expected
    step = seen.steps[0]
    assert set(step) == {"full", "negative", "combined"}
    assert [len(step["full"]), len(step["negative"])] == [10, 10]
    assert step["combined"][0]["id"] == answer.tokens[0]
    assert step["combined"][0]["text"] == lvlm.processor.decode([answer.tokens[0]])
    inputs = naive.prompt_inputs(lvlm.processor, PICTURE, QUESTIONS[1])
    full = naive.logits_after(lvlm.model, naive.embeddings(lvlm.model, inputs), []).softmax(-1)
    assert [c["id"] for c in step["full"]] == full.topk(10).indices.tolist()
    assert [c["probability"] for c in step["full"]] == pytest.approx(full.topk(10).values.tolist(), abs=1e-5)


def test_a_method_without_a_second_branch_explains_its_steps(lvlm):
    seen = lvlm.ask(PICTURE, QUESTIONS[0], method="greedy", max_new_tokens=2, explain=True).explanation
    assert isinstance(seen, Explanation)
    assert (seen.selected, seen.att_query, seen.layers_general, seen.boxes) == (None, None, None, None)
    assert [set(step) for step in seen.steps] == [{"full", "combined"}] * 2


@pytest.mark.parametrize("size", [(60, 40), (31, 77), (24, 24)])
def test_boxes_are_where_the_processor_looks(size):
    """A picture that is black but for one token's box: only that patch of the pixels is bright in its middle."""
    lvlm = iava.load(tiny.model(), tiny.processor())
    boxes = lvlm.ask(Image.new("RGB", size), "What ?", explain=True, max_new_tokens=1).explanation.boxes
    assert boxes.shape == (9, 4)
    for n, box in enumerate(boxes):
        picture = np.zeros((size[1], size[0], 3), dtype=np.uint8)
        x0, y0, x1, y1 = box.round().astype(int)
        picture[y0:y1, x0:x1] = 255
        pixels = (
            lvlm.read(Image.fromarray(picture))
            .inputs.of([lvlm.prompt("What ?")], pixels=True)["pixel_values"][0]
            .mean(0)
        )
        patches = pixels.unfold(0, 8, 8).unfold(1, 8, 8).reshape(9, 8, 8)[:, 2:6, 2:6].mean(dim=(1, 2))
        assert int(patches.argmax()) == n
        assert patches[n] > 1.5
        assert patches[torch.arange(9) != n].max() < -1.2


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"question": ""}, "the question is ''"),
        ({"question": " \n"}, "ask something"),
        ({"question": None}, "the question is None"),
        (
            {"question": "Is <image> a dog ?"},
            "the question contains '<image>', which means",
        ),
        ({"image": "nowhere.png"}, "there is no image at 'nowhere.png'"),
        ({"method": "vodoo"}, "unknown method 'vodoo': use one of greedy, sample, apc, bias"),
        ({"top_i": 0}, "top_i is 0: it must be a number, at least 1"),
        ({"top_j": 1}, "method iava has no setting 'top_j': use one of general, top_i"),
        ({"method": "greedy", "beta": 0.1}, "method greedy has no setting 'beta': it has none"),
        ({"method": Greedy(), "beta": 0.1}, "belong to a method given by name"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0: it must be a whole number, at least 1"),
    ],
)
def test_bad_input_gets_one_line(lvlm, change, complaint):
    with pytest.raises(ValueError, match=complaint) as caught:
        lvlm.ask(**{"image": PICTURE, "question": "What ?", **change})
    assert "\n" not in str(caught.value)


def test_one_string_is_not_a_list_of_questions(lvlm):
    with pytest.raises(ValueError, match="give a list of questions"):
        lvlm.ask_many(PICTURE, "What ?")
