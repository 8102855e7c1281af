"""Images that are seen worse: blurred, at a lower resolution, or in fog."""

import math
from collections.abc import Callable

import torch
from torch.nn.functional import conv2d, interpolate, pad

_TRUNCATE = 4.0  # standard deviations


def blurred(images: torch.Tensor, strength: float) -> torch.Tensor:
    """A Gaussian blur. The border is repeated outwards.

    Args:
        images: (N, C, H, W).
        strength: standard deviation, as a share of the shorter side.
    """
    sigma = strength * min(images.shape[-2:])
    radius = math.ceil(_TRUNCATE * sigma)
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float32, device=images.device)
    kernel = (-0.5 * (offsets / sigma).square()).exp()
    kernel = kernel / kernel.sum()
    planes = images.float().flatten(0, 1)[:, None]
    planes = conv2d(pad(planes, (radius, radius, 0, 0), mode="replicate"), kernel.view(1, 1, 1, -1))
    planes = conv2d(pad(planes, (0, 0, radius, radius), mode="replicate"), kernel.view(1, 1, -1, 1))
    return planes.view_as(images).to(images)


def reduced(images: torch.Tensor, strength: float) -> torch.Tensor:
    """A lower resolution: averages over blocks, enlarged bilinearly.

    Args:
        images: (N, C, H, W).
        strength: side of a block, as a share of the shorter side.
    """
    height, width = images.shape[-2:]
    block = max(1.0, strength * min(height, width))
    small = interpolate(images.float(), size=(round(height / block), round(width / block)), mode="area")
    return interpolate(small, size=(height, width), mode="bilinear", align_corners=False).to(images)


def fogged(images: torch.Tensor, strength: float) -> torch.Tensor:
    """A blend with the brightest value of each channel.

    Args:
        images: (N, C, H, W).
        strength: density of the fog.
    """
    return images + strength * (images.amax(dim=(-2, -1), keepdim=True) - images)


DEGRADATIONS: dict[str, Callable[[torch.Tensor, float], torch.Tensor]] = {
    "blur": blurred,
    "lowres": reduced,
    "fog": fogged,
}
"""Kind -> its function. Each takes a strength in (0, 1]."""
