"""Every method on every family by every strategy, on a batch of two prompts of different lengths, left padded."""

from functools import cache, partial
from typing import Any

import pytest
import torch

from iava.errors import IavaError
from iava.lvlm.boxes import token_boxes
from iava.methods.base import Method
from iava.methods.oracle import Oracle
from iava.methods.registry import names, resolve
from iava.methods.trace import Trace
from tests import families, tiny
from tests.families import FAMILIES

QUESTIONS = ("Is there a dog ?", "how many red birds , one or two or three , are there on the street ?")
PICTURES = (tiny.image(1, (40, 32)), tiny.image(2, (60, 25)))
STRATEGIES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampling": {"do_sample": True, "top_k": 0},
    "beams": {"num_beams": 2},
}
REFUSED = {
    ("oracle", "instructblip"): "oracle does not know where instructblip's image tokens look",
    ("oracle", "blip-2"): "oracle does not know where blip-2's image tokens look",
}
"""Which method refuses which family, with which message. All others must be served."""


def run(name: str, family: str, rows: tuple[int, ...], **options: Any) -> tuple[Method, Trace, Any]:
    """The method, what it saw and what was generated."""
    model, processor = families.build(family)
    method = resolve(name)().bind(model, processor)
    pictures = PICTURES
    if isinstance(method, Oracle):
        # It knows of one picture at a time.
        pictures = (PICTURES[0], PICTURES[0])
        boxes = partial(token_boxes, model, processor, PICTURES[0])
        method = method.with_regions(boxes, {question: [(5, 5, 20, 20)] for question in QUESTIONS})
    inputs = families.inputs(family, *((method.reword(QUESTIONS[row]), [pictures[row]]) for row in rows))
    trace = Trace()
    wanted = {"max_new_tokens": 2, "return_dict_in_generate": True, "output_scores": True, **options}
    return method, trace, model.generate(**inputs, custom_generate=partial(method, trace=trace, seed=0), **wanted)


@cache
def alone(name: str, family: str) -> list[Any]:
    """For each prompt by itself: the first step's logits, and the tokens of a greedy answer."""
    runs = [run(name, family, (row,)) for row in range(len(QUESTIONS))]
    return [(trace.logits[0], new_tokens(found)[0]) for _, trace, found in runs]


def new_tokens(found: Any) -> list[list[int]]:
    """Up to the end token."""
    rows = found.sequences[:, -len(found.scores) :].tolist()
    return [row[: row.index(2) + 1] if 2 in row else row for row in rows]


@cache
def as_found(family: str) -> list[Any]:
    """The state of a model that has generated: what transformers itself leaves behind is there."""
    model, _ = families.build(family)
    inputs = families.inputs(family, (QUESTIONS[0], [PICTURES[0]]))
    model.generate(**inputs, max_new_tokens=1, return_dict_in_generate=True, output_scores=True)
    return state(model)


def state(model: Any) -> list[Any]:
    """What could stay behind on a model."""
    return [
        (
            len(module._forward_hooks),
            len(module._forward_pre_hooks),
            "forward" in vars(module),
            module.training,
            getattr(getattr(module, "config", None), "_attn_implementation", None),
        )
        for module in model.modules()
    ] + [str(model.generation_config)]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_batch_equals_its_prompts(name, family, strategy):
    before = as_found(family)
    if (name, family) in REFUSED:
        for rows in ((0, 1), (0,)):
            with pytest.raises(IavaError, match=REFUSED[name, family]) as refusal:
                run(name, family, rows, **STRATEGIES[strategy])
            assert "\n" not in str(refusal.value)
        assert state(families.build(family)[0]) == before
        return
    method, trace, found = run(name, family, (0, 1), **STRATEGIES[strategy])
    assert state(families.build(family)[0]) == before
    logits, tokens = zip(*alone(name, family), strict=True)
    # Beams repeat each prompt.
    first = trace.logits[:: len(trace.logits) // 2]
    assert first.isfinite().all()
    torch.testing.assert_close(first, torch.stack(logits), atol=2e-3, rtol=1e-3)
    for scores in found.scores:
        assert not scores.isnan().any()
        assert scores.isfinite().any(dim=1).all()
    if strategy == "greedy" and not method.sampling:
        assert new_tokens(found) == list(tokens)


def test_methods_differ():
    """Otherwise a method that does nothing would pass."""
    said = {name: alone(name, "llava")[1][0] for name in names()}
    same = {"greedy", "sample", "apc", "bias"}
    for name in said.keys() - same:
        assert not torch.allclose(said[name], said["greedy"], atol=1e-3), name
