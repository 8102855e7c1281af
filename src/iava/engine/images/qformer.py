"""InstructBLIP, whose image tokens depend on the text: its Q-Former reads the instruction, too.

The family truly differs: `generate` lets the Q-Former read, then calls its language model's `generate`, so the decoding
loop never sees the pixels.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import torch
from transformers import PreTrainedModel

from iava.engine.edit import Edits, apply
from iava.engine.prompt import Prompt
from iava.engine.tap import after_forward, before_forward
from iava.engine.text.chat_format import tokenizer_lock


def features_under(prompt: Prompt, edits: Sequence[Edits], processor: Any) -> torch.Tensor | None:
    """What the decoder is fed for the image if the Q-Former reads other text.

    Args:
        prompt: what the decoder read.
        edits: of each prompt; the Q-Former reads the text that is left.
        processor: the model's processor.

    Returns:
        (B, N, D), or None if the model's image tokens do not depend on the text.
    """
    given = prompt.generate_kwargs
    if given.get("qformer_input_ids") is None:
        return None
    pixels, vlm = given["pixel_values"], cast(Any, prompt.vlm)
    # Beams and several answers repeat each prompt.
    times = len(prompt.input_ids) // len(pixels)
    texts = [_text(prompt, row, edits[row], processor) for row in range(0, len(edits), times)]
    with tokenizer_lock(processor.qformer_tokenizer):
        # A Q-Former counts positions from its first token, so its padding belongs on the right.
        read = processor.qformer_tokenizer(texts, padding=True, padding_side="right", return_tensors="pt")
    # Bound to an object of ours, the model's own function goes on from what its vision tower saw for the question.
    seen: Any = _Seen(vlm, given["image_features"].vision_outputs)
    features = (
        type(vlm)
        .get_image_features(
            seen,
            pixels,
            qformer_input_ids=read["input_ids"].to(pixels.device),
            qformer_attention_mask=read["attention_mask"].to(pixels.device),
            interpolate_pos_encoding=given.get("interpolate_pos_encoding", False),
            return_dict=True,
        )
        .pooler_output
    )
    return features.repeat_interleave(times, dim=0)


def _text(prompt: Prompt, row: int, edits: Edits, processor: Any) -> str:
    """The text of a prompt after its edits."""
    tokenizer = processor.tokenizer
    special = {id for id, token in tokenizer.added_tokens_decoder.items() if token.special} - {tokenizer.unk_token_id}
    ids = [id for id in apply(prompt.ids(row), edits) if id not in special and id != prompt.vlm.config.image_token_id]
    return str(tokenizer.decode(ids))


class _Seen:
    """The model, with a vision tower that has seen the image already."""

    def __init__(self, model: Any, vision_outputs: Any) -> None:
        self._model = model
        self._vision_outputs = vision_outputs

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def vision_model(self, **_pixels: Any) -> Any:
        return self._vision_outputs


@contextmanager
def cross_attention(model: PreTrainedModel) -> Iterator[list[torch.Tensor]]:
    """Collects the attention of the Q-Former's queries to the image, each time it runs inside.

    Yields:
        For each run (B, queries, P) float32: cross-attention over the vision tower's P patches, mean over heads and the
        layers that have it. A query's sum is at most 1, because the class token takes its share. Empty for models
        without a Q-Former.
    """
    runs: list[torch.Tensor] = []
    layers: list[torch.Tensor] = []

    def layer(module: Any, _args: tuple, kwargs: dict[str, Any]) -> None:
        layers.append(_cross_attention(module, kwargs["hidden_states"], kwargs["encoder_hidden_states"]))

    def run(_module: torch.nn.Module, _args: tuple, _kwargs: dict[str, Any], _output: Any) -> None:
        runs.append(torch.stack(layers).mean(dim=0))
        layers.clear()

    with ExitStack() as stack:
        for name, module in model.named_modules():
            if name.endswith("qformer"):
                stack.enter_context(after_forward(module, run))
            elif name.endswith("crossattention.attention"):
                stack.enter_context(before_forward(module, layer))
        yield runs


def _cross_attention(module: Any, queries: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """(B, queries, D), (B, 1 + P, D') -> (B, queries, P), mean over heads; the class token is first."""
    split = (*queries.shape[:2], module.num_attention_heads, -1)
    q = module.query(queries).view(split).transpose(1, 2)
    k = module.key(image).view(*image.shape[:2], module.num_attention_heads, -1).transpose(1, 2)
    scores = (q @ k.transpose(-1, -2)).float() * module.scaling
    return scores.softmax(dim=-1).mean(dim=1)[..., 1:]
