"""PAI: the last token pays more attention to the image, and the logits of the text alone are subtracted.

Paying More Attention to Image: A Training-Free Method for Alleviating Hallucination in LVLMs (arXiv 2407.21771,
ECCV 2024).
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from iava.engine.attention import AttentionCall
from iava.engine.branch import Branch
from iava.engine.negatives import text_only
from iava.engine.prompt import Prompt
from iava.engine.tap import attention_hook
from iava.errors import IavaError
from iava.methods.base import Method
from iava.methods.checks import check_number, check_whole
from iava.methods.mixing import mix


@dataclass(eq=False, kw_only=True)
class PAI(Method):
    """Pay attention to image (arXiv 2407.21771).

    In the main branch the token that predicts the next one has attention logits A + alpha * |A| to image tokens, in
    the layers from `start` to before `end`: the prompt's last token, then each new one. The contrast branch has no
    image. The result is gamma * logits - (gamma - 1) * logits without image, over the plausible tokens.

    Checked: both formulas against the authors' code, and the decoding against eager attention altered by hand, two
    branches without cache. Not checked: the values of alpha that the paper chose for each model; the defaults are
    those of the commands in the authors' README. Their code with these commands does not raise the prompt's last token,
    so that the contrast alone decides the first new token: `prefill=False`.

    Args:
        alpha: how much the image's attention logits are raised, at least 0; 0 leaves them alone.
        gamma: at least 1; 1 subtracts nothing.
        beta: plausibility, 0 to 1; see `contrast`.
        start: the first decoder layer, from 0, whose attention is raised.
        end: the layer behind the last one that is raised, above `start`. None is behind the model's last layer.
        prefill: whether the prompt's last token is raised, too, so that the first new token changes.

    Raises:
        IavaError: if a setting is out of range.

    Examples:
        >>> out = model.generate(**inputs, custom_generate=iava.PAI(gamma=1.1), max_new_tokens=8)
        >>> processor.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        ' Yes.'
    """

    alpha: float = 0.2
    gamma: float = 1.1
    beta: float = 0.1
    start: int = 2
    end: int | None = None
    prefill: bool = True

    name, paper = "pai", "2407.21771"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("alpha", self.alpha, low=0)
        check_number("gamma", self.gamma, low=1)
        check_number("beta", self.beta, low=0, high=1)
        check_whole("start", self.start, low=0)
        if self.end is not None:
            check_whole("end", self.end, low=self.start + 1)
        if not isinstance(self.prefill, bool):
            raise IavaError(f"prefill is {self.prefill!r}: it must be true or false")

    def branches(self, prompt: Prompt) -> list[Branch]:
        return [text_only(prompt)]

    def attention_hook(
        self, model: PreTrainedModel, is_image: torch.Tensor, main_rows: int, step: int
    ) -> AbstractContextManager[None]:
        layers = model.get_decoder().config.num_hidden_layers
        if self.start >= layers:
            raise IavaError(f"start is {self.start}, but the model has {layers} layers: use 0 to {layers - 1}")
        end = layers if self.end is None else self.end
        if end > layers:
            raise IavaError(f"end is {end}, but the model has {layers} layers: use {self.start + 1} to {layers}")
        if self.alpha == 0 or main_rows == 0 or (step == 0 and not self.prefill):
            return nullcontext()
        strength = self.alpha * is_image
        strength[main_rows:] = 0

        def attend(call: AttentionCall) -> torch.Tensor:
            if not self.start <= call.layer < end:
                return call.run()
            raised = call.at_keys(strength)[:, None] * call.logits.abs()
            if call.query.shape[2] == 1 and call.has_full_mask:
                return call.add_bias(raised[:, :, None]).run()
            # A bias for the last query alone would be a mask of the size of all queries.
            output = call.run()
            heads = call.mixed(call.weights(call.scores + raised))
            output[:main_rows, -1] = heads[:main_rows].to(output.dtype)
            return output

        return attention_hook(model, attend)

    def combine(self, main: torch.Tensor, contrast_logits: list[torch.Tensor], step: int) -> torch.Tensor:
        return mix(main, contrast_logits[0], self.gamma - 1)
