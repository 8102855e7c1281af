"""Two branches, one batch, Hugging Face's own decoding loops.

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
from transformers.cache_utils import DynamicLayer
from transformers.generation import LogitsProcessor, LogitsProcessorList
from transformers.generation.utils import GenerateOutput

from iava.engine.boundary import Prompt, capture, check_served, image_mask, prompt_of, run
from iava.engine.cache import Behind, before, parts_of
from iava.engine.probe import last_row
from iava.engine.shared import Memory, may_begin_alike, read_together

# A model output with `logits` and `past_key_values`; each family has a class of its own.
Outputs = Any

Second = Callable[[Prompt], dict[str, Any]]
Combine = Callable[[torch.Tensor, torch.Tensor | None, int], torch.Tensor]
Steer = Callable[[PreTrainedModel, torch.Tensor, torch.Tensor], AbstractContextManager[None]]

# What a decoding step is given for each row of the batch.
_OF_ROWS = ("attention_mask", "token_type_ids", "mm_token_type_ids", "moe_mm_token_type_ids")


class Twin:
    """A model whose logits come from two branches.

    Args:
        model: the real model; it is not changed.
        second: what the second branch's decoder is fed, given the prompt that the first has read: the inputs that
            `boundary.run` takes, of the same batch; see `negative`. None: there is no second branch.
        combine: (logits (B, V), negative (B, V) or None, number of the step from 0) -> logits (B, V), all float32.
        outer: the vision-language model, where `model` is only its language model.
        memory: what was read of images before, and what is read of them now.
        steer: entered around each run of the prompts and of new tokens; given the model, (R, T) bool, which of the T
            tokens so far are the image's, and (R,) bool, which rows are the second branch's. It may make the decoder
            give twice as many rows: the others are then what the second branch would have said.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        second: Second | None,
        combine: Combine,
        outer: PreTrainedModel | None = None,
        memory: Memory | None = None,
        steer: Steer | None = None,
    ) -> None:
        self.model: Any = model
        self._second = second
        self._combine = combine
        self._outer = outer or model
        self._memory = memory
        self._steer = steer
        self._step = 0
        self._mask: torch.Tensor | None = None
        # Whether the cache is another than the model alone would have made.
        self.altered = False
        # Pairs of rows; how many columns the cache has more than the prompts, once it holds both branches; and how far
        # the second's positions are ahead.
        self.rows = self.extra = 0
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
        if outputs is None and self._second is not None:
            with capture(self.model) as captured, last_row(self.model) as rows, self._steering(self._is_image):
                outputs = read()
            prompt = self._prompt(input_ids, model_kwargs, captured)
            prompt.rows = rows
        if self._second is None:
            if outputs is None:
                with self._steering(self._is_image):
                    outputs = read()
            return self._combined(outputs)
        assert prompt is not None
        assert outputs is not None
        inputs = self._second(prompt)
        other = inputs.pop("past_key_values", None) or DynamicCache()
        shared = other.get_seq_length()
        with self._steering(self._is_image, second=True):
            negative = run(self.model, inputs, other)
        self._ahead = inputs["position_ids"][..., -1:] - prompt.inputs["position_ids"][..., -1:]
        # Whoever wants one token only, as many benchmarks do, need not pay for it.
        cache, mask, length = outputs.past_key_values, inputs["attention_mask"], input_ids.shape[1]
        self._join = partial(_append_rows, cache, other, mask, shared, length)
        return self._combined(outputs, negative.logits[:, -1])

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
        return prompt, read_together(prompt, self._memory, self._steering, probe=self._second is not None)

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
        if self._second is not None:
            is_image, second = torch.cat([is_image, is_image]), torch.cat([second, ~second])
        return self._steer(self.model, is_image, second)

    def _prompt(self, input_ids: torch.Tensor, model_kwargs: dict[str, Any], captured: dict[str, Any]) -> Prompt:
        mask, types = model_kwargs.get("attention_mask"), model_kwargs.get("token_type_ids")
        cache = model_kwargs["past_key_values"]
        return prompt_of(self.model, self._outer, input_ids, mask, captured, types, [], cache)

    def prepare_inputs_for_generation(self, input_ids: torch.Tensor, **kwargs: Any) -> dict[str, Any]:
        """Both branches get the same new tokens; where these stand and what they may look at is each one's own."""
        if self._second is None:
            return self.model.prepare_inputs_for_generation(input_ids, **kwargs)
        batch, seen = len(input_ids), self._joined_mask()
        assert self._ahead is not None
        mask = kwargs.get("attention_mask")
        first = torch.nn.functional.pad(torch.ones_like(input_ids) if mask is None else mask, (self.extra, 0))
        new = first[:, seen.shape[1] :]
        kwargs["attention_mask"] = torch.cat([first, torch.cat([seen.to(first), new], dim=1)])
        for key in _OF_ROWS[1:]:
            if kwargs.get(key) is not None:
                kwargs[key] = torch.cat([kwargs[key], kwargs[key]])
        positions = kwargs.get("position_ids")
        if positions is not None:
            positions = positions.expand(*positions.shape[:-2], batch, -1)
            kwargs["position_ids"] = torch.cat([positions, positions + self._ahead], dim=-2)
        return self.model.prepare_inputs_for_generation(torch.cat([input_ids, input_ids]), **kwargs)

    def __call__(self, **inputs: Any) -> Outputs:
        with self._steering_steps():
            outputs = self.model(**inputs)
        return self._combined(outputs)

    def _combined(self, outputs: Outputs, negative: torch.Tensor | None = None) -> Outputs:
        """Makes one row of logits of two: `negative` (B, V), or the rows that follow the first branch's."""
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
        if self._second is not None:
            # The second branch's rows lie behind the first's and follow the same beams.
            self._joined_mask()
            rows = torch.cat([beams, beams + len(beams)])
        cache.reorder_cache(rows.long())
        return cache


def _append_rows(
    cache: Any, other: DynamicCache, mask: torch.Tensor, shared: int, length: int
) -> tuple[torch.Tensor, int]:
    """Puts the second branch's rows behind the first's, without a copy where the first's share what they begin with.

    Args:
        cache: the first branch's, of any kind of layers.
        other: the second branch's; it is emptied.
        mask: (B, K) 1 where a column of `other` may be seen.
        shared: how many of `other`'s first columns stay where they are; what follows them goes to the cache's last
            columns.
        length: of the prompts.

    Returns:
        (B, length + extra) 1 where the second branch's rows may be seen; and `extra`, how many columns more than the
        prompts these need: the first branch's rows have as many empty ones before them.
    """
    fresh = mask[:, shared:]
    width = fresh.shape[1]
    # From a row's first token on.
    spans = width - fresh.argmax(dim=1, keepdim=True)
    columns = torch.arange(1, shared + 1, device=mask.device)
    needed = spans[:, 0] + ((mask[:, :shared] * columns).amax(dim=1) if shared else 0)
    extra = max(int(needed.max()) - length, 0)
    total = length + extra
    seen = torch.nn.functional.pad(mask[:, :shared], (0, total - shared))
    begun = torch.arange(width, device=mask.device) >= width - spans
    seen[:, total - width :] = torch.where(begun, fresh, seen[:, total - width :])
    for number, layer in enumerate(cache.layers):
        rows = [[(end + extra, k, v) for end, k, v in parts] for parts in parts_of(layer, length)]
        for span, parts in zip(spans[:, 0].tolist(), parts_of(other.layers[number], mask.shape[1]), strict=True):
            _, keys, values = parts[-1]
            rows.append([*before(parts[:-1], total - span), (total, keys[:, -span:], values[:, -span:])])
        both = Behind(rows, total)
        if isinstance(layer, Behind):
            cache.layers[number] = both
        else:
            size = _lengthen(layer, extra)
            layer.keys, layer.values = (_fitted(part, size) for part in both.whole())
        # What no other layer holds now is needed no longer.
        other.layers[number] = DynamicLayer()
    return seen, extra


def _lengthen(layer: Any, columns: int) -> Any:
    """Tells a layer that it was given more columns, or fewer; returns how many it holds then."""
    if hasattr(layer, "cumulative_length"):
        layer.cumulative_length += columns
    if not layer.is_compileable:
        held = layer.keys.shape[2] + columns
        return min(layer.cumulative_length, layer.sliding_window - 1) if layer.is_sliding else held
    if layer.is_sliding and columns:
        raise ValueError(
            "the second branch is longer than the prompt, and a static cache with a sliding window has no room for it: "
            "leave out cache_implementation"
        )
    layer.max_cache_len += columns
    return layer.max_cache_len


def _fitted(part: torch.Tensor, size: int) -> torch.Tensor:
    """The last columns, or all and empty ones behind them."""
    if size > part.shape[2]:
        return torch.nn.functional.pad(part, (0, 0, 0, size - part.shape[2]))
    return part[:, :, -size:]


def _first_rows(cache: Any, count: int, extra: int) -> None:
    """Leaves in a cache its first rows only, without their first `extra` columns, in layers of the usual kinds."""
    for number, layer in enumerate(cache.layers):
        if isinstance(layer, Behind):
            whole = Behind(layer.rows[:count], layer.start)
            keys, values = whole.update(layer.keys[:count], layer.values[:count])
            cache.layers[number] = DynamicLayer()
            cache.layers[number].update(keys[:, :, extra:], values[:, :, extra:])
        elif len(layer.keys) > count:
            size = _lengthen(layer, -extra)
            layer.keys, layer.values = layer.keys[:count, :, -size:], layer.values[:count, :, -size:]


def decode(
    model: PreTrainedModel,
    input_ids: torch.Tensor,
    *,
    second: Second | None,
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
        second: see `Twin`.
        combine: see `Twin`.
        sampling: True to draw tokens, False to take the best, None to do as `generate` was told.
        warpers: applied to the combined logits after `generate`'s own processors.
        outer: the vision-language model, where `generate` was called on its language model.
        memory: see `Twin`.
        steer: see `Twin`.

    Raises:
        ValueError: if the model cannot be served, or if `past_key_values` already holds a part of the prompt: both
            branches must read all of it.
    """
    if second is not None or steer is not None:
        check_served(outer or model)
    cache = model_kwargs.get("past_key_values")
    if cache is not None and cache.get_seq_length() > 0:
        raise ValueError("past_key_values already holds tokens: the method must read the whole prompt, leave it out")
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
            raise ValueError("beam search has no tokens to stream before it ends: leave out streamer, or num_beams")
        # The first that a streamer gets is the prompt.
        model_kwargs["streamer"].put(input_ids.cpu())
    mixin: Any = type(model)
    loop = mixin._beam_search if generation_config.num_beams > 1 else mixin._sample
    twin = Twin(model, second, combine, outer, memory, steer)
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
        # The second branch's rows are of no use to who goes on from here.
        _first_rows(kept, twin.rows, twin.extra)
    return result
