"""M3ID: contrast with the text alone, the more the longer the answer, and only where the model is unsure.

Multi-Modal Hallucination Control by Visual Information Grounding (arXiv 2403.14003, CVPR 2024). The authors published
no code: the formula, its gate and its defaults are as several independent readers report them from the paper.
"""

import math
from dataclasses import dataclass

import torch

from iava.engine.branch import Branch
from iava.engine.negatives import text_only
from iava.engine.prompt import Prompt
from iava.methods.base import Method
from iava.methods.checks import check_number, check_whole

LARGEST = 50.0
"""Where decay * t stops growing: at e**50 nothing but the contrast counts."""


@dataclass(eq=False, kw_only=True)
class M3ID(Method):
    """Multi-modal mutual-information decoding (arXiv 2403.14003, section 4.1, equation 4).

    The contrast branch reads the prompt without the image. With p the probabilities with the image, p_text without it,
    the t-th new token (t = 1, 2, ...) is chosen by

        log p + 1[max p < threshold] (1 - g) / g (log p - log p_text),    g = exp(-decay (t + offset))

    Args:
        decay: how fast the image is forgotten, 0 to 1; 0 is plain decoding.
        threshold: 0 to 1; where the best token has this probability or more, nothing is changed. A model that answers
            yes or no gives one of them more than the default at once: for such answers 1 lets the contrast in.
        offset: how many tokens were forgotten before the answer, at least -1: the paper takes 0 for captions and 10,
            about the length of the question, for POPE. With -1 the first token is plain, as in the code of ONLY.
        beta: plausibility, 0 to 1; the paper has no such constraint, so 0. See `contrast`.

    Raises:
        IavaError: if a setting is out of range.

    Examples:
        >>> out = model.generate(**inputs, custom_generate=iava.M3ID(threshold=1), max_new_tokens=8)
        >>> processor.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        ' Yes.'
    """

    decay: float = 0.02
    threshold: float = 0.3
    offset: int = 0
    beta: float = 0.0

    name, paper = "m3id", "2403.14003"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("decay", self.decay, low=0, high=1)
        check_number("threshold", self.threshold, low=0, high=1)
        check_whole("offset", self.offset, low=-1)
        check_number("beta", self.beta, low=0, high=1)

    def branches(self, prompt: Prompt) -> list[Branch]:
        return [text_only(prompt)]

    def combine(self, main: torch.Tensor, contrast_logits: list[torch.Tensor], step: int) -> torch.Tensor:
        seen, unseen = main.log_softmax(dim=-1), contrast_logits[0].log_softmax(dim=-1)
        unsure = seen.amax(dim=-1, keepdim=True).exp() < self.threshold
        # (1 - g) / g is exp(decay (t + offset)) - 1.
        weight = math.expm1(min(self.decay * (step + 1 + self.offset), LARGEST))
        return torch.where(unsure, seen + weight * (seen - unseen), seen)
