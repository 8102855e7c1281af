"""Other implementations to compare costs with: a naive IAVA, and methods of the package mitigv."""

from importlib.util import find_spec
from typing import Any

import torch
from transformers import DynamicCache

from iava.engine import hf
from iava.errors import IavaError
from iava.lvlm.model import LVLM
from iava.methods.iava import IAVA
from iava.methods.mixing import contrast
from iava.methods.select import select_irrelevant

MITIGV = ("vcd", "icd", "pai", "m3id", "only")
"""Methods of the package mitigv that this library has, too."""
BASELINES = ("naive", *(f"mitigv:{name}" for name in MITIGV))
"""Command-line names."""

ModelInputs = dict[str, Any]
"""Keyword arguments of `generate`, such as input_ids and pixel_values."""


@torch.no_grad()
def naive(model: Any, inputs: ModelInputs, general: ModelInputs, max_new_tokens: int) -> torch.Tensor:
    """IAVA without any sharing, as research code implements contrastive decoding.

    Two passes with eager attention materialize all attention matrices and select the irrelevant tokens. Then the main
    branch and the contrast branch decode in turn, each with its own cache. Each of the four passes encodes the image.
    Settings as published, negative image by zeroed embeddings, greedy decoding.

    Args:
        model: a LLaVA or an InstructBLIP.
        inputs: prompts of equal length, without padding.
        general: the same for the general instruction.
        max_new_tokens: the length of every answer. The end-of-sequence token does not stop decoding.

    Returns:
        (B, max_new_tokens) token ids.
    """
    is_image = inputs["input_ids"] == model.config.image_token_id
    att_general, att_query = (_image_attention(model, one) for one in (general, inputs))
    selected = select_irrelevant(att_general, att_query, top_i=0.2, lam=IAVA().for_model(model).lam or 0.0)
    zeroed = torch.zeros_like(is_image).masked_scatter(is_image, ~selected)
    language_model = model.language_model if model.config.model_type == "instructblip" else model
    caches = DynamicCache(), DynamicCache()
    embeddings = _embeddings(model, inputs), _embeddings(model, inputs).masked_fill(zeroed[..., None], 0.0)
    tokens: list[torch.Tensor] = []
    while True:
        logits, contrast_logits = (
            language_model(inputs_embeds=one, use_cache=True, logits_to_keep=1, **{hf.CACHE: cache})
            .logits[:, -1]
            .float()
            for one, cache in zip(embeddings, caches, strict=True)
        )
        tokens.append(contrast(logits, contrast_logits, alpha=1.0, beta=0.1).argmax(dim=-1, keepdim=True))
        if len(tokens) == max_new_tokens:
            return torch.cat(tokens, dim=1)
        embeddings = (model.get_input_embeddings()(tokens[-1]),) * 2


def _image_attention(model: Any, inputs: ModelInputs) -> torch.Tensor:
    """(B, N) attention of the last prompt token to the image tokens, mean over layers and heads."""
    implementation = hf.attention_name(model.config)
    try:
        model.set_attn_implementation("eager")
        outputs = model(**inputs, output_attentions=True, use_cache=False)
    finally:
        model.set_attn_implementation(implementation)
    matrices = getattr(outputs, "language_model_outputs", outputs).attentions
    rows = torch.stack([matrix[:, :, -1].float() for matrix in matrices]).mean(dim=(0, 2))
    is_image = inputs["input_ids"] == model.config.image_token_id
    return rows[is_image].view(len(rows), -1)


def _embeddings(model: Any, inputs: ModelInputs) -> torch.Tensor:
    """(B, S, D) input embeddings of the decoder."""
    text = {name: inputs[name] for name in ("qformer_input_ids", "qformer_attention_mask") if name in inputs}
    features = torch.cat(list(model.get_image_features(inputs["pixel_values"], **text).pooler_output))
    embeddings = model.get_input_embeddings()(inputs["input_ids"])
    is_image = inputs["input_ids"] == model.config.image_token_id
    return embeddings.masked_scatter(is_image[..., None], features.to(embeddings))


class MitigV:
    """A method of the package mitigv (0.1.7), with its own decoding loop and its own default settings.

    mitigv calls the processor itself. The call is answered with prepared inputs, so that preprocessing is not timed.

    Args:
        lvlm: a LLaVA and its processor.
        method: one of `MITIGV`.

    Raises:
        IavaError: if the package is not installed, or the model is not a LLaVA.
    """

    def __init__(self, lvlm: LVLM, method: str) -> None:
        if not find_spec("mitigv"):
            raise IavaError("the package mitigv is not installed: install mitigv==0.1.7, or leave its methods out")
        import mitigv

        family = lvlm.model.config.model_type
        if family != "llava":
            raise IavaError(f"the package mitigv does not support {family}: leave its methods out for this shape")
        self._processor = _PreparedProcessor(lvlm.processor, lvlm.model.config.image_token_id)
        self._method = mitigv.load_mitigator(method, model=lvlm.model, processor=self._processor, model_type="llava")
        # Its adapter does not find the decoder layers where current releases of transformers have them.
        self._method.model.language_model = lvlm.model.get_decoder()

    def __call__(self, inputs: ModelInputs, max_new_tokens: int) -> None:
        self._processor.inputs = inputs
        self._method(None, "<image>", max_new_tokens=max_new_tokens, do_sample=False)


class _PreparedProcessor:
    """Answers a prompt with an image by the prepared inputs, and one without by their text."""

    def __init__(self, processor: Any, image_token: int) -> None:
        self.tokenizer = processor.tokenizer
        self.inputs: ModelInputs = {}
        self._image_token = image_token

    def __call__(self, text: Any, **_: Any) -> ModelInputs:
        if "<image>" in str(text):
            return self.inputs
        ids = self.inputs["input_ids"]
        is_text = ids != self._image_token
        return {name: self.inputs[name][is_text].view(len(ids), -1) for name in ("input_ids", "attention_mask")}
