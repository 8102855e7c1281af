"""Every method on every family by every strategy, on a batch of two prompts of different lengths, left padded."""

from functools import cache, partial
from typing import Any

import pytest
import torch

from iava.errors import IavaError
from iava.lvlm.boxes import token_boxes
from iava.methods import METHODS
from iava.methods.base import Method
from iava.methods.oracle import Oracle
from iava.methods.trace import Trace
from tests import families, tiny
from tests.families import FAMILIES

NAMES = [name for name, method in METHODS.items() if not method.several_calls]
"""The methods that `generate` can run."""
QUESTIONS = ("Is there a dog ?", "how many red birds , one or two or three , are there on the street ?")
PICTURES = (tiny.image(1, (40, 32)), tiny.image(2, (60, 25)))
STRATEGIES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampling": {"do_sample": True, "top_k": 0},
    "beams": {"num_beams": 2},
}
NO_PLACE = "oracle does not know where {}'s image tokens look: use a model whose are patches"
REFUSED = {("oracle", "instructblip"): NO_PLACE.format("instructblip"), ("oracle", "blip-2"): NO_PLACE.format("blip-2")}
"""Which method refuses which family, with which message. Any other error fails."""


def run(
    name: str, family: str, rows: tuple[int, ...], device: str = "cpu", **options: Any
) -> tuple[Method, Trace, Any] | IavaError:
    """The method, what it saw and what was generated; or how it refused."""
    model, processor = families.build(family, device)
    method = METHODS[name]().bind(model, processor)
    pictures = PICTURES
    if isinstance(method, Oracle):
        # It knows of one picture at a time.
        pictures = (PICTURES[0], PICTURES[0])
        boxes = partial(token_boxes, model, processor, PICTURES[0])
        method = method.with_regions(boxes, {question: [(5, 5, 20, 20)] for question in QUESTIONS})
    asked = [(method.reword(QUESTIONS[row]), [pictures[row]]) for row in rows]
    inputs = {key: value.to(device) for key, value in families.inputs(family, *asked).items()}
    trace = Trace()
    torch.manual_seed(0)
    wanted = {"max_new_tokens": 2, "return_dict_in_generate": True, "output_scores": True, **options}
    try:
        return method, trace, model.generate(**inputs, custom_generate=partial(method, trace=trace), **wanted)
    except IavaError as refusal:
        return refusal


@cache
def alone(name: str, family: str) -> list[Any]:
    """For each prompt by itself: the first step's logits, and the tokens of a greedy answer; or how it was refused."""
    runs = [run(name, family, (row,)) for row in range(len(QUESTIONS))]
    return [one if isinstance(one, IavaError) else (one[1].logits[0], new_tokens(one[2])[0]) for one in runs]


def new_tokens(found: Any) -> list[list[int]]:
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


QUICK = ("llava", "qwen2_5_vl", "internvl", "instructblip", "blip-2")
"""Families of the fast tests; the others are slow."""


@pytest.mark.parametrize("family", [pytest.param(f, marks=() if f in QUICK else pytest.mark.slow) for f in FAMILIES])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "strategy", ["greedy", *(pytest.param(one, marks=pytest.mark.slow) for one in ("sampling", "beams"))]
)
def test_a_batch_equals_its_prompts(name, family, strategy):
    before = as_found(family)
    together = run(name, family, (0, 1), **STRATEGIES[strategy])
    assert state(families.build(family)[0]) == before
    refusals = {str(one) for one in (together, *alone(name, family)) if isinstance(one, IavaError)}
    assert refusals == {message for pair, message in REFUSED.items() if pair == (name, family)}
    if isinstance(together, IavaError):
        return
    method, trace, found = together
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
    said = {name: alone(name, "llava")[1][0] for name in NAMES}
    same = {"greedy", "sample", "apc", "bias", "end-bias", "token-limit"}
    for name in set(NAMES) - same:
        assert not torch.allclose(said[name], said["greedy"], atol=1e-3), name
