"""PAI: the last token is made to look at the image more, and what the text alone says is subtracted.

Paying More Attention to Image: A Training-Free Method for Alleviating Hallucination in LVLMs (arXiv 2407.21771,
ECCV 2024).
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from transformers import PreTrainedModel

from iava.engine.attention import Call, steered
from iava.engine.boundary import Prompt
from iava.engine.negatives import text_only
from iava.errors import IavaError
from iava.methods.base import Method, mix
from iava.methods.checks import check_number, check_whole
from iava.methods.trace import Trace


class PAI(Method):
    """Pay attention to image (arXiv 2407.21771).

    In the first branch the token that predicts the next one looks at image tokens with attention logits
    A + alpha * |A|, in every layer from `start` on: the prompt's last token, then each new one. The second branch has
    no image. The result is gamma * logits - (gamma - 1) * logits without image, over the plausible tokens.

    Checked: both formulas against the authors' code, and the decoding against eager attention altered by hand, two
    branches without cache. Not checked: the values of alpha that the paper chose for each model; the defaults are
    those of the commands in the authors' README.

    Args:
        alpha: how much the image's attention logits are raised, at least 0; 0 leaves them alone.
        gamma: at least 1; 1 subtracts nothing.
        beta: plausibility, 0 to 1; see `contrast`.
        start: the first decoder layer, from 0, whose attention is raised.
        model: InstructBLIP and BLIP-2 hand decoding to their language model, which does not know the image: for them
            this is the vision-language model itself. Others need none.

    Raises:
        IavaError: if a parameter is out of range.

    Example:
        >>> model.generate(**inputs, custom_generate=PAI(alpha=0.5), max_new_tokens=64)
    """

    name, paper = "pai", "2407.21771"
    alpha: float

    def __init__(
        self,
        *,
        alpha: float = 0.2,
        gamma: float = 1.1,
        beta: float = 0.1,
        start: int = 2,
        model: PreTrainedModel | None = None,
    ) -> None:
        check_number("alpha", alpha, low=0)
        check_number("gamma", gamma, low=1)
        check_number("beta", beta, low=0, high=1)
        check_whole("start", start, low=0)
        self.alpha = alpha
        self.gamma = gamma
        self.beta = beta
        self.start = start
        self.model = model

    def settings(self) -> dict[str, Any]:
        return {"alpha": self.alpha, "gamma": self.gamma, "beta": self.beta, "start": self.start}

    def second(self, prompt: Prompt, trace: Trace | None) -> dict[str, Any]:
        return text_only(prompt)

    def steer(
        self, model: PreTrainedModel, is_image: torch.Tensor, second: torch.Tensor
    ) -> AbstractContextManager[None]:
        layers = model.get_decoder().config.num_hidden_layers
        if self.start >= layers:
            raise IavaError(f"start is {self.start}, but the model has {layers} layers: use 0 to {layers - 1}")
        if self.alpha == 0 or second.all():
            return nullcontext()
        first = ~second
        image = is_image & first[:, None]

        def attend(call: Call) -> torch.Tensor:
            output = call.run()
            if call.layer >= self.start:
                seen = call.scores.isfinite() & call.fit(image)[:, None]
                raised = torch.where(seen, call.scores + self.alpha * call.scores.abs(), call.scores)
                rows = first.to(output.device)
                output[rows, -1] = call.mixed(call.weights(raised))[rows].to(output.dtype)
            return output

        return steered(model, attend)

    def combine(self, logits: torch.Tensor, negative: torch.Tensor | None, step: int) -> torch.Tensor:
        assert negative is not None
        return mix(logits, negative, self.gamma - 1)
