import pytest
import torch
from transformers.models.llama import modeling_llama

from iava import probe
from iava.engine.attention import attention_row
from iava.engine.probe import last_row, mean_attention
from tests import naive, tiny

MODELS = [
    {"seed": 0},
    {"seed": 1, "heads": 8, "kv_heads": 2, "width": 64},
    {"seed": 2, "layers": 5, "feature_layer": -1, "image_size": 32},
    {"seed": 3, "kv_heads": 1, "attention": "eager"},
]
QUESTIONS = ["Is there a dog ?", "how many red birds , one or two or three , are there on the street ?", "What ?"]


@pytest.mark.parametrize("shape", MODELS)
def test_probe_equals_eager_attention(shape):
    model, proc = tiny.model(**shape), tiny.processor(shape.get("image_size", 24))
    picture = tiny.image(5)
    for question in QUESTIONS:
        expected = naive.attention(model, proc, picture, question)
        inputs = naive.prompt_inputs(proc, picture, question)
        torch.testing.assert_close(probe(model, **inputs)[0], expected.mean(dim=(0, 1)), atol=1e-5, rtol=0)
        chosen = probe(model, **inputs, layers=[0, -1])[0]
        torch.testing.assert_close(chosen, expected[[0, -1]].mean(dim=(0, 1)), atol=1e-5, rtol=0)


def test_left_padding_changes_nothing():
    model, proc, picture = tiny.model(), tiny.processor(), tiny.image()
    together = probe(model, **tiny.inputs(proc, picture, *QUESTIONS))
    for row, question in zip(together, QUESTIONS, strict=True):
        expected = naive.attention(model, proc, picture, question).mean(dim=(0, 1))
        torch.testing.assert_close(row, expected, atol=1e-5, rtol=0)


def test_rows_with_fewer_images_end_in_zeros():
    model, proc = tiny.model(), tiny.processor()
    one, two = tiny.image(1), tiny.image(2)
    # The prompt with fewer image tokens is the longer one: it has no padding that would be zero anyway.
    texts = [tiny.prompt(QUESTIONS[1]), tiny.prompt("What ?", images=2)]
    inputs = proc(text=texts, images=[one, one, two], padding=True, return_tensors="pt")
    attention = probe(model, **inputs)
    assert attention.shape == (2, 18)
    assert (attention[0, 9:] == 0).all()
    assert (attention[1] > 0).all()
    alone = probe(model, **naive.prompt_inputs(proc, one, QUESTIONS[1]))
    torch.testing.assert_close(attention[0, :9], alone[0], atol=1e-5, rtol=0)


def test_the_model_never_runs_in_eager_mode(monkeypatch):
    def refuse(*_args, **_kwargs):
        raise AssertionError("eager attention was used")

    monkeypatch.setattr(modeling_llama, "eager_attention_forward", refuse)
    model, proc = tiny.model(), tiny.processor()
    assert probe(model, **tiny.inputs(proc, tiny.image(), "What ?")).sum() > 0


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_the_attention_setting_comes_back_after_an_error(error):
    model, proc = tiny.model(), tiny.processor()

    def fail(*_args):
        raise error

    handle = model.model.language_model.layers[1].register_forward_hook(fail)
    with pytest.raises(error):
        probe(model, **tiny.inputs(proc, tiny.image(), "What ?"))
    handle.remove()
    assert model.get_decoder().config._attn_implementation == "sdpa"
    assert model.config._attn_implementation == "sdpa"
    with pytest.raises(LookupError), last_row(model):
        raise LookupError
    assert model.get_decoder().config._attn_implementation == "sdpa"


def test_mask_kinds_agree():
    torch.manual_seed(0)
    query, key = torch.randn(2, 4, 3, 8), torch.randn(2, 2, 5, 8)
    seen = torch.tensor([[0, 1, 1, 1, 1], [1, 1, 1, 0, 1]])
    expected = []
    for row in range(2):
        scores = torch.stack([query[row, head, -1] @ key[row, head // 2].T * 0.3 for head in range(4)])
        expected.append((scores.exp() * seen[row]) / (scores.exp() * seen[row]).sum(-1, keepdim=True))
    boolean = seen.bool()[:, None, None].expand(2, 1, 3, 5)
    added = torch.where(boolean, 0.0, torch.finfo(torch.float32).min)
    for mask in (seen, boolean, added):
        torch.testing.assert_close(attention_row(query, key, mask, 0.3), torch.stack(expected))


def test_refusals():
    model, proc = tiny.model(), tiny.processor()
    inputs = tiny.inputs(proc, tiny.image(), "What ?")
    with pytest.raises(ValueError, match="layers names layer 3, but the model has 3: use -3 to 2"):
        probe(model, **inputs, layers=[0, 3])
    with pytest.raises(ValueError, match="none of the prompts has image tokens"):
        probe(model, **proc.tokenizer(["What ?"], return_tensors="pt"))
    with pytest.raises(ValueError, match="layer -4"):
        mean_attention(torch.zeros(1, 3, 2, 4), [-4])
