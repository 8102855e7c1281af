"""IAVA+: subtract only what the irrelevant part of the image adds to the text, not the text's own leaning.

Ours, not published: it came of asking what IAVA (arXiv 2503.18556) loses. docs/iava-plus.md tells how it was found
and what it was measured against.
"""

from dataclasses import dataclass

import torch

from iava.engine.branch import Branch
from iava.engine.prompt import Prompt
from iava.methods.iava import IAVA


@dataclass(eq=False, kw_only=True)
class IAVAPlus(IAVA):
    """IAVA with a text-centred contrast.

    With l the logits of the whole image, l(V*) those of IAVA's irrelevant tokens alone and l(text) those of no image at
    all: l + alpha * (l(text) - l(V*)). IAVA subtracts all that V* says, and so also what the text alone would say:
    where a model that sees nothing says "no", that pushes every answer towards "yes". Here only what V* adds to the
    text is subtracted. Where no token is selected, nothing is.

    Takes what IAVA takes, with other defaults for `top_i` and `alpha` (chosen on the shipped model's `tune` split). The
    branch without an image is masked as `negative` says.

    Examples:
        >>> out = model.generate(**inputs, custom_generate=iava.IAVAPlus(processor), max_new_tokens=8)
        >>> processor.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        ' Yes.'
    """

    top_i: int | float | str = 0.5
    alpha: float = 0.125

    name, title = "iava+", "IAVA+"
    paper = None
    cost = "3 in one batch, and the general instruction once"

    @property
    def own_images(self) -> int:
        return 2 * super().own_images

    def branches(self, prompt: Prompt) -> list[Branch]:
        _, valid = prompt.images
        return [*super().branches(prompt), self._negative(prompt, torch.zeros_like(valid))]

    def combine(self, main: torch.Tensor, contrast_logits: list[torch.Tensor], step: int) -> torch.Tensor:
        irrelevant, text = contrast_logits
        return centred(main, irrelevant, text, self.alpha)


def centred(main: torch.Tensor, irrelevant: torch.Tensor, text: torch.Tensor, alpha: float) -> torch.Tensor:
    """main + alpha * (text - irrelevant): (B, V) each -> (B, V)."""
    # 0 * -inf would be NaN.
    return main if alpha == 0 else main + alpha * (text - irrelevant)
