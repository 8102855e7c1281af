"""IAVA+: subtract only what the irrelevant part of the image adds to the text, not the text's own leaning.

Ours, not published: what came of asking what IAVA (arXiv 2503.18556) loses. docs/iava-plus.md tells how it was found
and what it was measured against.
"""

from typing import Any

import torch
from transformers import ProcessorMixin

from iava.engine.boundary import Prompt, pack
from iava.methods.iava import IAVA
from iava.methods.trace import Trace


class IAVAPlus(IAVA):
    """IAVA with a text-centred contrast.

    With l the logits of the whole image, l(V*) those of IAVA's irrelevant tokens alone and l(text) those of no image at
    all: l + alpha * (l(text) - l(V*)). IAVA subtracts all that V* says, and so also what the text alone would say:
    where a model that sees nothing says "no", that pushes every answer towards "yes". Here only what V* adds to the
    text is subtracted. Where no token is selected nothing is.

    Takes what IAVA takes, with other defaults for `top_i` and `alpha` (chosen on the shipped model's `tune` split); the
    branch without an image is masked as `negative` says.

    Example:
        >>> model.generate(**inputs, custom_generate=IAVAPlus(processor), max_new_tokens=64)
    """

    name, title = "iava+", "IAVA+"
    paper = None
    cost = "3 in one batch, and the general instruction once"

    def __init__(
        self,
        processor: ProcessorMixin | None = None,
        *,
        top_i: int | float | str = 0.5,
        alpha: float = 0.125,
        **settings: Any,
    ) -> None:
        super().__init__(processor, top_i=top_i, alpha=alpha, **settings)

    def others(self, prompt: Prompt, trace: Trace | None) -> list[dict[str, Any]]:
        _, valid = pack(prompt.is_image)
        return [self.second(prompt, trace), self._negative(prompt, torch.zeros_like(valid))]

    def combine(self, logits: torch.Tensor, negative: torch.Tensor | None, step: int) -> torch.Tensor:
        assert negative is not None
        assert self.alpha is not None
        return centred(logits, negative, self.alpha)


def centred(logits: torch.Tensor, negative: torch.Tensor, alpha: float) -> torch.Tensor:
    """logits + alpha * (text - V*): (B, V), and (2 B, V) those of V* behind which are those of the text -> (B, V)."""
    irrelevant, text = negative.chunk(2)
    # 0 * -inf would be NaN.
    return logits if alpha == 0 else logits + alpha * (text - irrelevant)
