"""How the logits of two branches become one row."""

import math

import torch

from iava.methods.checks import check_contrast


def contrast(logits: torch.Tensor, negative: torch.Tensor, *, alpha: float, beta: float) -> torch.Tensor:
    """Contrastive decoding with the adaptive plausibility constraint (arXiv 2503.18556, as in VCD, 2311.16922).

    (1 + alpha) * logits - alpha * negative, where softmax(logits) is at least beta times its maximum.

    Args:
        logits: (B, V), with the whole image.
        negative: (B, V), with the negative image.
        alpha: strength, at least 0; 0 ignores `negative`.
        beta: 0 to 1; 0 rules out no token, 1 leaves the most probable alone.

    Returns:
        (B, V) float32, -inf at implausible tokens. alpha=0, beta=0 returns `logits` exactly.

    Raises:
        IavaError: if alpha or beta is out of range.

    Examples:
        >>> main, contrast_logits = torch.tensor([[2.0, 1.5, -3.0]]), torch.tensor([[2.5, 0.5, 0.0]])
        >>> iava.contrast(main, contrast_logits, alpha=1.0, beta=0.1)
        tensor([[1.5000, 2.5000,   -inf]])
    """
    check_contrast(alpha, beta)
    return mix(logits, negative, alpha).masked_fill(~plausible(logits, beta), -math.inf)


def mix(logits: torch.Tensor, negative: torch.Tensor, alpha: float) -> torch.Tensor:
    """(1 + alpha) * logits - alpha * negative in float32; see `contrast`."""
    # 0 * -inf would be NaN.
    return logits.float() if alpha == 0 else (1 + alpha) * logits.float() - alpha * negative.float()


def plausible(logits: torch.Tensor, beta: float) -> torch.Tensor:
    """(B, V) bool, True where softmax(logits) is at least beta times its largest value."""
    probabilities = logits.float().softmax(dim=-1)
    return probabilities >= beta * probabilities.amax(dim=-1, keepdim=True)
