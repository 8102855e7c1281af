"""Others' ways to do the same, to be timed beside ours."""

from importlib.util import find_spec
from typing import Any

import torch
from transformers import DynamicCache

from iava.errors import IavaError
from iava.lvlm.model import LVLM
from iava.methods.iava import IAVA
from iava.methods.mixing import contrast
from iava.methods.select import select_irrelevant

Inputs = dict[str, Any]


@torch.no_grad()
def naive(model: Any, inputs: Inputs, general: Inputs, max_new_tokens: int) -> torch.Tensor:
    """IAVA as the papers' code does such things: nothing is shared, and the whole matrix of attention is looked at.

    Two passes with eager attention find the irrelevant tokens; then both branches, each with its own cache, read the
    prompt and take turns. Every one of the four reads the image. Published settings, zeroed embeddings, greedy.

    Args:
        model: a LLaVA or an InstructBLIP.
        inputs: what `generate` takes; prompts of one length, without padding.
        general: the same for the general instruction.
        max_new_tokens: every answer's length; no end token is looked for.

    Returns:
        (B, max_new_tokens) token ids.
    """
    is_image = inputs["input_ids"] == model.config.image_token_id
    att_general, att_query = (_attention(model, one) for one in (general, inputs))
    kept = select_irrelevant(att_general, att_query, top_i=0.2, lam=IAVA().for_model(model)._lam)
    blank = torch.zeros_like(is_image).masked_scatter(is_image, ~kept)
    language = model.language_model if model.config.model_type == "instructblip" else model
    full, negative = DynamicCache(), DynamicCache()
    fed = _embedded(model, inputs), _embedded(model, inputs).masked_fill(blank[..., None], 0.0)
    tokens: list[torch.Tensor] = []
    while True:
        logits, other = (
            language(inputs_embeds=one, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[:, -1].float()
            for one, cache in zip(fed, (full, negative), strict=True)
        )
        tokens.append(contrast(logits, other, alpha=1.0, beta=0.1).argmax(dim=-1, keepdim=True))
        if len(tokens) == max_new_tokens:
            return torch.cat(tokens, dim=1)
        fed = (model.get_input_embeddings()(tokens[-1]),) * 2


def _attention(model: Any, inputs: Inputs) -> torch.Tensor:
    """(B, N), mean over layers and heads, out of the matrices of all layers."""
    kernel = model.config._attn_implementation
    try:
        model.set_attn_implementation("eager")
        outputs = model(**inputs, output_attentions=True, use_cache=False)
    finally:
        model.set_attn_implementation(kernel)
    matrices = getattr(outputs, "language_model_outputs", outputs).attentions
    rows = torch.stack([matrix[:, :, -1].float() for matrix in matrices]).mean(dim=(0, 2))
    is_image = inputs["input_ids"] == model.config.image_token_id
    return rows[is_image].view(len(rows), -1)


def _embedded(model: Any, inputs: Inputs) -> torch.Tensor:
    """(B, S, D), what the decoder is fed."""
    text = {name: inputs[name] for name in ("qformer_input_ids", "qformer_attention_mask") if name in inputs}
    features = torch.cat(list(model.get_image_features(inputs["pixel_values"], **text).pooler_output))
    embeddings = model.get_input_embeddings()(inputs["input_ids"])
    is_image = inputs["input_ids"] == model.config.image_token_id
    return embeddings.masked_scatter(is_image[..., None], features.to(embeddings))


class MitigV:
    """VCD of the package mitigv (0.1.7), which reads, contrasts and decodes by itself.

    Its own call of the processor is answered with inputs that are ready, as those of all others are.

    Raises:
        IavaError: if the package is not installed, or does not know the model's family.
    """

    def __init__(self, lvlm: LVLM) -> None:
        if not find_spec("mitigv"):
            raise IavaError("peer mitigv is not installed here: install mitigv==0.1.7, or leave it out")
        import mitigv

        if lvlm.model.config.model_type != "llava":
            raise IavaError(f"peer mitigv knows no {lvlm.model.config.model_type}: leave it out for this shape")
        self._ready = _Ready(lvlm.processor)
        self._vcd = mitigv.load_mitigator("vcd", model=lvlm.model, processor=self._ready, model_type="llava")

    def __call__(self, inputs: Inputs, max_new_tokens: int) -> None:
        self._ready.inputs = inputs
        self._vcd(None, "", max_new_tokens=max_new_tokens, do_sample=False)


class _Ready:
    def __init__(self, processor: Any) -> None:
        self.tokenizer = processor.tokenizer
        self.inputs: Inputs = {}

    def __call__(self, **_: Any) -> Inputs:
        return self.inputs
