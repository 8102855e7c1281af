"""What every method is: what its contrast branches see, and how their logits become one row."""

import copy
import dataclasses
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Self

import torch
from transformers import PreTrainedModel, ProcessorMixin
from transformers.generation import LogitsProcessor, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper
from transformers.generation.utils import GenerateOutput

from iava.engine.branch import Branch
from iava.engine.caches.prefix_cache import PrefixCache
from iava.engine.decoding import decode
from iava.engine.edit import Edits
from iava.engine.host import to_device, to_host
from iava.engine.prompt import Prompt
from iava.engine.text.instruction import EditablePrompt
from iava.engine.wrappers import unwrapped
from iava.errors import IavaError
from iava.methods.checks import check_number, check_whole
from iava.methods.mixing import mix, plausible
from iava.methods.trace import Trace

DRAWING = ("sampling", "temperature", "top_p", "top_k")
"""The settings that say how each token is chosen. They belong to every method that may draw."""


UNRECORDED = ("model", "processor", "lazy")
"""Fields that are no settings: they do not change what is answered."""


class _Attributes:
    """Attributes that a method turns into settings by a field of the same name, and the method's own name."""

    name: str
    """On the command line and in records."""
    alpha: Any = None
    """Strength of the contrast, for methods that leave `combine` alone."""
    beta: Any = 0.0
    """Plausibility: tokens below beta times the largest probability are ruled out; 0 rules out none."""
    processor: Any = None
    """The model's processor, for methods that write or read text."""
    ends: Sequence[int] = ()
    """The tokens that end an answer, while a call of `generate` runs."""


@dataclasses.dataclass(eq=False)
class Method(_Attributes):
    """A decoding method, passed to `model.generate(**inputs, custom_generate=method)`.

    A new method is a dataclass whose fields are its settings. It defines `name`, `paper`, `branches` if it has contrast
    branches, `combine` if that is not the plain contrast, and `attention_hook` if it changes how the decoder attends.
    Every setting has a default. `__post_init__` refuses values that are out of range, and calls this class's.

    Args:
        model: the vision-language model. InstructBLIP and BLIP-2 need it, because they hand decoding to their language
            model, which does not know the image.
        lazy: leave the contrast branches out of steps where the plausibility constraint leaves one token to each
            prompt; they catch up in one pass when they are needed. The tokens are the same, for greedy decoding and
            for sampling. No effect with beams, without a constraint, or with an `attention_hook`.
        sampling: True draws each token, False takes the most probable one, None does as `generate` is told. The
            commands and `LVLM` take the most probable one unless told otherwise.
        temperature: above 0; divides the logits before a token is drawn. 1 leaves them as they are.
        top_p: in (0, 1]; draws from the fewest tokens with this much probability. 1 is all of them.
        top_k: draws from the so many most probable tokens, at least 1. 0 is all of them.

    Raises:
        IavaError: if a setting is out of range, if the method cannot choose its tokens in this way, or if a temperature
            is given although no token is drawn.

    Examples:
        >>> @dataclasses.dataclass(eq=False)
        ... class Blind(Method):  # contrast with the text alone
        ...     alpha: float = 1.0
        ...     beta: float = 0.1
        ...     name, paper = "blind", None
        ...     def branches(self, prompt):
        ...         return [text_only(prompt)]
    """

    model: PreTrainedModel | None = dataclasses.field(default=None, kw_only=True, repr=False)
    lazy: bool = dataclasses.field(default=False, kw_only=True, repr=False)
    sampling: bool | None = dataclasses.field(default=None, kw_only=True)
    temperature: float = dataclasses.field(default=1.0, kw_only=True)
    top_p: float = dataclasses.field(default=1.0, kw_only=True)
    top_k: int = dataclasses.field(default=0, kw_only=True)

    title: ClassVar[str | None] = None
    """The name in tables; None: the name of the class."""
    paper: ClassVar[str | None] = None
    """Where it was published: an arXiv id such as "2503.18556"."""
    cost: ClassVar[str | None] = None
    """Forward passes a token, in a few words; None: "1", or with a contrast branch "2 in one batch"."""
    control: ClassVar[bool] = False
    """Whether it is what the others must beat to count as better, not a proposal of its own."""
    several_calls: ClassVar[bool] = False
    """Whether an answer takes several calls of `generate`, so that only a benchmark of captions can ask for it."""
    published: ClassVar[dict[str, dict[str, Any]]] = {}
    """By setting and Hugging Face model type, what None stands for; "other" is for all other types."""

    def __post_init__(self) -> None:
        # A class whose `sampling` is not None has but this way.
        only, name = type(self).sampling, type(self).__name__
        if self.sampling not in (True, False, None):
            raise IavaError(f"sampling is {self.sampling!r}: it must be true or false")
        if only is not None and self.sampling is not only:
            raise IavaError(f"sampling is {self.sampling}, but {name} always {'draws' if only else 'takes the best'}")
        check_number("temperature", self.temperature, low=0, above=True)
        check_number("top_p", self.top_p, low=0, high=1, above=True)
        check_whole("top_k", self.top_k, low=0)
        for setting, plain in (("temperature", 1), ("top_p", 1), ("top_k", 0)):
            if getattr(self, setting) != plain and not self.sampling:
                raise IavaError(f"{setting} is {getattr(self, setting)}, but {name} draws no token: add sampling=True")

    @property
    def reads_pixels(self) -> bool:
        """Whether a contrast branch needs the image's pixels, not only what the vision tower made of them."""
        return False

    @property
    def own_images(self) -> int:
        """How many contrast branches hold keys and values of the whole image, for each question their own.

        `LVLM.ask_many` then answers a few questions at a time.
        """
        return 0

    @classmethod
    def setting_names(cls) -> list[str]:
        """The names of all settings that may be given, the method's own first."""
        names = [field.name for field in dataclasses.fields(cls) if field.name not in UNRECORDED]
        own = [name for name in names if name not in DRAWING]
        return own if cls.sampling is False else [*own, *DRAWING]

    def settings(self) -> dict[str, Any]:
        """The settings, ready for JSON. Those of `DRAWING` are among them where tokens are drawn."""
        names = [name for name in self.setting_names() if self.sampling or name not in DRAWING]
        return {name: getattr(self, name) for name in names}

    def bind(self, model: PreTrainedModel, processor: ProcessorMixin) -> Self:
        """A copy for a model and its processor, with the published settings of the model's type."""
        bound = self.for_model(model)
        bound.model, bound.processor = model, processor
        return bound

    def plain(self) -> "Method":
        """Decoding without any contrast that chooses its tokens as this method does."""
        return Method(**{name: getattr(self, name) for name in DRAWING})

    def for_model(self, model: PreTrainedModel) -> Self:
        """A copy in which settings that are None have the published values of the model's type."""
        filled = copy.copy(self)
        for setting, values in self.published.items():
            if getattr(self, setting) is None:
                setattr(filled, setting, values.get(model.config.model_type, values["other"]))
        return filled

    def reword(self, question: str) -> str:
        """What is asked in place of a question, for methods that change the prompt itself."""
        return question

    def branches(self, prompt: Prompt) -> list[Branch]:
        """What the contrast branches read; what is worth explaining goes to `prompt.reading`.

        Methods without a contrast branch leave this alone.
        """
        raise NotImplementedError

    def beside(self, prompt: Prompt) -> Sequence[Edits] | None:
        """The edits of a text for which `branches` asks `attention_under`; the prompt is not read yet.

        It is then read in the same pass as the prompt, where the model allows it. None: there is no such text.
        """
        return None

    def check_prompts(self, input_ids: torch.Tensor) -> None:
        """Refuses prompts (B, S) that the method cannot serve. Most methods leave this alone."""

    def attention_hook(
        self, model: PreTrainedModel, is_image: torch.Tensor, main_rows: int, step: int
    ) -> AbstractContextManager[None]:
        """Entered around each run of the decoder, see `MultiBranchModel`. Most methods leave this alone."""
        raise NotImplementedError

    def combine(self, main: torch.Tensor, contrast_logits: list[torch.Tensor], step: int) -> torch.Tensor:
        """One row of logits out of those of all branches.

        Args:
            main: (B, V) float32.
            contrast_logits: of each contrast branch, (B, V) float32.
            step: number of the new token, from 0.

        Returns:
            (B, V) float32, before implausible tokens are ruled out.
        """
        return mix(main, contrast_logits[0], self.alpha) if contrast_logits else main

    def plausibility(self) -> float:
        """The share of the largest probability that a token needs in the main branch."""
        return self.beta

    @classmethod
    def has_branches(cls) -> bool:
        """Whether there is a contrast branch."""
        return cls.branches is not Method.branches

    def warpers(self) -> list[LogitsProcessor]:
        """Logits processors that come after `generate`'s own: here temperature, top_k and top_p, in this order."""
        found: list[LogitsProcessor] = []
        if self.temperature != 1:
            found.append(TemperatureLogitsWarper(float(self.temperature)))
        if self.top_k > 0:
            found.append(TopKLogitsWarper(self.top_k))
        if self.top_p < 1:
            found.append(TopPLogitsWarper(float(self.top_p)))
        return found

    def __call__(
        self,
        model: PreTrainedModel,
        input_ids: torch.Tensor,
        *,
        trace: Trace | None = None,
        prefix_cache: PrefixCache | None = None,
        unfinished: Callable[[], Sequence[int]] | None = None,
        seed: int | None = None,
        generators: Sequence[torch.Generator] | None = None,
        conversations: Sequence[EditablePrompt] | None = None,
        **loop: Any,
    ) -> GenerateOutput | torch.Tensor:
        """What `generate` calls in place of its loop; returns what its loop returns.

        `generate` takes the keyword arguments of this call beside its own: `generate(..., seed=1)`.

        Args:
            model: the model on which `generate` was called.
            input_ids: (B, S).
            trace: filled with what happens.
            prefix_cache: keeps what was read of images for later calls about them.
            unfinished: returns the numbers of the prompts that need more tokens; the rows of others leave the batch.
            seed: of all draws of this call. None: torch's global state decides, as in `generate`.
            generators: one for each prompt, from which its tokens are drawn. None: one for all, made with `seed`.
            conversations: where the text of each prompt comes from. None: the question is found in the tokens.
            loop: what `generate` passes to its loop.
        """
        candidates = [model] if self.model is None else [model, unwrapped(self.model)]
        vlm = next((one for one in candidates if hasattr(one.config, "image_token_id")), None)
        hooks = type(self).attention_hook is not Method.attention_hook
        if (self.has_branches() or hooks) and vlm is None:
            raise IavaError(
                f"generate handed the decoding loop a language model ({model.config.model_type}) that does not know "
                f"the image: give the method the whole model, {type(self).__name__}(..., model=model)"
            )
        self.check_prompts(input_ids)
        # (B, 1) bool, prompts without an image beside others with one: they are decoded plainly. None: there are none.
        plain: torch.Tensor | None = None
        if vlm is not None and hooks and not self.has_branches():
            without = to_host((input_ids != vlm.config.image_token_id).all(dim=1, keepdim=True))[0]
            plain = to_device(without != 0, input_ids.device) if without.any() else None
        method = self.for_model(vlm or model)
        ends = loop["generation_config"].eos_token_id
        method.ends = [] if ends is None else torch.as_tensor(ends).flatten().tolist()

        def beside(prompt: Prompt) -> Sequence[Edits] | None:
            prompt.conversations = conversations
            return method.beside(prompt)

        def branches(prompt: Prompt) -> list[Branch]:
            nonlocal plain
            prompt.conversations = conversations
            without = prompt.host[2].sum(axis=1, keepdims=True) == 0
            plain = to_device(without, input_ids.device) if without.any() else None
            found = method.branches(prompt)
            if trace is not None:
                trace.reading = prompt.reading
            return found

        def combine(main: torch.Tensor, contrast_logits: list[torch.Tensor], step: int) -> torch.Tensor:
            left_out = method.has_branches() and not contrast_logits
            combined = main if left_out else method.combine(main, contrast_logits, step)
            beta = method.plausibility()
            allowed = combined if beta == 0 else combined.masked_fill(~plausible(main, beta), -math.inf)
            if plain is not None:
                combined, allowed = main.where(plain, combined), main.where(plain, allowed)
            if trace is not None:
                trace.logits = combined if step == 0 else trace.logits
                negative = contrast_logits[0] if contrast_logits else None
                trace.add_step(full=main, negative=negative, combined=allowed)
            return allowed

        def settled(main: torch.Tensor) -> torch.Tensor:
            return (plausible(main, method.plausibility()).sum(dim=-1) == 1).all()

        return decode(
            model,
            input_ids,
            vlm=vlm,
            branches=branches if self.has_branches() else None,
            beside=None if type(self).beside is Method.beside else beside,
            hook=method.attention_hook if hooks else None,
            combine=combine,
            settled=settled if method.lazy and method.has_branches() and method.plausibility() > 0 else None,
            sampling=self.sampling,
            warpers=method.warpers(),
            prefix_cache=prefix_cache,
            unfinished=unfinished,
            seed=seed,
            generators=generators,
            **loop,
        )
