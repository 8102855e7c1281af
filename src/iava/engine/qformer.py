"""InstructBLIP, whose image tokens depend on the text: its Q-Former reads the instruction, too.

The family truly differs: `generate` lets the Q-Former read, then calls its language model's `generate`, so the decoding
loop never sees the pixels.
"""

from typing import Any, cast

import torch
from torch.nn.utils.rnn import pad_sequence

from iava.engine.boundary import Prompt, handed
from iava.engine.prefix import Instruction


def features_under(prompt: Prompt, *instructions: Instruction) -> torch.Tensor | None:
    """What the decoder is fed for the image if the Q-Former reads another instruction.

    Args:
        prompt: what the decoder read.
        instructions: what the Q-Former is to read instead: one for all prompts, or one for each.

    Returns:
        (B, N, D), or None if the model's image tokens do not depend on the text.
    """
    given = handed(prompt.outer)
    if given.get("qformer_input_ids") is None:
        return None
    pixels, outer = given["pixel_values"], cast(Any, prompt.outer)
    # Beams and several answers repeat each prompt.
    times = len(prompt.input_ids) // len(pixels)
    texts = [instruction.inputs for instruction in instructions[:: times if len(instructions) > 1 else 1]]
    # A Q-Former counts positions from its first token, so its padding belongs on the right.
    ids, mask = (
        pad_sequence([text[name][0] for text in texts], batch_first=True).to(pixels.device).expand(len(pixels), -1)
        for name in ("qformer_input_ids", "qformer_attention_mask")
    )
    features = outer.get_image_features(
        pixels,
        qformer_input_ids=ids,
        qformer_attention_mask=mask,
        interpolate_pos_encoding=given.get("interpolate_pos_encoding", False),
        return_dict=True,
    ).pooler_output
    return features.repeat_interleave(times, dim=0)
