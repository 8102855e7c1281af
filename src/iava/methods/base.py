"""What every method is: what the second branch sees, and how two rows of logits become one."""

import copy
import math
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, ClassVar, Self

import torch
from transformers import PreTrainedModel, ProcessorMixin
from transformers.generation import LogitsProcessor
from transformers.generation.utils import GenerateOutput

from iava.engine.boundary import Prompt
from iava.engine.multi_branch import decode
from iava.engine.prefix_cache import Memory
from iava.errors import IavaError
from iava.methods.mixing import contrast as contrast
from iava.methods.mixing import mix as mix
from iava.methods.mixing import plausible
from iava.methods.trace import Trace


class Method:
    """A decoding method, passed to `model.generate(**inputs, custom_generate=method)`.

    A new method defines `name`, `paper`, `settings`, `second` if it has a second branch, `combine` if that is not the
    plain contrast, and `steer` if it changes how the decoder attends. Its constructor takes the settings by name and
    needs none of them.
    """

    name: str
    title: ClassVar[str | None] = None
    """The name in tables; None: the class's own."""
    paper: ClassVar[str | None] = None
    """Where it was published: an arXiv id such as "2503.18556"."""
    cost: ClassVar[str | None] = None
    """Forward passes a token, in a few words; None: "1", or with a second branch "2 in one batch"."""
    control: ClassVar[bool] = False
    """Whether it is what the others must beat to count as better, not a proposal of its own."""
    sampling: ClassVar[bool | None] = None
    """True: always draws tokens; False: always takes the best; None: does as `generate` is told."""
    alpha: float | None = None
    """Strength of the contrast, for methods that leave `combine` alone."""
    beta: float = 0.0
    """Plausibility: tokens below beta times the largest probability are ruled out; 0 rules out none."""
    reads_pixels: bool = False
    """Whether the second branch needs the image's pixels, not only what the vision tower made of them."""
    model: PreTrainedModel | None = None
    """The vision-language model, for families that hand decoding to their language model."""
    processor: Any = None
    """The model's processor, for methods that write or read text."""

    def settings(self) -> dict[str, Any]:
        """The parameters, ready for JSON."""
        return {}

    def bind(self, model: PreTrainedModel, processor: ProcessorMixin) -> Self:
        """A copy with everything filled in that a model and its processor decide."""
        bound = copy.copy(self)
        bound.model, bound.processor = model, processor
        return bound

    def reword(self, question: str) -> str:
        """What is asked in place of a question, for methods that change the prompt itself."""
        return question

    def second(self, prompt: Prompt, trace: Trace | None) -> dict[str, Any]:
        """What the second branch's decoder is fed. Methods without a second branch leave this alone."""
        raise NotImplementedError

    def others(self, prompt: Prompt, trace: Trace | None) -> list[dict[str, Any]]:
        """What the decoder is fed in each branch but the first; a method with more than two says so here."""
        return [self.second(prompt, trace)]

    def steer(
        self, model: PreTrainedModel, is_image: torch.Tensor, second: torch.Tensor
    ) -> AbstractContextManager[None]:
        """What is done to the decoder while it runs; see `engine.twin.Twin`. Most methods leave this alone."""
        raise NotImplementedError

    def combine(self, logits: torch.Tensor, negative: torch.Tensor | None, step: int) -> torch.Tensor:
        """One row out of two: (B, V), (B, V) -> (B, V) float32; `negative` is None without a second branch."""
        if negative is None:
            return logits
        assert self.alpha is not None
        return mix(logits, negative, self.alpha)

    @classmethod
    def has_second(cls) -> bool:
        """Whether there is a second branch."""
        return cls.second is not Method.second

    def warpers(self) -> list[LogitsProcessor]:
        """Processors that come after `generate`'s own."""
        return []

    def __call__(
        self,
        model: PreTrainedModel,
        input_ids: torch.Tensor,
        *,
        trace: Trace | None = None,
        memory: Memory | None = None,
        **loop: Any,
    ) -> GenerateOutput | torch.Tensor:
        """What `generate` calls in place of its loop; returns what its loop returns.

        `generate` keeps `streamer` from a loop of one's own without a word, so it is bound beforehand:
        `custom_generate=functools.partial(method, streamer=streamer)`. In the same way a `memory` keeps what was read
        of images for later calls about them.
        """
        steers = type(self).steer is not Method.steer

        def combine(full: torch.Tensor, negative: torch.Tensor | None, step: int) -> torch.Tensor:
            combined = self.combine(full, negative, step)
            allowed = combined.masked_fill(~plausible(full, self.beta), -math.inf)
            if trace is not None:
                trace.logits = combined if step == 0 else trace.logits
                trace.add_step(full=full, negative=negative, combined=allowed)
            return allowed

        candidates = [model] if self.model is None else [model, self.model]
        outer = next((one for one in candidates if hasattr(one.config, "image_token_id")), None)
        if (self.has_second() or steers) and outer is None:
            raise IavaError(
                f"generate handed the decoding loop a language model ({model.config.model_type}) that does not know "
                f"the image: give the method the whole model, {type(self).__name__}(..., model=model)"
            )
        return decode(
            model,
            input_ids,
            outer=outer,
            memory=memory,
            others=partial(self.others, trace=trace) if self.has_second() else None,
            steer=self.steer if steers else None,
            combine=combine,
            sampling=self.sampling,
            warpers=self.warpers(),
            **loop,
        )
