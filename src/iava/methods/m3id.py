"""M3ID: contrast with the text alone, the more the longer the answer, and only where the model is unsure.

Multi-Modal Hallucination Control by Visual Information Grounding (arXiv 2403.14003, CVPR 2024). The authors published
no code: the formula, its gate and its defaults are as several independent readers report them from the paper.
"""

import math
from typing import Any

import torch
from transformers import PreTrainedModel

from iava.engine.boundary import Prompt
from iava.engine.negatives import text_only
from iava.methods.base import Method
from iava.methods.checks import check_number, check_whole
from iava.methods.trace import Trace

LARGEST = 50.0
"""Where decay * t stops growing: e**50 drowns everything but the contrast."""


class M3ID(Method):
    """Multi-modal mutual-information decoding (arXiv 2403.14003, section 4.1, equation 4).

    The second branch reads the prompt without the image. With p the probabilities with the image, p_text without it,
    the t-th new token (t = 1, 2, ...) is chosen by

        log p + 1[max p < threshold] (1 - g) / g (log p - log p_text),    g = exp(-decay (t + offset))

    Args:
        decay: how fast the image is forgotten, 0 to 1; 0 is plain decoding.
        threshold: 0 to 1; where the best token has this probability or more, nothing is changed. A model that answers
            yes or no gives one of them more than the default at once: for such answers 1 lets the contrast in.
        offset: how many tokens were forgotten before the answer, at least 0: the paper takes 0 for captions and 10,
            about the length of the question, for POPE.
        beta: plausibility, 0 to 1; the paper has no such constraint, so 0. See `contrast`.
        model: InstructBLIP and BLIP-2 hand decoding to their language model: for them this is the vision-language
            model itself. Others need none.

    Raises:
        IavaError: if a parameter is out of range.

    Example:
        >>> model.generate(**inputs, custom_generate=M3ID(), max_new_tokens=64)
    """

    name, paper = "m3id", "2403.14003"

    def __init__(
        self,
        *,
        decay: float = 0.02,
        threshold: float = 0.3,
        offset: int = 0,
        beta: float = 0.0,
        model: PreTrainedModel | None = None,
    ) -> None:
        check_number("decay", decay, low=0, high=1)
        check_number("threshold", threshold, low=0, high=1)
        check_whole("offset", offset, low=0)
        check_number("beta", beta, low=0, high=1)
        self.decay = decay
        self.threshold = threshold
        self.offset = offset
        self.beta = beta
        self.model = model

    def settings(self) -> dict[str, Any]:
        return {"decay": self.decay, "threshold": self.threshold, "offset": self.offset, "beta": self.beta}

    def second(self, prompt: Prompt, trace: Trace | None) -> dict[str, Any]:
        return text_only(prompt)

    def combine(self, logits: torch.Tensor, negative: torch.Tensor | None, step: int) -> torch.Tensor:
        assert negative is not None
        seen, unseen = logits.log_softmax(dim=-1), negative.log_softmax(dim=-1)
        unsure = seen.amax(dim=-1, keepdim=True).exp() < self.threshold
        # (1 - g) / g is exp(decay (t + offset)) - 1.
        weight = math.expm1(min(self.decay * (step + 1 + self.offset), LARGEST))
        return torch.where(unsure, seen + weight * (seen - unseen), seen)
