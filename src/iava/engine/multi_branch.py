"""Two branches or more, one batch, Hugging Face's own decoding loops.

The twin looks like the model to `GenerationMixin._sample` and `_beam_search`, but its forward runs the prompt's rows
and the second branch's rows together and returns one row of logits for each pair. Sampling, beams, stopping
criteria and logits processors therefore work as they do in `generate`.
"""

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from transformers import DynamicCache, GenerationConfig, PreTrainedModel, StoppingCriteriaList
from transformers.generation import LogitsProcessor, LogitsProcessorList
from transformers.generation.utils import GenerateOutput

from iava.engine.boundary import Prompt, capture, check_served, image_mask, prompt_of, run
from iava.engine.merging import Branch, first_rows, join
from iava.engine.prefix_cache import Memory, may_begin_alike, read_together
from iava.engine.probe import last_row
from iava.errors import IavaError

# A model output with `logits` and `past_key_values`; each family has a class of its own.
Outputs = Any

Others = Callable[[Prompt], list[dict[str, Any]]]
Combine = Callable[[torch.Tensor, torch.Tensor | None, int], torch.Tensor]
Steer = Callable[[PreTrainedModel, torch.Tensor, torch.Tensor], AbstractContextManager[None]]

# What a decoding step is given for each row of the batch.
_OF_ROWS = ("attention_mask", "token_type_ids", "mm_token_type_ids", "moe_mm_token_type_ids")


class Twin:
    """A model whose logits come from two branches.

    Args:
        model: the real model; it is not changed.
        others: what the decoder is fed in each branch but the first, given the prompt that the first has read: the
            inputs that `boundary.run` takes, of the same batch; see `negative`. None: there is no other branch.
        combine: (logits (B, V), negative or None, number of the step from 0) -> logits (B, V), all float32; negative
            has the other branches' logits, (B, V) of one behind that of another.
        outer: the vision-language model, where `model` is only its language model.
        memory: what was read of images before, and what is read of them now.
        steer: entered around each run of the prompts and of new tokens; given the model, (R, T) bool, which of the T
            tokens so far are the image's, and (R,) bool, which rows are another branch's. It may make the decoder
            give twice as many rows: the others are then what a second branch would have said.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        others: Others | None,
        combine: Combine,
        outer: PreTrainedModel | None = None,
        memory: Memory | None = None,
        steer: Steer | None = None,
    ) -> None:
        self.model: Any = model
        self._others = others
        self._combine = combine
        self._outer = outer or model
        self._memory = memory
        self._steer = steer
        self._step = 0
        self._mask: torch.Tensor | None = None
        # Whether the cache is another than the model alone would have made.
        self.altered = False
        # Rows of one branch, how many branches there are, and how many columns the cache has more than the prompts,
        # once it holds them all; and how far the others' positions are ahead.
        self.rows, self._count, self.extra = 0, 1, 0
        self._ahead: torch.Tensor | None = None
        self._is_image: torch.Tensor | None = None
        self._join: Callable[[], tuple[torch.Tensor, int]] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def _valid_auto_compile_criteria(self, *_args: Any) -> bool:
        # A compiled call would be the real model's, and run one branch only.
        return False

    def _prefill(
        self,
        input_ids: torch.Tensor,
        generation_config: GenerationConfig,
        model_kwargs: dict[str, Any],
        is_first_iteration: bool = True,
    ) -> Outputs:
        def read() -> Outputs:
            return self.model._prefill(input_ids, generation_config, model_kwargs, is_first_iteration)

        self.rows = len(input_ids)
        if self._steer is not None:
            self._is_image = image_mask(self._outer, input_ids)
        prompt, outputs = self._read_together(input_ids, model_kwargs, read)
        self.altered = outputs is not None
        if outputs is None and self._others is not None:
            with capture(self.model) as captured, last_row(self.model) as rows, self._steering(self._is_image):
                outputs = read()
            prompt = self._prompt(input_ids, model_kwargs, captured)
            prompt.rows = rows
        if self._others is None:
            if outputs is None:
                with self._steering(self._is_image):
                    outputs = read()
            return self._combined(outputs)
        assert prompt is not None
        assert outputs is not None
        last = prompt.inputs["position_ids"][..., -1:]
        branches, logits, ahead = [], [], []
        for inputs in self._others(prompt):
            other = inputs.pop("past_key_values", None) or DynamicCache()
            branch = Branch(other, inputs["attention_mask"], other.get_seq_length())
            with self._steering(self._is_image, second=True):
                logits.append(run(self.model, inputs, other).logits[:, -1])
            branches.append(branch)
            ahead.append(inputs["position_ids"][..., -1:] - last)
        self._count, self._ahead = 1 + len(branches), torch.cat(ahead, dim=-2)
        # Whoever wants one token only, as many benchmarks do, need not pay for it.
        self._join = partial(join, outputs.past_key_values, branches, input_ids.shape[1])
        return self._combined(outputs, torch.cat(logits))

    def _joined_mask(self) -> torch.Tensor:
        if self._join is not None:
            self._mask, self.extra = self._join()
            self._join, self.altered = None, True
        assert self._mask is not None
        return self._mask

    def _read_together(
        self, input_ids: torch.Tensor, model_kwargs: dict[str, Any], read: Callable[[], Outputs]
    ) -> tuple[Prompt | None, Outputs | None]:
        """Reads the prompts if some begin alike, or if it is to be remembered how they begin."""
        token = getattr(self._outer.config, "image_token_id", None)
        is_image = input_ids == token if token is not None else torch.zeros_like(input_ids, dtype=torch.bool)
        if not is_image.any(dim=1).all() or not (self._memory or may_begin_alike(input_ids, is_image)):
            return None, None
        with capture(self.model, stop=True) as captured:
            read()
        prompt = self._prompt(input_ids, model_kwargs, captured)
        return prompt, read_together(prompt, self._memory, self._steering, probe=self._others is not None)

    def _steering(self, is_image: torch.Tensor | None, second: bool = False) -> AbstractContextManager[None]:
        """Steers a run of one branch: (B, T) bool, where its image tokens are."""
        if self._steer is None or is_image is None:
            return nullcontext()
        return self._steer(self.model, is_image, is_image.new_full((len(is_image),), second))

    def _steering_steps(self) -> AbstractContextManager[None]:
        """Steers a run of one new token for each row of both branches."""
        if self._steer is None or self._is_image is None:
            return nullcontext()
        is_image = torch.nn.functional.pad(self._is_image, (self.extra, self._step))
        second = is_image.new_zeros(len(is_image))
        if self._others is not None:
            is_image, second = is_image.repeat(self._count, 1), torch.cat([second, (~second).repeat(self._count - 1)])
        return self._steer(self.model, is_image, second)

    def _prompt(self, input_ids: torch.Tensor, model_kwargs: dict[str, Any], captured: dict[str, Any]) -> Prompt:
        mask, types = model_kwargs.get("attention_mask"), model_kwargs.get("token_type_ids")
        cache = model_kwargs["past_key_values"]
        return prompt_of(self.model, self._outer, input_ids, mask, captured, types, [], cache)

    def prepare_inputs_for_generation(self, input_ids: torch.Tensor, **kwargs: Any) -> dict[str, Any]:
        """All branches get the same new tokens; where these stand and what they may look at is each one's own."""
        if self._others is None:
            return self.model.prepare_inputs_for_generation(input_ids, **kwargs)
        batch, seen = len(input_ids), self._joined_mask()
        assert self._ahead is not None
        mask = kwargs.get("attention_mask")
        first = torch.nn.functional.pad(torch.ones_like(input_ids) if mask is None else mask, (self.extra, 0))
        new = first[:, seen.shape[1] :]
        others = torch.cat([seen.to(first), new.repeat(self._count - 1, 1)], dim=1)
        kwargs["attention_mask"] = torch.cat([first, others])
        for key in _OF_ROWS[1:]:
            if kwargs.get(key) is not None:
                kwargs[key] = torch.cat([kwargs[key]] * self._count)
        positions = kwargs.get("position_ids")
        if positions is not None:
            positions = positions.expand(*positions.shape[:-2], batch, -1)
            ahead = torch.cat([positions] * (self._count - 1), dim=-2) + self._ahead
            kwargs["position_ids"] = torch.cat([positions, ahead], dim=-2)
        return self.model.prepare_inputs_for_generation(input_ids.repeat(self._count, 1), **kwargs)

    def __call__(self, **inputs: Any) -> Outputs:
        with self._steering_steps():
            outputs = self.model(**inputs)
        return self._combined(outputs)

    def _combined(self, outputs: Outputs, negative: torch.Tensor | None = None) -> Outputs:
        """One row of logits of all branches': `negative` has the others', or they follow the first's."""
        full, rest = outputs.logits[: self.rows, -1], outputs.logits[self.rows :, -1]
        if negative is None and len(rest):
            negative = rest
        # Half precision would lose the difference of two nearly equal rows.
        negative = None if negative is None else negative.float()
        outputs.logits = self._combine(full.float(), negative, self._step)[:, None]
        self._step += 1
        return outputs

    def _reorder_cache(self, cache: Any, beams: torch.Tensor) -> Any:
        rows = beams
        if self._others is not None:
            # The other branches' rows lie behind the first's and follow the same beams.
            self._joined_mask()
            rows = torch.cat([beams + len(beams) * number for number in range(self._count)])
        cache.reorder_cache(rows.long())
        return cache


def decode(
    model: PreTrainedModel,
    input_ids: torch.Tensor,
    *,
    others: Others | None,
    combine: Combine,
    sampling: bool | None,
    warpers: list[LogitsProcessor],
    outer: PreTrainedModel | None = None,
    memory: Memory | None = None,
    steer: Steer | None = None,
    logits_processor: LogitsProcessorList,
    stopping_criteria: StoppingCriteriaList,
    generation_config: GenerationConfig,
    **model_kwargs: Any,
) -> GenerateOutput | torch.Tensor:
    """Runs the decoding loop that `generation_config` asks for over both branches.

    Args:
        model: the model on which `generate` was called.
        input_ids: (B, S), left padded, as are the rest of the arguments, which `generate` hands to its loop.
        others: see `Twin`.
        combine: see `Twin`.
        sampling: True to draw tokens, False to take the best, None to do as `generate` was told.
        warpers: applied to the combined logits after `generate`'s own processors.
        outer: the vision-language model, where `generate` was called on its language model.
        memory: see `Twin`.
        steer: see `Twin`.

    Raises:
        IavaError: if the model cannot be served, or if `past_key_values` already holds a part of the prompt: both
            branches must read all of it.
    """
    if others is not None or steer is not None:
        check_served(outer or model)
    cache = model_kwargs.get("past_key_values")
    if cache is not None and cache.get_seq_length() > 0:
        raise IavaError("past_key_values already holds tokens: the method must read the whole prompt, leave it out")
    if cache is None:
        model_kwargs["past_key_values"] = DynamicCache(config=model.get_decoder().config)
    model_kwargs["use_cache"] = True
    generation_config = copy.copy(generation_config)
    # A prompt that is read in pieces passes the decoder's boundary more than once.
    generation_config.prefill_chunk_size = None
    if sampling is not None:
        generation_config.do_sample = sampling
    if model_kwargs.get("streamer") is not None:
        if generation_config.num_beams > 1:
            raise IavaError("beam search has no tokens to stream before it ends: leave out streamer, or num_beams")
        # The first that a streamer gets is the prompt.
        model_kwargs["streamer"].put(input_ids.cpu())
    mixin: Any = type(model)
    loop = mixin._beam_search if generation_config.num_beams > 1 else mixin._sample
    twin = Twin(model, others, combine, outer, memory, steer)
    result = loop(
        twin,
        input_ids,
        logits_processor=LogitsProcessorList([*logits_processor, *warpers]),
        stopping_criteria=stopping_criteria,
        generation_config=generation_config,
        **model_kwargs,
    )
    kept = getattr(result, "past_key_values", None)
    if twin.altered and kept is not None:
        # The other branches' rows are of no use to who goes on from here.
        first_rows(kept, twin.rows, twin.extra)
    return result
