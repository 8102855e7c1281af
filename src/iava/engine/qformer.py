"""InstructBLIP, whose image tokens depend on the text: its Q-Former reads the instruction, too.

The family truly differs: `generate` lets the Q-Former read, then calls its language model's `generate`, so the decoding
loop never sees the pixels.
"""

from typing import Any, cast

import torch

from iava.engine.boundary import Prompt, handed
from iava.engine.prefix import Instruction


def features_under(prompt: Prompt, instruction: Instruction) -> torch.Tensor | None:
    """What the decoder is fed for the image if the Q-Former reads another instruction.

    Args:
        prompt: what the decoder read.
        instruction: what the Q-Former is to read instead.

    Returns:
        (B, N, D), or None if the model's image tokens do not depend on the text.
    """
    given = handed(prompt.outer)
    if given.get("qformer_input_ids") is None:
        return None
    pixels, outer = given["pixel_values"], cast(Any, prompt.outer)
    text = instruction.inputs
    # Bound to an object of ours, the model's own function goes on from what its vision tower saw for the question.
    features = (
        type(outer)
        .get_image_features(
            _Seen(outer, given["image_features"].vision_outputs),
            pixels,
            qformer_input_ids=text["qformer_input_ids"].to(pixels.device).expand(len(pixels), -1),
            qformer_attention_mask=text["qformer_attention_mask"].to(pixels.device).expand(len(pixels), -1),
            interpolate_pos_encoding=given.get("interpolate_pos_encoding", False),
            return_dict=True,
        )
        .pooler_output
    )
    # Beams and several answers repeat each prompt.
    return features.repeat_interleave(len(prompt.input_ids) // len(features), dim=0)


class _Seen:
    """The model, with a vision tower that has seen the image already."""

    def __init__(self, model: Any, vision_outputs: Any) -> None:
        self._model = model
        self._vision_outputs = vision_outputs

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def vision_model(self, **_pixels: Any) -> Any:
        return self._vision_outputs
