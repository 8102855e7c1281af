"""Two branches, one batch, Hugging Face's own decoding loops.

The twin looks like the model to `GenerationMixin._sample` and `_beam_search`, but its forward runs the prompt's rows
and the second branch's rows together and returns one row of logits for each pair. Sampling, beams, stopping
criteria and logits processors therefore work as they do in `generate`.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from transformers import DynamicCache, GenerationConfig, PreTrainedModel, StoppingCriteriaList
from transformers.generation import LogitsProcessor, LogitsProcessorList
from transformers.generation.utils import GenerateOutput

from iava.engine.boundary import Prompt, capture, run
from iava.engine.probe import last_row

# A model output with `logits` and `past_key_values`; each family has a class of its own.
Outputs = Any

Second = Callable[[Prompt], dict[str, Any]]
Combine = Callable[[torch.Tensor, torch.Tensor | None, int], torch.Tensor]

_NOT_IMAGES = ("attention_mask", "position_ids", "past_key_values", "use_cache", "logits_to_keep")


class Twin:
    """A model whose logits come from two branches.

    Args:
        model: the real model; it is not changed.
        second: what the second branch's decoder is fed, given the prompt that the first has read: the decoder's
            inputs, of the same batch and length. None: there is no second branch.
        combine: (logits (B, V), negative (B, V) or None, number of the step from 0) -> logits (B, V), all float32.
    """

    def __init__(self, model: PreTrainedModel, second: Second | None, combine: Combine) -> None:
        self.model: Any = model
        self._second = second
        self._combine = combine
        self._step = 0

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

        if self._second is None:
            return self._combined(read(), None)
        empty = copy.deepcopy(model_kwargs["past_key_values"])
        with capture(self.model) as inputs, last_row(self.model) as rows:
            outputs = read()
        mask = model_kwargs.get("attention_mask")
        prompt = Prompt(
            model=self.model,
            input_ids=input_ids,
            attention_mask=torch.ones_like(input_ids) if mask is None else mask,
            inputs=inputs,
            rows=rows,
            cache=outputs.past_key_values,
            images={key: value for key, value in model_kwargs.items() if key not in _NOT_IMAGES},
        )
        negative = run(self.model, self._second(prompt), empty)
        _append_rows(outputs.past_key_values, negative.past_key_values)
        return self._combined(outputs, negative.logits[:, -1])

    def __call__(self, **inputs: Any) -> Outputs:
        if self._second is None:
            return self._combined(self.model(**inputs), None)
        for key in ("input_ids", "attention_mask", "position_ids"):
            if inputs.get(key) is not None:
                inputs[key] = torch.cat([inputs[key], inputs[key]])
        outputs = self.model(**inputs)
        outputs.logits, negative = outputs.logits.chunk(2)
        return self._combined(outputs, negative[:, -1])

    def _combined(self, outputs: Outputs, negative: torch.Tensor | None) -> Outputs:
        # Half precision would lose the difference of two nearly equal rows.
        negative = None if negative is None else negative.float()
        outputs.logits = self._combine(outputs.logits[:, -1].float(), negative, self._step)[:, None]
        self._step += 1
        return outputs

    def _reorder_cache(self, cache: Any, beams: torch.Tensor) -> Any:
        # The second branch's rows lie behind the first's and follow the same beams.
        rows = beams if self._second is None else torch.cat([beams, beams + len(beams)])
        cache.reorder_cache(rows.long())
        return cache


def _append_rows(cache: Any, other: Any) -> None:
    """Puts the rows of `other` behind those of `cache`, layer by layer, freeing `other`'s as it goes."""
    for layer, other_layer in zip(cache.layers, other.layers, strict=True):
        layer.keys = torch.cat([layer.keys, other_layer.keys])
        layer.values = torch.cat([layer.values, other_layer.values])
        other_layer.reset()


def decode(
    model: PreTrainedModel,
    input_ids: torch.Tensor,
    *,
    second: Second | None,
    combine: Combine,
    sampling: bool | None,
    warpers: list[LogitsProcessor],
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

    Raises:
        ValueError: if `past_key_values` already holds a part of the prompt: both branches must read all of it.
    """
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
    mixin: Any = type(model)
    loop = mixin._beam_search if generation_config.num_beams > 1 else mixin._sample
    return loop(
        Twin(model, second, combine),
        input_ids,
        logits_processor=LogitsProcessorList([*logits_processor, *warpers]),
        stopping_criteria=stopping_criteria,
        generation_config=generation_config,
        **model_kwargs,
    )
