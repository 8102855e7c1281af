"""What a Q-Former's queries look at equals the weights that eager attention reports."""

import pytest
import torch

from iava.engine.images.qformer import cross_attention
from iava.lvlm.model import LVLM
from tests import families, tiny

QUESTIONS = ["Is there a dog in the picture ?", "What ?"]
GENERAL = "Describe this image ."


def eager(name, text):
    """(N, P) mean over heads and layers, as transformers returns it."""
    model, processor = families.build(name)
    inputs = processor(text=text, images=tiny.image(), return_tensors="pt")
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    core = model.base_model if hasattr(model.base_model, "qformer") else model
    try:
        with torch.no_grad():
            image = core.vision_model(pixel_values=inputs["pixel_values"])[0]
            queries = core.query_tokens.expand(1, -1, -1)
            read = {}
            if "qformer_input_ids" in inputs:
                read["input_ids"] = inputs["qformer_input_ids"]
                read["attention_mask"] = torch.cat(
                    [torch.ones(queries.shape[:2], dtype=torch.long), inputs["qformer_attention_mask"]], dim=1
                )
            weights = core.qformer(
                query_embeds=queries, encoder_hidden_states=image, output_attentions=True, return_dict=True, **read
            ).cross_attentions
    finally:
        model.set_attn_implementation(before)
    return torch.stack(weights).mean(dim=(0, 2))[0, :, 1:]


@pytest.mark.parametrize("name", ["instructblip", "blip-2"])
def test_looks_equal_eager_cross_attention(name):
    lvlm = LVLM(*families.build(name))
    for method in ("greedy", "iava"):
        settings = {"general": GENERAL} if method == "iava" else {}
        answers = lvlm.ask_many(tiny.image(), QUESTIONS, method=method, explain=True, max_new_tokens=2, **settings)
        for question, answer in zip(QUESTIONS, answers, strict=True):
            found = answer.explanation.cross_attention
            assert found.boxes.shape == (9, 4)
            torch.testing.assert_close(found.query, eager(name, question), atol=1e-5, rtol=1e-4)
            if method == "iava":
                torch.testing.assert_close(found.general, eager(name, GENERAL), atol=1e-5, rtol=1e-4)
    if name == "instructblip":
        assert not torch.allclose(found.general, found.query, atol=1e-4)


def test_models_without_a_qformer_have_no_looks_and_hooks_are_taken_off():
    model, processor = families.build("llava")
    assert (
        LVLM(model, processor).ask(tiny.image(), "What ?", explain=True, max_new_tokens=1).explanation.cross_attention
        is None
    )
    model, _ = families.build("instructblip")

    def hooks():
        return [(len(module._forward_hooks), len(module._forward_pre_hooks)) for module in model.modules()]

    before = hooks()
    with pytest.raises(RuntimeError), cross_attention(model):
        raise RuntimeError
    assert hooks() == before
