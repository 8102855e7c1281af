"""Simple repairs of degraded images: a blurred image is sharpened, a noisy one smoothed, a faint one stretched.

What an image needs is estimated from its pixels. The limits were chosen on the pocket scenes of `tune`.
"""

import torch

from iava.engine.images.degrade import blurred

BLURRED = 0.43
"""An image is blurred if its fineness is below this."""
NOISY = 1.65
"""An image is noisy if its fineness is above this."""
SHARPENING = 4.0
_FINE, _COARSE = 0.01, 0.03  # share of the shorter side
_SMOOTHING = 0.0075  # share of the shorter side
_EXTREMES = 0.001  # share of the values at each end of the range


def fineness(images: torch.Tensor) -> torch.Tensor:
    """How much detail of the smallest size an image shows, relative to detail of the next size.

    A blur of 1 % of the shorter side removes the former, and one of 3 % the latter too.

    Args:
        images: (N, C, H, W).

    Returns:
        (N,), at least 0. It is about 0.3 for blurred scenes, 0.6 to 1.4 for sharp ones, and over 1.9 for noisy ones.
    """
    fine, coarse = blurred(images, _FINE), blurred(images, _COARSE)
    smallest, next_size = ((a - b).abs().mean(dim=(1, 2, 3)) for a, b in ((images, fine), (fine, coarse)))
    return smallest / next_size.clamp(min=1e-6)


def restored(images: torch.Tensor) -> torch.Tensor:
    """Images after the repairs that they need.

    Args:
        images: (N, C, H, W), values from 0 to 1.

    Returns:
        The same shape and range. A blurred image is sharpened by unsharp masking: x + 4 (x - blurred x). A noisy one is
        smoothed by a Gaussian. Each one's values are then stretched to the whole range.
    """
    detail = fineness(images)[:, None, None, None]
    sharpened = images + SHARPENING * (images - blurred(images, _FINE))
    smoothed = blurred(images, _SMOOTHING)
    repaired = torch.where(detail < BLURRED, sharpened, torch.where(detail > NOISY, smoothed, images)).clamp(0, 1)
    ends = torch.tensor([_EXTREMES, 1 - _EXTREMES], device=images.device)
    low, high = repaired.flatten(1).quantile(ends, dim=1)[..., None, None, None]
    return ((repaired - low) / (high - low).clamp(min=1e-6)).clamp(0, 1)
