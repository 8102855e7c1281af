"""Parameters that are out of range are refused with one line: which, its value, and what would be right."""

import math
from collections.abc import Collection, Sequence

from iava.errors import IavaError

FLOAT32_MAX = 3.4e38
"""Just below the largest float32."""
MAX_SEED = 2**63 - 1
"""Largest seed of torch's generators."""


def check_number(name: str, value: float, *, low: float, high: float = math.inf, above: bool = False) -> None:
    """Refuses what is not a number from `low` (or above it) to `high` that float32 can hold."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and abs(value) <= FLOAT32_MAX and (value > low if above else value >= low) and value <= high:
        return
    wanted = f"above {low}" if above else f"at least {low}"
    if low == -math.inf or (is_number and FLOAT32_MAX < value < math.inf):
        wanted = "finite in float32"
    if high < math.inf:
        wanted = f"{wanted} and at most {high}"
    raise IavaError(f"{name} is {value!r}: it must be a number, {wanted}")


def check_whole(name: str, value: int, *, low: int, high: float = math.inf) -> None:
    """Refuses what is not a whole number from `low` to `high`."""
    if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
        return
    wanted = f"at least {low}" if high == math.inf else f"at least {low} and at most {high}"
    raise IavaError(f"{name} is {value!r}: it must be a whole number, {wanted}")


def check_contrast(alpha: float, beta: float) -> None:
    """Refuses a strength below 0, and a plausibility that is not from 0 to 1; see `mixing.contrast`."""
    check_number("alpha", alpha, low=0)
    check_number("beta", beta, low=0, high=1)


def check_text(name: str, text: str, example: str) -> None:
    """Refuses what says nothing."""
    if not isinstance(text, str) or not text.strip():
        raise IavaError(f"{name} is {text!r}: it must be {example}")


def check_question(question: str) -> None:
    """Refuses what asks nothing."""
    if not isinstance(question, str) or not question.strip():
        raise IavaError(f"the question is {question!r}: ask something, such as 'Is there a dog in the image?'")


def check_choice(name: str, value: str, choices: Collection[str]) -> None:
    """Refuses what is none of the choices."""
    if value not in choices:
        raise IavaError(f"{name} is {value!r}: it must be one of {', '.join(choices)}")


def check_layers(layers: str | Sequence[int]) -> str | list[int]:
    """Refuses what is neither "all" nor a sequence of layer indices, and returns it ready for JSON."""
    if layers == "all":
        return "all"
    whole = not isinstance(layers, str) and all(
        isinstance(layer, int) and not isinstance(layer, bool) for layer in layers
    )
    if not whole or len(layers) == 0:
        raise IavaError(f'layers is {layers!r}: it must be "all" or layer indices such as [0, 1, -1]')
    return [int(layer) for layer in layers]


def check_top_i(top_i: int | float | str) -> None:
    """Refuses what is neither a count of at least 1, nor a share in (0, 1], nor "auto"."""
    if top_i == "auto":
        return
    if isinstance(top_i, str):
        raise IavaError(f'top_i is {top_i!r}: it must be a count such as 40, a share such as 0.2, or "auto"')
    if isinstance(top_i, float):
        check_number("top_i", top_i, low=0, high=1, above=True)
    else:
        check_number("top_i", top_i, low=1)


def check_lam(lam: float | str) -> None:
    """Refuses what is neither a finite number nor "auto"."""
    if lam == "auto":
        return
    if isinstance(lam, str):
        raise IavaError(f'lam is {lam!r}: it must be a finite number such as 0.5, or "auto"')
    check_number("lam", lam, low=-math.inf)
