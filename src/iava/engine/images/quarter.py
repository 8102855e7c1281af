"""Images of half the height and width, with a quarter of the tokens, for families that take any resolution."""

import inspect
from typing import Any

import numpy as np
import torch
from torch.nn.functional import interpolate

from iava.engine import hf
from iava.engine.boundary import capture
from iava.engine.branch import Branch
from iava.engine.host import to_device
from iava.engine.images.pixels import first_of_each, from_patches, into_patches, patch_shape, pixel_values
from iava.engine.prompt import Prompt
from iava.errors import IavaError


def quartered(prompt: Prompt) -> Branch:
    """The prompts with images of half the height and width, which have a quarter of the tokens.

    Pixels are averages over blocks. Half of a side with an odd number of tokens is rounded up. Positions are those that
    the model gives to a prompt with such an image.

    Raises:
        IavaError: if the family reads images at one resolution, or `generate` was given no pixels.
    """
    if pixel_values(prompt).dim() != 2:
        raise IavaError(
            f"{prompt.vlm.config.model_type} reads its images at one resolution, so a smaller one has as many tokens: "
            "use 'lowres'"
        )
    rows = first_of_each(prompt)
    side, merged, _ = patch_shape(prompt)
    given, vlm, device = prompt.generate_kwargs, prompt.vlm, prompt.input_ids.device
    grids = given["image_grid_thw"].tolist()
    smaller = [[steps, *(merged * -(-size // (2 * merged)) for size in sizes)] for steps, *sizes in grids]
    there, is_image = prompt.host[1][rows], prompt.host[2][rows]
    counts = [[int(np.prod(grid)) // merged**2 for grid in some] for some in (grids, smaller)]
    kept = there.copy()
    kept[is_image] = np.concatenate([np.arange(old) < new for old, new in zip(*counts, strict=True)])
    width = int(kept.sum(axis=1).max())
    columns = to_device(np.argsort(kept, axis=1, kind="stable")[:, -width:], device)
    mask = to_device(kept, device).gather(1, columns).long()
    forward = inspect.signature(vlm.forward).parameters
    # Columns that pad a row may be image tokens that left.
    inputs: dict[str, Any] = {
        name: value.gather(1, columns) * mask
        for name, value in given.items()
        if name in forward and isinstance(value, torch.Tensor) and value.shape == given["input_ids"].shape
    }
    images = [
        interpolate(image.float(), size=(height * side, width * side), mode="area")
        for image, (_, height, width) in zip(from_patches(prompt), smaller, strict=True)
    ]
    inputs |= {
        "attention_mask": mask,
        "pixel_values": torch.cat([into_patches(prompt, image) for image in images]).to(pixel_values(prompt)),
        "image_grid_thw": torch.tensor(smaller, device=device),
    }
    positions = hf.prompt_positions(vlm, inputs["input_ids"], inputs)
    with capture(vlm, stop=True) as captured:
        vlm(**inputs, position_ids=positions)
    times = rows.step
    images_of = inputs["input_ids"] == vlm.config.image_token_id
    deepstack = captured.get("deepstack_visual_embeds")
    if deepstack is not None:
        of_rows = images_of.sum(dim=1).tolist()
        deepstack = [torch.cat([part for part in layer.split(of_rows) for _ in range(times)]) for layer in deepstack]
    return Branch(
        embeddings=captured["inputs_embeds"].repeat_interleave(times, dim=0),
        positions=captured["position_ids"].repeat_interleave(times, dim=-2),
        mask=mask.repeat_interleave(times, dim=0),
        is_image=images_of.repeat_interleave(times, dim=0),
        begins=[width - int(row.sum()) for row in kept for _ in range(times)],
        sees=[0] * len(prompt.input_ids),
        deepstack=deepstack,
        others=prompt.main.others,
    )
