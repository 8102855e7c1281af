"""With a static cache, the steps of all branches run in one compiled call."""

from typing import Any

import pytest
import torch
from transformers import CompileConfig

import iava
from tests import tiny

QUESTIONS = ["Is there a dog ?", "where is the blue boat on the street ?"]


@pytest.fixture
def compiled():
    """Options of `generate`, and the graphs that were compiled for them."""
    graphs: list[Any] = []

    def backend(graph, _inputs):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    config = CompileConfig(backend=backend, mode=None, fullgraph=False)
    config._compile_all_devices = True
    yield {"cache_implementation": "static", "compile_config": config, "eos_token_id": None}, graphs
    torch._dynamo.reset()


@pytest.mark.slow
@pytest.mark.parametrize("negative", ["zeros", "drop", "hide"])
@pytest.mark.parametrize("questions", [QUESTIONS[:1], QUESTIONS])
def test_same_tokens_and_no_recompilation_between_steps(compiled, negative, questions):
    options, graphs = compiled
    model, proc = tiny.model(4), tiny.processor()
    inputs = tiny.inputs(proc, tiny.image(2), *questions)
    method = iava.IAVA(proc, negative=negative)
    expected = model.generate(**inputs, custom_generate=method, max_new_tokens=9, eos_token_id=None)
    seen = []
    for stop in (3, 9):

        def count(input_ids, scores, stop=stop, **_):
            seen.append((stop, len(graphs)))
            return torch.full((len(input_ids),), input_ids.shape[1] - inputs["input_ids"].shape[1] >= stop)

        found = model.generate(**inputs, custom_generate=method, max_new_tokens=9, stopping_criteria=[count], **options)
        assert torch.equal(found, expected[:, : found.shape[1]])
    counts = [graphs_so_far for stop, graphs_so_far in seen if stop == 9]
    assert len(graphs) > 0
    # Whatever is compiled, is compiled before the second token of the answer.
    assert len(set(counts[1:])) == 1


@pytest.mark.slow
def test_a_method_with_a_hook_is_not_compiled(compiled):
    options, graphs = compiled
    model, proc = tiny.model(4), tiny.processor()
    inputs = tiny.inputs(proc, tiny.image(2), QUESTIONS[0])
    plain = model.generate(**inputs, custom_generate=iava.PAI(), max_new_tokens=4, eos_token_id=None)
    assert torch.equal(plain, model.generate(**inputs, custom_generate=iava.PAI(), max_new_tokens=4, **options))
    assert not graphs
