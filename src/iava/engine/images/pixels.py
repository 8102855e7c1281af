"""Another image in place of the prompt's: its pixels changed, and read by the vision tower again."""

import inspect
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from iava.engine import hf
from iava.engine.boundary import capture
from iava.engine.branch import Branch
from iava.engine.caches.prefix_cache import behind_one_prefix
from iava.engine.prompt import Prompt
from iava.errors import IavaError

_NOT_THE_IMAGE = {"input_ids", "inputs_embeds", "attention_mask", "position_ids", "labels", hf.CACHE}


def pixel_values(prompt: Prompt) -> torch.Tensor:
    """The pixels that `generate` was given, as the processor made them.

    Raises:
        IavaError: if it was given none.
    """
    pixels = prompt.generate_kwargs.get("pixel_values")
    if pixels is None:
        raise IavaError("generate was given no pixel_values, so the image cannot be changed: leave out features")
    return pixels


def each_image(prompt: Prompt) -> list[torch.Tensor]:
    """The pixels of each image one by one, in order; those of each tile, where an image is read in tiles."""
    pixels = pixel_values(prompt)
    if pixels.dim() == 2:
        # Patches one after another: Qwen-VL, GLM-V.
        return list(pixels.split(prompt.generate_kwargs["image_grid_thw"].prod(dim=-1).tolist()))
    return list(pixels.flatten(0, -4))


def rows_of_images(prompt: Prompt) -> list[int]:
    """For each of `each_image` the prompt that shows it, as a number among those that `generate` was given.

    Raises:
        IavaError: if images are read in padded tiles, and a prompt shows several.
    """
    pixels = pixel_values(prompt)
    tokens = prompt.is_image[first_of_each(prompt)].sum(dim=1)
    if pixels.dim() > 4:
        if len(pixels) != len(tokens):
            raise IavaError("images of several prompts cannot be told apart: show one image in each prompt")
        return [row for row in range(len(tokens)) for _ in range(math.prod(pixels.shape[1:-3]))]
    # An image, or a tile of it, has as large a share of the tokens as of the pixels.
    sizes = torch.tensor([image.numel() for image in each_image(prompt)], dtype=torch.float64)
    middles = (sizes.cumsum(dim=0) - sizes / 2) / sizes.sum()
    ends = tokens.cpu().double().cumsum(dim=0) / tokens.sum().item()
    return torch.searchsorted(ends, middles).tolist()


def first_of_each(prompt: Prompt) -> slice:
    """The rows that were given to `generate`: beams and several answers repeat each of them."""
    return slice(None, None, len(prompt.input_ids) // len(prompt.generate_kwargs["input_ids"]))


def with_pixels(prompt: Prompt, pixels: torch.Tensor) -> Branch:
    """What the decoder is fed if the prompts' images have other pixels.

    Where all prompts are about one image, and its pixels are changed alike, the changed image is read once.

    Args:
        prompt: what the decoder read.
        pixels: of the same shape as `pixel_values(prompt)`.
    """
    rows = first_of_each(prompt)
    count = len(prompt.generate_kwargs["input_ids"])
    alike = bool(prompt.shared) and all(one is prompt.shared[0] for one in prompt.shared)
    if alike and len(pixels) == count and bool((pixels == pixels[:1]).all()):
        image = _captured(prompt, slice(0, 1), pixels[:1])["inputs_embeds"][0, prompt.is_image[0]]
        embeddings = prompt.main.embeddings.clone()
        embeddings[prompt.is_image] = image.repeat(len(embeddings), 1)
        return behind_one_prefix(replace(prompt, main=replace(prompt.main, embeddings=embeddings)))
    times = rows.step
    captured = _captured(prompt, rows, pixels)
    branch = replace(prompt.main, embeddings=captured["inputs_embeds"].repeat_interleave(times, dim=0))
    if prompt.main.deepstack is None:
        return branch
    counts = prompt.is_image[rows].sum(dim=1).tolist()
    return replace(
        branch,
        deepstack=[
            torch.cat([part for part in layer.split(counts) for _ in range(times)])
            for layer in captured["deepstack_visual_embeds"]
        ],
    )


def _captured(prompt: Prompt, rows: slice, pixels: torch.Tensor) -> dict[str, Any]:
    """What the decoder is fed for some rows of the prompts with other pixels."""
    forward = inspect.signature(prompt.vlm.forward).parameters
    given = len(prompt.generate_kwargs["input_ids"])
    asked = prompt.input_ids[rows]
    rest = {
        name: value[: len(asked)] if len(value) == given else value
        for name, value in prompt.generate_kwargs.items()
        if name in forward and name not in _NOT_THE_IMAGE and isinstance(value, torch.Tensor)
    }
    with capture(prompt.vlm, stop=True) as captured:
        prompt.vlm(
            input_ids=asked,
            attention_mask=prompt.main.mask[rows],
            position_ids=prompt.main.positions[..., rows, :],
            **{**rest, "pixel_values": pixels},
        )
    return captured


def changed(prompt: Prompt, change: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """The prompts' pixels after a change of each image, or of each tile.

    Args:
        prompt: what the decoder read.
        change: (N, C, H, W) -> the same shape.
    """
    pixels = pixel_values(prompt)
    if pixels.dim() > 2:
        # A tile of zeros pads a batch; Idefics tells it by that.
        tiles = [change(tile[None])[0] if tile.any() else tile for tile in pixels.flatten(0, -4)]
        return torch.stack(tiles).view_as(pixels)
    return torch.cat([into_patches(prompt, change(one)) for one in from_patches(prompt)])


def from_patches(prompt: Prompt) -> list[torch.Tensor]:
    """The images that are read as patches one after another (Qwen-VL, GLM-V), put together: (F, C, H, W) each."""
    side, merged, frames = patch_shape(prompt)
    images = []
    for patches, grid in zip(each_image(prompt), prompt.generate_kwargs["image_grid_thw"].tolist(), strict=True):
        steps, rows, columns = grid[0], grid[1] // merged, grid[2] // merged
        # The patches of one token stand together.
        parts = patches.view(steps, rows, columns, merged, merged, -1, frames, side, side)
        images.append(parts.permute(0, 6, 5, 1, 3, 7, 2, 4, 8).flatten(0, 1).flatten(2, 4).flatten(3, 5))
    return images


def into_patches(prompt: Prompt, image: torch.Tensor) -> torch.Tensor:
    """The patches, one a row, of an image (F, C, H, W), as `from_patches` gives it."""
    side, merged, frames = patch_shape(prompt)
    count, channels, height, width = image.shape
    rows, columns = height // (merged * side), width // (merged * side)
    whole = image.reshape(count // frames, frames, channels, rows, merged, side, columns, merged, side)
    return whole.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).flatten(5, 8).flatten(0, 4)


def patch_shape(prompt: Prompt) -> tuple[int, int, int]:
    """The side of a patch, patches a token along a side, and frames a patch."""
    vision = prompt.vlm.config.vision_config
    return vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size


def patches_of(prompt: Prompt, keep: torch.Tensor) -> torch.Tensor:
    """The pixels that some image tokens show: bool, of a shape that broadcasts to `pixel_values(prompt)`.

    Args:
        prompt: what the decoder read.
        keep: (T,) bool for all image tokens of the batch, in order.

    Raises:
        IavaError: if a token is no patch of a square grid.
    """
    pixels = pixel_values(prompt)
    tokens = len(keep)
    if pixels.dim() == 2 and len(pixels) % tokens == 0:
        # Patches one after another, several a token: Qwen-VL, GLM-V.
        return keep.repeat_interleave(len(pixels) // tokens)[:, None]
    side = math.isqrt(tokens // len(pixels)) if pixels.dim() == 4 else 0
    height, width = pixels.shape[-2:]
    if side == 0 or side * side * len(pixels) != tokens or height % side or width % side:
        raise IavaError(
            f"this negative image needs image tokens that are patches of a square grid, but "
            f"{prompt.vlm.config.model_type} makes {tokens} tokens of pixels of shape {tuple(pixels.shape)}: use "
            "'zeros', 'drop' or 'hide'"
        )
    kept = keep.view(len(pixels), 1, side, side)
    return kept.repeat_interleave(height // side, dim=2).repeat_interleave(width // side, dim=3)
