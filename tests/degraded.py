"""Blurred pixels the slow and obvious way: SciPy plane by plane, patches put together by loops.

Nothing here uses the package that it checks.
"""

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from tests import families


def blur_by_scipy(images: torch.Tensor, strength: float) -> torch.Tensor:
    """(N, C, H, W), plane by plane."""
    sigma = strength * min(images.shape[-2:])
    planes = [
        gaussian_filter(plane, sigma, mode="nearest", radius=60) for plane in images.double().flatten(0, 1).numpy()
    ]
    return torch.from_numpy(np.stack(planes)).view_as(images).to(images)


def blurred_pixels(name: str, inputs: dict[str, torch.Tensor], strength: float) -> torch.Tensor:
    """The pixels of one prompt with each image or tile blurred by SciPy; Qwen's patches are put together by loops."""
    pixels = inputs["pixel_values"]
    if pixels.dim() > 2:
        tiles = [blur_by_scipy(tile[None], strength)[0] if tile.any() else tile for tile in pixels.flatten(0, -4)]
        return torch.stack(tiles).view_as(pixels)
    vision = families.build(name)[0].config.vision_config
    side, merged, frames = vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size
    (steps, rows, columns) = inputs["image_grid_thw"][0].tolist()
    assert steps == 1
    places = [
        (top + i, left + j)
        for top in range(0, rows, merged)
        for left in range(0, columns, merged)
        for i in range(merged)
        for j in range(merged)
    ]
    image = torch.zeros(frames, 3, rows * side, columns * side)
    for patch, (row, column) in zip(pixels, places, strict=True):
        shown = patch.view(3, frames, side, side).transpose(0, 1)
        image[:, :, row * side : (row + 1) * side, column * side : (column + 1) * side] = shown
    image = blur_by_scipy(image, strength)
    patches = [
        image[:, :, row * side : (row + 1) * side, column * side : (column + 1) * side].transpose(0, 1).flatten()
        for row, column in places
    ]
    return torch.stack(patches)
