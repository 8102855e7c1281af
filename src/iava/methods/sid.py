"""SID: contrast with a branch that, past its first layers, sees only the image tokens that the text looks at least.

Self-Introspective Decoding: Alleviating Hallucinations for Large Vision-Language Models (arXiv 2408.02032, ICLR 2025).
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Self

import torch
from transformers import PreTrainedModel, ProcessorMixin

from iava.engine.attention import Call, steered
from iava.engine.boundary import Prompt, pack
from iava.engine.probe import over_images
from iava.errors import IavaError
from iava.methods.base import Method
from iava.methods.checks import check_contrast, check_number, check_whole
from iava.methods.trace import Trace

PUBLISHED_EARLY = {"instructblip": 5}
"""The paper's layer i by Hugging Face model type; other types take 3."""


class SID(Method):
    """Self-introspective decoding (arXiv 2408.02032).

    Context and text-aware token selection: at each step the last token's attention in layer i, mean over heads
    (Equation 5), ranks the image tokens. In the layers after it the second branch sees only the least attended ones;
    up to it, all. The result is (1 + alpha) * logits - alpha * second logits, over the plausible tokens.

    Checked: selection, masks and combination against the authors' code, and the decoding against eager attention masked
    by hand, two branches without cache. Layer and share are the paper's as others quote it; the paper itself could
    not be read. alpha is what the authors' code runs with.

    Args:
        keep: how many tokens the second branch keeps: an int is a count, a float in (0, 1] a share of the image's
            tokens (rounded, at least 1).
        early: the paper's layer i, counted from 1: so many layers see the whole image, and the last of them ranks.
            None takes the published value: 5 for InstructBLIP, 3 for others, or all layers but one if there are
            fewer.
        alpha: strength of the contrast, at least 0.
        beta: plausibility, 0 to 1; see `contrast`.
        model: InstructBLIP and BLIP-2 hand decoding to their language model, which does not know the image: for them
            this is the vision-language model itself. Others need none.

    Raises:
        IavaError: if a parameter is out of range.

    Example:
        >>> model.generate(**inputs, custom_generate=SID(keep=0.1), max_new_tokens=64)
    """

    name, paper = "sid", "2408.02032"

    def __init__(
        self,
        *,
        keep: int | float = 0.1,
        early: int | None = None,
        alpha: float = 0.5,
        beta: float = 0.1,
        model: PreTrainedModel | None = None,
    ) -> None:
        if isinstance(keep, float):
            check_number("keep", keep, low=0, high=1, above=True)
        else:
            check_whole("keep", keep, low=1)
        if early is not None:
            check_whole("early", early, low=1)
        check_contrast(alpha, beta)
        self.keep = keep
        self.early = early
        self.alpha = alpha
        self.beta = beta
        self.model = model

    def settings(self) -> dict[str, Any]:
        return {"keep": self.keep, "early": self.early, "alpha": self.alpha, "beta": self.beta}

    def bind(self, model: PreTrainedModel, processor: ProcessorMixin) -> Self:
        bound = super().bind(model, processor)
        bound.early = self._early_for(model)
        return bound

    def second(self, prompt: Prompt, trace: Trace | None) -> dict[str, Any]:
        if trace is not None:
            attention = over_images(prompt.rows, prompt.is_image)[:, self._early_for(prompt.outer) - 1].mean(dim=1)
            _, valid = pack(prompt.is_image)
            trace.reading = {"selected": least_attended(attention, valid, self.keep), "valid": valid}
        return dict(prompt.inputs)

    def steer(
        self, model: PreTrainedModel, is_image: torch.Tensor, second: torch.Tensor
    ) -> AbstractContextManager[None]:
        if not second.any():
            return nullcontext()
        early = self._early_for(model if self.model is None else self.model)
        image = is_image & second[:, None]
        hidden = torch.zeros_like(image)

        def attend(call: Call) -> torch.Tensor:
            nonlocal hidden
            if call.layer >= early:
                return call.run_without(hidden)
            if call.layer == early - 1:
                attention = call.unfit(call.weights(call.scores).mean(dim=1), image.shape[1]).to(image.device)
                hidden = image & ~least_attended(attention, image, self.keep)
            return call.run()

        return steered(model, attend)

    def _early_for(self, model: PreTrainedModel) -> int:
        layers = model.config.get_text_config().num_hidden_layers
        if self.early is None:
            return min(PUBLISHED_EARLY.get(model.config.model_type, 3), layers - 1)
        if self.early >= layers:
            raise IavaError(f"early is {self.early}, but the model has {layers} layers: use 1 to {layers - 1}")
        return self.early


def least_attended(attention: torch.Tensor, valid: torch.Tensor, keep: int | float) -> torch.Tensor:
    """The image tokens with the least attention: (B, N) float, (B, N) bool which are image tokens -> (B, N) bool.

    Of equally attended tokens the earlier one is kept. `keep` is as in `SID`.
    """
    rank = attention.masked_fill(~valid, torch.inf).argsort(dim=1, stable=True).argsort(dim=1)
    count = valid.sum(dim=1, keepdim=True)
    most = (keep * count).round().clamp(min=1) if isinstance(keep, float) else keep
    return valid & (rank < most)
