import pytest
import torch
from transformers import DynamicCache

from iava.engine.boundary import Prompt, capture, image_mask, pack, run
from iava.engine.negatives import zeros
from tests import tiny


def test_what_was_captured_gives_the_same_logits_again():
    model, proc = tiny.model(), tiny.processor()
    inputs = tiny.inputs(proc, tiny.image(), "Is there a dog ?", "What ?")
    position_ids = (inputs["attention_mask"].cumsum(1) - 1).clamp(min=0)
    with torch.no_grad(), capture(model) as captured:
        first = model(**inputs, position_ids=position_ids, logits_to_keep=1).logits[:, -1]
    with torch.no_grad():
        again = run(model, captured, DynamicCache(config=model.get_decoder().config)).logits[:, -1]
    assert torch.equal(first, again)


def test_everything_captured_reaches_the_decoder_again(monkeypatch):
    """Also what the outer model would not pass on by itself, such as visual features for single layers."""
    model, proc = tiny.model(), tiny.processor()
    with torch.no_grad(), capture(model) as captured:
        model(**tiny.inputs(proc, tiny.image(), "What ?"), position_ids=torch.arange(15)[None])
    decoder, reached = model.get_decoder(), {}
    forward = decoder.forward

    def spy(*, extra, **kwargs):
        reached.update(kwargs, extra=extra)
        return forward(**kwargs)

    monkeypatch.setattr(decoder, "forward", spy)
    cache = DynamicCache()
    with torch.no_grad():
        run(model, {**captured, "extra": "kept"}, cache)
    assert reached["extra"] == "kept"
    assert reached["past_key_values"] is cache
    assert torch.equal(reached["inputs_embeds"], captured["inputs_embeds"])


def test_no_hook_stays_behind_an_error():
    model, proc = tiny.model(), tiny.processor()
    inputs = tiny.inputs(proc, tiny.image(), "What ?")
    with torch.no_grad(), capture(model) as captured:
        model(**inputs)
    with pytest.raises(ZeroDivisionError), capture(model):
        raise ZeroDivisionError
    captured["inputs_embeds"] = captured["inputs_embeds"][..., :3]
    captured["position_ids"] = torch.arange(captured["inputs_embeds"].shape[1])[None]
    with pytest.raises(RuntimeError):
        run(model, captured, DynamicCache())
    assert not model.get_decoder()._forward_pre_hooks


def test_pack():
    index, valid = pack(torch.tensor([[0, 1, 0, 1], [1, 0, 0, 0], [1, 1, 1, 0]]).bool())
    assert valid.tolist() == [[True, True, False], [True, False, False], [True, True, True]]
    assert [row[ok].tolist() for row, ok in zip(index, valid, strict=True)] == [[1, 3], [0], [0, 1, 2]]


def test_image_mask_names_the_prompt_without_an_image():
    model = tiny.model()
    assert image_mask(model, torch.tensor([[5, 4, 4, 6]])).tolist() == [[False, True, True, False]]
    with pytest.raises(ValueError, match="prompt 1 of 2 has no image tokens"):
        image_mask(model, torch.tensor([[5, 4], [5, 6]]))


def test_zeros_blanks_exactly_the_other_image_tokens():
    embeddings = torch.ones(2, 4, 3)
    ids = torch.tensor([[4, 4, 5, 5], [5, 4, 4, 4]])
    inputs = {"inputs_embeds": embeddings, "x": 1}
    prompt = Prompt(tiny.model(), ids, torch.ones_like(ids), inputs, [], DynamicCache())
    keep = torch.tensor([[True, False, False], [False, False, True]])
    branch = zeros(prompt, keep)
    assert branch["inputs_embeds"][..., 0].tolist() == [[1, 0, 1, 1], [1, 0, 0, 1]]
    assert branch["x"] == 1
    assert embeddings.min() == 1
