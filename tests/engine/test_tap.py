"""Hooks that one context sets: what they change there, and that nobody else notices."""

import threading
from dataclasses import dataclass

import pytest
import torch

from iava.engine.attention import AttentionCall
from iava.engine.probe import last_row
from iava.engine.tap import after_forward, attention_hook, before_forward
from iava.methods.base import Method
from tests import eager, families, naive, tiny
from tests.eager import Altered
from tests.test_families import ASKED, state

SLOPE = 0.3


@dataclass(eq=False)
class Near(Method):
    """Every query prefers near keys: a penalty for each column of distance, as in ALiBi."""

    slope: float = SLOPE

    name = "near"

    def attention_hook(self, model, is_image, main_rows, step):
        def attend(call: AttentionCall) -> torch.Tensor:
            keys = torch.arange(call.key.shape[2])
            queries = keys[-call.query.shape[2] :, None]
            return call.add_bias(-self.slope * (queries - keys)).run()

        return attention_hook(model, attend)


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "internvl", "paligemma2", "gemma3", "idefics3"])
def test_a_bias_for_all_queries_equals_eager_attention_with_it(name):
    def nearer(layer, scores):
        keys = torch.arange(scores.shape[-1])
        return scores - SLOPE * (keys[:, None] - keys)

    asked = ASKED[:1] if name in ("gemma3", "paligemma2") else ASKED
    counts = eager.check(name, Near(), asked, lambda expected, tokens: expected.run(tokens, nearer)[0])
    assert sum(counts) > len(asked)


def test_a_bias_changes_what_is_said():
    model, inputs = families.build("llava")[0], families.inputs("llava", *ASKED)
    plain = model.generate(**inputs, max_new_tokens=4)
    assert not torch.equal(plain, model.generate(**inputs, custom_generate=Near(), max_new_tokens=4))
    assert torch.equal(plain, model.generate(**inputs, custom_generate=Near(slope=0.0), max_new_tokens=4))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_bias_for_each_head_and_row(attention):
    model, proc = tiny.model(attention=attention), tiny.processor()
    inputs = tiny.inputs(proc, tiny.image(), "Is there a dog ?", "What ?")
    bias = torch.randn(2, 4, 18, 18, generator=torch.Generator().manual_seed(1))
    with torch.no_grad(), attention_hook(model, lambda call: call.add_bias(bias).run()):
        found = model(**inputs).logits
    expected = Altered("llava", *ASKED[0])
    expected.model = naive_eager(model)
    for row in range(2):
        expected.inputs = {key: value[row : row + 1] for key, value in inputs.items()}
        logits, _ = expected.run([], lambda layer, scores, row=row: scores + bias[row])
        torch.testing.assert_close(found[row, -1], logits, atol=1e-4, rtol=1e-4)


def naive_eager(model):
    model = naive.copy.deepcopy(model)
    model.set_attn_implementation("eager")
    return model


def test_hooks_nest_and_the_last_one_set_is_asked_first():
    model, proc = tiny.model(), tiny.processor()
    inputs, order = tiny.inputs(proc, tiny.image(), "What ?"), []

    def named(name):
        def attend(call):
            order.append((name, call.layer))
            return call.run()

        return attend

    with torch.no_grad():
        plain = model(**inputs).logits
        with attention_hook(model, named("first")), last_row(model) as rows, attention_hook(model, named("last")):
            assert torch.equal(model(**inputs).logits, plain)
        assert order[:2] == [("last", 0), ("first", 0)]
        expected = naive.attention(model, proc, tiny.image(), "What ?")
        torch.testing.assert_close(torch.stack(rows)[:, 0, :, 2:11], expected, atol=1e-5, rtol=0)
        with last_row(model) as inner:
            model(**inputs)
    assert len(rows) == len(inner) == 3
    assert len(order) == 6


def test_modules_can_be_watched_and_changed():
    model, proc = tiny.model(), tiny.processor()
    inputs, head = tiny.inputs(proc, tiny.image(), "What ?"), model.lm_head

    def doubled(_module, args, kwargs):
        return (2 * args[0], *args[1:]), kwargs

    def halved(_module, _args, _kwargs, output):
        return output / 2

    with torch.no_grad():
        plain = model(**inputs).logits
        with before_forward(head, doubled):
            assert torch.equal(model(**inputs).logits, 2 * plain)
            with after_forward(head, halved):
                assert torch.equal(model(**inputs).logits, plain)
        assert torch.equal(model(**inputs).logits, plain)


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
def test_nothing_stays_on_the_model(error):
    model, before = tiny.model(), state(tiny.model())
    try:
        with before_forward(model.lm_head, lambda *_: None), attention_hook(model, AttentionCall.run), last_row(model):
            assert state(model) != before
            if error:
                raise error
    except (RuntimeError, KeyboardInterrupt):
        pass
    assert state(model) == before


def test_other_threads_do_not_notice():
    model, proc = tiny.model(), tiny.processor()
    inputs = tiny.inputs(proc, tiny.image(), "Is there a dog ?", "What ?")
    with torch.no_grad():
        plain = model(**inputs).logits
    found, calls = [], []

    def elsewhere():
        with torch.no_grad():
            found.append(model(**inputs).logits)

    with before_forward(model.lm_head, lambda *_: calls.append(1)), last_row(model) as rows:
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        assert torch.equal(found[0], plain)
        assert not calls
        assert not rows


def test_hooks_come_and_go_while_another_thread_runs_the_model():
    model, proc = tiny.model(), tiny.processor()
    inputs = tiny.inputs(proc, tiny.image(), "What ?")
    found, stop = [], threading.Event()
    with torch.no_grad():
        plain = model(**inputs).logits
    # transformers attaches hooks of its own on the first call.
    before = state(model)

    def elsewhere():
        with torch.no_grad():
            while not stop.is_set():
                found.append(torch.equal(model(**inputs).logits, plain))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    decoder = model.get_decoder()
    while len(found) < 20:
        with before_forward(decoder, lambda *_: None), after_forward(decoder, lambda *_: None), last_row(model):
            pass
    stop.set()
    thread.join()
    assert all(found)
    assert state(model) == before


def test_two_models_of_one_config():
    """transformers keeps the config object that a model was built from: both models have the same."""
    one = tiny.model()
    other = type(one)(one.config).eval()
    assert other.get_decoder().config is one.get_decoder().config
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad(), last_row(one) as rows:
        with last_row(other) as others:
            other(input_ids=ids)
            assert len(others) == 3
        one(input_ids=ids)
        assert len(rows) >= 3
    assert one.get_decoder().config._attn_implementation == "sdpa"


def test_flex_attention_is_refused_in_one_line():
    model = tiny.model()
    model.get_decoder().config._attn_implementation = "flex_attention"
    with pytest.raises(ValueError, match="the model attends with flex_attention"), last_row(model):
        pass
