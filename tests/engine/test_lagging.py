"""With `lazy`, contrast branches run only where they can change a step; the tokens are the same."""

import pytest
import torch

import iava
from tests import families, tiny

QUESTIONS = ["Is there a dog ?", "where is the blue boat on the street ?"]


def decoded(model, inputs, method, **options):
    """The new tokens, and the rows and columns of each decoder pass."""
    passes = []
    decoder = model.get_decoder()
    handle = decoder.layers[0].register_forward_pre_hook(
        lambda _, args, kwargs: passes.append(tuple((args[0] if args else kwargs["hidden_states"]).shape[:2])),
        with_kwargs=True,
    )
    found = model.generate(**inputs, custom_generate=method, max_new_tokens=12, eos_token_id=None, **options)
    handle.remove()
    return found.tolist(), passes


@pytest.mark.parametrize("negative", ["zeros", "drop", "hide"])
@pytest.mark.parametrize("beta", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("options", [{}, {"do_sample": True, "seed": 3, "temperature": 1.5}])
@pytest.mark.slow
def test_the_tokens_are_the_same(negative, beta, options):
    model, proc = tiny.model(4), tiny.processor()
    for questions in (QUESTIONS[:1], QUESTIONS):
        inputs = tiny.inputs(proc, tiny.image(2), *questions)
        always, each = decoded(model, inputs, iava.IAVA(proc, negative=negative, beta=beta), **options)
        lazy, some = decoded(model, inputs, iava.IAVA(proc, negative=negative, beta=beta, lazy=True), **options)
        assert lazy == always
        # Each of the eleven steps runs the main branch alone; the contrast branch catches up now and then.
        steps = [shape for shape in some if shape == (len(questions), 1)]
        assert len(steps) >= 11
        assert sum(rows * columns for rows, columns in some) <= sum(rows * columns for rows, columns in each)


def test_the_second_branch_is_left_out_and_catches_up_in_one_pass():
    model, proc = tiny.model(4), tiny.processor()
    inputs = tiny.inputs(proc, tiny.image(2), QUESTIONS[0])
    # Only ties leave more than one token, so after the first token the contrast branch never runs.
    _, passes = decoded(model, inputs, iava.IAVA(proc, negative="zeros", beta=1.0, lazy=True))
    assert passes[2:] == [(1, 1)] * 11
    caught_up = set()
    for beta in (0.3, 0.5, 0.7, 0.8, 0.9):
        _, passes = decoded(model, inputs, iava.IAVA(proc, negative="zeros", beta=beta, lazy=True))
        caught_up |= {columns for _, columns in passes[2:]}
    assert max(caught_up) > 1


@pytest.mark.parametrize("method", ["vcd", "icd", "avisc", "no-image", "iava+"])
def test_methods_with_a_constraint(method):
    lvlm = iava.load(tiny.model(4), tiny.processor())
    inputs = tiny.inputs(lvlm.processor, tiny.image(2), QUESTIONS[1])
    made = lvlm.method(method)
    always, _ = decoded(lvlm.model, inputs, made)
    made.lazy = True
    assert decoded(lvlm.model, inputs, made)[0] == always


@pytest.mark.parametrize("name", families.FAMILIES)
def test_every_family(name):
    model, processor = families.build(name)
    inputs = families.inputs(
        name, ("Is there a dog ?", [tiny.image(1, (40, 32))]), ("What ?", [tiny.image(3, (31, 64))])
    )
    settings = {"model": model, "negative": "drop", "top_i": 0.4, "lam": -0.5, "beta": 0.6}
    always, lazy = (
        model.generate(**inputs, custom_generate=iava.IAVA(processor, lazy=one, **settings), max_new_tokens=6)
        for one in (False, True)
    )
    assert torch.equal(always, lazy)
