"""SID: contrast with a branch that, past its first layers, sees only the least attended image tokens.

Self-Introspective Decoding: Alleviating Hallucinations for Large Vision-Language Models (arXiv 2408.02032, ICLR 2025).
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from transformers import PreTrainedModel

from iava.engine.attention import AttentionCall
from iava.engine.branch import Branch
from iava.engine.probe import over_images
from iava.engine.prompt import Prompt
from iava.engine.tap import attention_hook
from iava.errors import IavaError
from iava.methods.base import Method
from iava.methods.checks import check_contrast, check_number, check_whole


@dataclass(eq=False, kw_only=True)
class SID(Method):
    """Self-introspective decoding (arXiv 2408.02032).

    Context and text-aware token selection: at each step the last token's attention in layer i, mean over heads
    (Equation 5), ranks the image tokens. In the layers after it the contrast branch sees only the least attended ones;
    up to it, all. The result is (1 + alpha) * logits - alpha * contrast logits, over the plausible tokens.

    Checked: selection, masks and combination against the authors' code, and the decoding against eager attention masked
    by hand, two branches without cache. Layer and share are the paper's as others quote it; the paper itself could
    not be read. alpha is what the authors' code runs with.

    Args:
        keep: how many tokens the contrast branch keeps: an int is a count, a float in (0, 1] a share of the image's
            tokens (rounded, at least 1).
        early: the paper's layer i, at least 1: so many layers see the whole image, and the last of them ranks. None
            takes the published value: 5 for InstructBLIP, 3 for others, or all layers but one if there are fewer.
        alpha: strength of the contrast, at least 0.
        beta: plausibility, 0 to 1; see `contrast`.

    Raises:
        IavaError: if a setting is out of range.

    Examples:
        >>> out = model.generate(**inputs, custom_generate=iava.SID(keep=0.1), max_new_tokens=8)
        >>> processor.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        ' Yes.'
    """

    keep: int | float = 0.1
    early: int | None = None
    alpha: float = 0.5
    beta: float = 0.1

    name, paper = "sid", "2408.02032"
    published: ClassVar[dict[str, dict[str, Any]]] = {"early": {"instructblip": 5, "other": 3}}

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.keep, float):
            check_number("keep", self.keep, low=0, high=1, above=True)
        else:
            check_whole("keep", self.keep, low=1)
        if self.early is not None:
            check_whole("early", self.early, low=1)
        check_contrast(self.alpha, self.beta)

    def for_model(self, model: PreTrainedModel) -> Self:
        filled, layers = super().for_model(model), model.config.get_text_config().num_hidden_layers
        assert filled.early is not None
        if self.early is None:
            filled.early = min(filled.early, layers - 1)
        elif self.early >= layers:
            raise IavaError(f"early is {self.early}, but the model has {layers} layers: use 1 to {layers - 1}")
        return filled

    @property
    def own_images(self) -> int:
        return 1

    def branches(self, prompt: Prompt) -> list[Branch]:
        assert self.early is not None
        attention = over_images(prompt.rows, *prompt.images)[:, self.early - 1].mean(dim=1)
        _, valid = prompt.images
        prompt.reading = {"selected": least_attended(attention, valid, self.keep), "valid": valid}
        return [prompt.main]

    def attention_hook(
        self, model: PreTrainedModel, is_image: torch.Tensor, main_rows: int, step: int
    ) -> AbstractContextManager[None]:
        if main_rows == len(is_image):
            return nullcontext()
        assert self.early is not None
        early, image = self.early, is_image.clone()
        image[:main_rows] = False
        hidden = torch.zeros_like(image)
        # By the layer's own mask and number of keys: most layers have the same.
        masks: dict[tuple[int, int], Any] = {}

        def attend(call: AttentionCall) -> torch.Tensor:
            nonlocal hidden
            if call.layer >= early:
                key = id(call.mask), call.key.shape[2]
                if key not in masks:
                    masks[key] = call.hide(hidden).mask
                return replace(call, mask=masks[key]).run()
            if call.layer == early - 1:
                attention = call.at_columns(call.weights(call.scores).mean(dim=1), image.shape[1]).to(image.device)
                hidden = image & ~least_attended(attention, image, self.keep)
                masks.clear()
            return call.run()

        return attention_hook(model, attend)


def least_attended(attention: torch.Tensor, valid: torch.Tensor, keep: int | float) -> torch.Tensor:
    """The image tokens with the least attention: (B, N) float, (B, N) bool which are image tokens -> (B, N) bool.

    Of equally attended tokens the earlier one is kept. `keep` is as in `SID`.
    """
    rank = attention.masked_fill(~valid, torch.inf).argsort(dim=1, stable=True).argsort(dim=1)
    count = valid.sum(dim=1, keepdim=True)
    most = (keep * count).round().clamp(min=1) if isinstance(keep, float) else keep
    return valid & (rank < most)
