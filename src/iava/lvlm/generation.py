"""Decoding settings of a call: exactly what the method says, whatever the checkpoint's generation config holds."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from threading import Lock
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
from transformers import GenerationConfig
from transformers.generation import (
    EpsilonLogitsWarper,
    EtaLogitsWarper,
    MinPLogitsWarper,
    NoBadWordsLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from iava.errors import IavaError, reason_of

Generation = Mapping[str, Any] | Literal["checkpoint"] | None
"""Settings of `generate` that a call asks for: by name, or those of the checkpoint, or none."""

GENERATION_SETTINGS = (
    "bad_words_ids",
    "begin_suppress_tokens",
    "do_sample",
    "encoder_repetition_penalty",
    "epsilon_cutoff",
    "eta_cutoff",
    "exponential_decay_length_penalty",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "min_length",
    "min_new_tokens",
    "min_p",
    "no_repeat_ngram_size",
    "remove_invalid_values",
    "renormalize_logits",
    "repetition_penalty",
    "sequence_bias",
    "suppress_tokens",
    "temperature",
    "top_h",
    "top_k",
    "top_p",
    "typical_p",
)
"""Settings that a call can ask for."""
_OTHERS = (
    "assistant_early_exit",
    "constraints",
    "dola_layers",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "force_words_ids",
    "guidance_scale",
    "length_penalty",
    "num_beams",
    "num_return_sequences",
    "penalty_alpha",
    "prompt_lookup_num_tokens",
    "stop_strings",
    "token_healing",
    "use_mtp",
    "watermarking_config",
)
"""More settings of a checkpoint that change answers; no call of this package applies them."""
_NEUTRAL = {"do_sample": False, "num_beams": 1, "num_return_sequences": 1, "min_length": 0}
# What a generation config may spell out without changing anything, besides None, False and 0. A top_k of 50 is what
# `generate` takes where nothing is said.
_PLAIN = {"temperature": 1, "top_p": 1, "typical_p": 1, "top_k": 50, "repetition_penalty": 1} | {
    name: 1 for name in ("encoder_repetition_penalty", "length_penalty", "num_beams", "num_return_sequences")
}


class ExactGenerationConfig(GenerationConfig):
    """A generation config whose unset answer-changing fields `generate` does not fill in from the checkpoint's."""

    def update(self, defaults_only: bool = False, allow_custom_entries: bool = False, **kwargs: Any) -> dict[str, Any]:
        if defaults_only:
            kwargs = {name: value for name, value in kwargs.items() if name not in (*GENERATION_SETTINGS, *_OTHERS)}
        return super().update(defaults_only, allow_custom_entries, **kwargs)


def checkpoint_settings(model: Any) -> dict[str, Any]:
    """What the generation configs of a checkpoint set beyond plain decoding, such as a repetition penalty.

    Args:
        model: the vision-language model. Where its language model has a generation config of its own (InstructBLIP,
            BLIP-2), both count, and the outer one wins.
    """
    found: dict[str, Any] = {}
    for config in _configs(model)[::-1]:
        for name in (*GENERATION_SETTINGS, *_OTHERS):
            value = getattr(config, name, None)
            if not value or value == _PLAIN.get(name):
                continue
            found[name] = value
    return found


def end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """The ids that end an answer: those of the model, of its language model and of the tokenizer together.

    Raises:
        IavaError: if a generation config holds something else than token ids.
    """
    found = [config.eos_token_id for config in _configs(model)] + [tokenizer.eos_token_id]
    ends = [id for ids in found if ids is not None for id in (ids if isinstance(ids, list) else [ids])]
    wrong = [id for id in ends if not isinstance(id, int)]
    if wrong:
        raise IavaError(f"eos_token_id in the generation config is {wrong[0]!r}: it must hold token ids")
    return sorted(set(ends))


def generation_config(model: Any, tokenizer: Any, max_new_tokens: int, generation: Generation) -> GenerationConfig:
    """The generation config of a call.

    Args:
        model: the vision-language model.
        tokenizer: of its processor.
        max_new_tokens: the length limit of an answer.
        generation: settings beyond the method's. "checkpoint" takes those of `checkpoint_settings` that can be applied.

    Raises:
        IavaError: if a setting is unknown or its value is out of range.
    """
    asked = asked_settings(model, generation)
    for name, value in asked.items():
        _check_value(name, value)
    ends = end_tokens(model, tokenizer)
    pads = [config.pad_token_id for config in _configs(model)] + [tokenizer.pad_token_id, *ends[:1]]
    try:
        return ExactGenerationConfig(
            **_NEUTRAL | asked,
            max_new_tokens=max_new_tokens,
            eos_token_id=ends or None,
            pad_token_id=next((id for id in pads if id is not None), None),
        )
    except (ValueError, TypeError) as error:
        raise IavaError(f"generation is {asked!r}: {reason_of(error)}") from None


def asked_settings(model: Any, generation: Generation) -> dict[str, Any]:
    """The settings that `generation` stands for.

    Raises:
        IavaError: if one is unknown.
    """
    if generation is None:
        return {}
    if generation == "checkpoint":
        return {name: value for name, value in checkpoint_settings(model).items() if name in GENERATION_SETTINGS}
    if not isinstance(generation, Mapping):
        raise IavaError(f'generation is {generation!r}: it must be "checkpoint" or settings such as {{"min_p": 0.1}}')
    for name in generation:
        if name not in GENERATION_SETTINGS:
            raise IavaError(f"generation has no setting {name!r}: use one of {', '.join(GENERATION_SETTINGS)}")
    return dict(generation)


def _check_value(name: str, value: Any) -> None:
    if name not in _CHECKS or not value:
        return
    try:
        _CHECKS[name](value)
    except (ValueError, TypeError, AttributeError) as error:
        raise IavaError(f"generation sets {name} to {value!r}: {reason_of(error)}") from None


_CHECKS: dict[str, Callable[[Any], Any]] = {
    "bad_words_ids": NoBadWordsLogitsProcessor,
    "epsilon_cutoff": EpsilonLogitsWarper,
    "eta_cutoff": EtaLogitsWarper,
    "min_p": MinPLogitsWarper,
    "no_repeat_ngram_size": NoRepeatNGramLogitsProcessor,
    "repetition_penalty": RepetitionPenaltyLogitsProcessor,
    "sequence_bias": SequenceBiasLogitsProcessor,
    "temperature": TemperatureLogitsWarper,
    "top_k": TopKLogitsWarper,
    "top_p": TopPLogitsWarper,
    "typical_p": TypicalLogitsWarper,
}
"""What refuses a value that is out of range when it is made with it."""


def _configs(model: Any) -> list[Any]:
    """The generation configs of the model and of its language model, the outer one first."""
    parts = [model, getattr(model, "language_model", None)]
    configs = [getattr(part, "generation_config", None) for part in parts]
    return [config for config in configs if config is not None]


_mode_lock = Lock()
_running: WeakKeyDictionary[torch.nn.Module, tuple[int, list[torch.nn.Module]]] = WeakKeyDictionary()


@contextmanager
def evaluation_mode(model: torch.nn.Module) -> Iterator[None]:
    """Turns dropout off while at least one call runs, and puts every module's mode back after the last."""
    with _mode_lock:
        count, training = _running.get(model, (0, []))
        if count == 0:
            training = [module for module in model.modules() if module.training]
            for module in training:
                module.training = False
        _running[model] = (count + 1, training)
    try:
        yield
    finally:
        with _mode_lock:
            count, training = _running.pop(model)
            if count > 1:
                _running[model] = (count - 1, training)
            else:
                for module in training:
                    module.training = True
