"""Controls: what a contrastive method must beat before it counts as better.

arXiv 2504.10020 shows that much of the reported gain is a shift towards "yes" and near-greedy sampling. These
methods have that and nothing else.
"""

import math
from dataclasses import dataclass, field

import torch
from transformers import PreTrainedTokenizerBase, ProcessorMixin
from transformers.generation import LogitsProcessor, MinPLogitsWarper

from iava.errors import IavaError
from iava.methods.base import Method
from iava.methods.checks import check_number
from iava.methods.words import yes_no_ids


@dataclass(eq=False, kw_only=True)
class Greedy(Method):
    """The most probable token at every step: plain `generate` with do_sample=False.

    Examples:
        >>> out = model.generate(**inputs, custom_generate=iava.Greedy(), max_new_tokens=8)
        >>> processor.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        ' Yes.'
    """

    sampling: bool | None = False

    name = title = "greedy"
    control = True


@dataclass(eq=False, kw_only=True)
class Sample(Method):
    """Tokens drawn at random: plain `generate` with do_sample=True, temperature, top_p and top_k.

    Examples:
        >>> iava.Sample(temperature=0.7, top_p=0.9).settings()
        {'sampling': True, 'temperature': 0.7, 'top_p': 0.9, 'top_k': 0}
        >>> lvlm.ask(image, "Is there a fork in the image?", method=iava.Sample(temperature=0.7), seed=1).text
        'Yes.'
    """

    sampling: bool | None = True

    name, title = "sample", "sampling"
    control = True


@dataclass(eq=False)
class APC(Method):
    """The adaptive plausibility constraint without any contrast: draws among tokens with p >= beta * max p.

    The same tokens as plain `generate` with do_sample=True and min_p=beta. It draws because a constraint that
    always leaves the best token changes nothing in greedy decoding.

    Args:
        beta: 0 to 1.

    Examples:
        >>> lvlm.ask(image, "Is there a fork in the image?", method=iava.APC(beta=0.1), seed=1).text
        'Yes.'
    """

    beta: float = 0.1
    sampling: bool | None = field(default=True, kw_only=True)

    name, title, paper = "apc", "APC-only", "2210.15097"
    control = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("beta", self.beta, low=0, high=1)

    def plausibility(self) -> float:
        # The constraint comes after the temperature here, as it does in `generate`.
        return 0.0

    def warpers(self) -> list[LogitsProcessor]:
        return [*super().warpers(), MinPLogitsWarper(float(self.beta))]


@dataclass(eq=False)
class ConstantBias(Method):
    """A constant added to the logits of the tokens that say yes, at every step.

    Args:
        bias: any finite number; above 0 says yes more often.
        processor: the model's processor or tokenizer, which knows those tokens.

    Examples:
        >>> out = model.generate(**inputs, custom_generate=iava.ConstantBias(-40, processor), max_new_tokens=8)
        >>> processor.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        ' No.'
    """

    bias: float = 0.0
    processor: ProcessorMixin | PreTrainedTokenizerBase | None = field(default=None, repr=False)

    name, title, paper = "bias", "constant bias", "2504.10020"
    control = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("bias", self.bias, low=-math.inf)

    def combine(self, main: torch.Tensor, contrast_logits: list[torch.Tensor], step: int) -> torch.Tensor:
        if self.processor is None:
            raise IavaError("ConstantBias has no processor to find yes with: use ConstantBias(bias, processor)")
        yes, _ = yes_no_ids(_tokenizer(self.processor))
        biased = main.clone()
        biased[:, yes] += self.bias
        return biased


def _tokenizer(processor: ProcessorMixin | PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    return processor if isinstance(processor, PreTrainedTokenizerBase) else processor.tokenizer
