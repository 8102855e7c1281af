"""Everything that depends on the internals of transformers: private names, and names that differ between releases.

Each seam is found by feature, not by version number. `tests/engine/test_hf.py` has one test per seam.
"""

import copy
import inspect
import sys
from collections.abc import Callable
from typing import Any

import torch
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    CompileConfig,
    DynamicCache,
    GenerationConfig,
    GenerationMixin,
    PreTrainedModel,
    QuantizedCache,
)
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from iava.errors import IavaError

Outputs = Any
"""A model output with `logits` and a cache; each family has its own class."""

CACHE = (
    "cache"
    if "cache" in inspect.signature(GenerationMixin.prepare_inputs_for_generation).parameters
    # Up to 5.23.
    else "past_key_values"
)
"""The name of the cache in arguments of models and layers, in outputs, and in what `generate` passes to its loop."""

ROW_INPUTS = ("token_type_ids", "mm_token_type_ids", "moe_mm_token_type_ids")
"""What a decoding step gets for each row of the batch, beside its mask and its positions."""

TAPPED = "iava_"
"""How the names of attention functions begin that show their calls to hooks."""

UNSERVED_OPTIONS = (
    "assistant_model",
    "prompt_lookup_num_tokens",
    "dola_layers",
    "penalty_alpha",
    "num_beam_groups",
    "force_words_ids",
    "constraints",
    "assistant_early_exit",
    "use_mtp",
)
"""Options of `generate` that choose another loop than sampling or beam search."""


class LoopModel:
    """The model as the loops of `GenerationMixin` see it: their private calls become `prefill`, `step` and `reorder`.

    All else is the wrapped model's.

    Args:
        model: the wrapped model.
        generator: what beam sampling draws from; None: torch's global one.
        compiles: whether steps may run compiled, on the conditions of `generate`.
    """

    def __init__(
        self, model: PreTrainedModel, generator: torch.Generator | None = None, compiles: bool = False
    ) -> None:
        self.model: Any = model
        self.generator = generator
        self.compiles = compiles

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def prefill(self, input_ids: torch.Tensor, model_kwargs: dict[str, Any], read: Callable[[], Outputs]) -> Outputs:
        """Reads the prompts; `read` is what the model would do by itself."""
        raise NotImplementedError

    def reorder(self, cache: Any, beams: torch.Tensor) -> None:
        """Moves the rows of the cache to the beams (B,) that go on."""
        raise NotImplementedError

    def _prefill(
        self,
        input_ids: torch.Tensor,
        generation_config: GenerationConfig,
        model_kwargs: dict[str, Any],
        is_first_iteration: bool = True,
    ) -> Outputs:
        def read() -> Outputs:
            return self.model._prefill(input_ids, generation_config, model_kwargs, is_first_iteration)

        return self.prefill(input_ids, model_kwargs, read)

    def _reorder_cache(self, cache: Any, beams: torch.Tensor) -> Any:
        self.reorder(cache, beams)
        return cache

    def _valid_auto_compile_criteria(self, *criteria: Any) -> bool:
        return self.compiles and self.model._valid_auto_compile_criteria(*criteria)

    def get_compiled_call(self, compile_config: Any) -> Callable[..., Outputs]:
        """What the loop calls in each step where `generate` would call the compiled model."""
        compiled = self.model.get_compiled_call(compile_config)
        return lambda **inputs: self.step(compiled, inputs)

    def __call__(self, **inputs: Any) -> Outputs:
        return self.step(self.model, inputs)

    def step(self, run: Callable[..., Outputs], inputs: dict[str, Any]) -> Outputs:
        """A decoding step: `run` is the model, or the compiled model."""
        raise NotImplementedError

    def _get_top_k_continuations(self, **step: Any) -> Any:
        if step["do_sample"] and self.generator is not None:
            scores = step["accumulated_log_probs"]
            drawn = torch.multinomial(scores.softmax(dim=-1), step["beams_to_keep"], generator=self.generator)
            only_drawn = torch.full_like(scores, -torch.inf).scatter(1, drawn, scores.gather(1, drawn))
            step = {**step, "accumulated_log_probs": only_drawn, "do_sample": False}
        return self.model._get_top_k_continuations(**step)


def decoding_loop(model: PreTrainedModel, config: GenerationConfig) -> Callable[..., Any]:
    """The loop, unbound, that `generate` would run: beam search, or greedy decoding and sampling."""
    mixin: Any = type(model)
    return mixin._beam_search if config.num_beams > 1 else mixin._sample


def check_options(config: GenerationConfig, arguments: dict[str, Any]) -> None:
    """Refuses options of `generate` that choose another loop; `generate` itself ignores them beside a method.

    Args:
        config: what the loop was given.
        arguments: what `generate` was given, see `generate_arguments`.

    Raises:
        IavaError: names the option.
    """
    for name in UNSERVED_OPTIONS:
        value = arguments.get(name, getattr(config, name, None))
        if value and (name, value) != ("num_beam_groups", 1):
            raise IavaError(f"the method cannot serve {name}: leave it out of generate")


def compiled_options(device: torch.device) -> dict[str, Any]:
    """Options of `generate` with which its steps run compiled, on a CPU too."""
    config: Any = CompileConfig() if device.type == "cuda" else CompileConfig(mode="default")
    config._compile_all_devices = device.type != "cuda"
    return {"cache_implementation": "static", "compile_config": config}


def generate_arguments(model: PreTrainedModel) -> dict[str, Any]:
    """What the caller of `model.generate` passed; empty outside of it.

    `generate` reads the image before it calls its loop, and passes on neither the pixels nor the text for a Q-Former.
    transformers has no public way to them, so the frame of `generate` is looked up. Arguments win over local variables
    of the same name, because `generate` repeats some of those for beams.
    """
    frame = sys._getframe(1)
    while frame is not None:
        local = frame.f_locals
        if frame.f_code.co_name == "generate" and local.get("self") is model:
            return {**local, **local.get("kwargs", {})}
        frame = frame.f_back  # type: ignore[assignment]
    return {}


def private_view(model: PreTrainedModel) -> Any:
    """The model, with position offsets of its own.

    Qwen-VL and GLM-V keep the offset of their 3-D positions (`rope_deltas`) on the model from one call to the next.
    The view is a shallow copy: weights, modules and hooks are the model's own, but offsets are written to the copy.
    """
    inner = model.base_model
    if inner is model or not hasattr(inner, "rope_deltas"):
        return model
    view = copy.copy(model)
    view.__dict__["_modules"] = {
        name: copy.copy(module) if module is inner else module for name, module in model._modules.items()
    }
    return view


def prompt_positions(model: PreTrainedModel, input_ids: torch.Tensor, inputs: dict[str, Any]) -> torch.Tensor:
    """(..., B, S) positions as `generate` numbers them; a model's forward numbers the padding, too."""
    return private_view(model)._prepare_position_ids_for_generation(input_ids, inputs)


def recomputes(model: PreTrainedModel) -> bool:
    """Whether a layer computes its activations again for the gradient: many releases then write no cache."""
    decoder = model.get_decoder()
    # The mark is on the decoder, or on its layers; to walk all modules takes as long as many kernels.
    layers = (part for child in decoder.children() for part in child.children())
    return any(part.training and getattr(part, "gradient_checkpointing", False) for part in (decoder, *layers))


def cache_kind(cache: Any) -> str | None:
    """ "quantized" or "offloaded" for caches whose layers do not keep keys and values as they are; None for others."""
    if isinstance(cache, QuantizedCache):
        return "quantized"
    return "offloaded" if cache.offloading else None


def new_cache(model: PreTrainedModel) -> DynamicCache:
    """An empty cache with layers of the kinds that the decoder has."""
    return DynamicCache(config=model.get_decoder().config)


def resize_layer(layer: Any, columns: int) -> int:
    """Tells a cache layer that it was given `columns` more columns, or fewer; returns how many it holds then.

    Raises:
        IavaError: if the layer has no room.
    """
    if hasattr(layer, "cumulative_length"):
        layer.cumulative_length += columns
    if not layer.is_compileable:
        held = layer.keys.shape[2] + columns
        return min(layer.cumulative_length, layer.sliding_window - 1) if layer.is_sliding else held
    if layer.is_sliding and columns:
        raise IavaError(
            "a contrast branch is longer than the prompt, and a static cache with a sliding window has no room for it: "
            "leave out cache_implementation"
        )
    layer.max_cache_len += columns
    return layer.max_cache_len


def fill_layer(layer: Any, keys: torch.Tensor, values: torch.Tensor) -> None:
    """Puts other keys and values into a cache layer, with as many rows as they have."""
    layer.keys, layer.values = keys, values
    if layer.is_compileable:
        layer.batch_size = len(keys)
        # As transformers does for its own: compiled calls then write to these tensors in place.
        torch._dynamo.mark_static_address(layer.keys)
        torch._dynamo.mark_static_address(layer.values)


def column_bytes(model: PreTrainedModel) -> int:
    """Bytes of one token's keys and values in all layers, by the config of the decoder."""
    config: Any = model.get_decoder().config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return 2 * config.num_hidden_layers * heads * width * model.dtype.itemsize


def takes_additive_mask(model: PreTrainedModel, cache: Any = None) -> bool:
    """Whether all layers of the decoder take one mask that is added, (R, 1, Q, K), K the columns in the cache.

    transformers makes such a mask of (R, K) 1 and 0 in each step, and asks the device whether it is needed.
    """
    config = model.get_decoder().config
    kinds = set(getattr(config, "layer_types", None) or ()) | {"full_attention"}
    plain = kinds == {"full_attention"} and getattr(config, "sliding_window", None) is None
    grows = cache is None or isinstance(cache, DynamicCache)
    return plain and grows and attention_name(config).removeprefix(TAPPED) in ("sdpa", "eager")


def attention_name(config: Any) -> str:
    """The name of the attention function that a decoder with this config calls."""
    return config._attn_implementation


def set_attention_name(config: Any, name: str) -> None:
    """Makes a decoder with this config call another registered attention function."""
    config._attn_implementation_internal = name


def register_attention(name: str, like: str, function: Callable[..., Any]) -> None:
    """Registers an attention function that gets its mask in the form that `like` gets it."""
    if name not in ALL_ATTENTION_FUNCTIONS:
        AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS[like])
        AttentionInterface.register(name, function)


def attention_kernel(name: str, module: torch.nn.Module) -> Callable[..., tuple[torch.Tensor, torch.Tensor | None]]:
    """The attention function of that name for an attention module."""
    # Eager attention is the one that each modelling file defines for itself.
    eager: Any = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
    return ALL_ATTENTION_FUNCTIONS.get_interface(name, eager)


def takes_image_features(model: PreTrainedModel) -> bool:
    """Whether `generate` accepts what the vision tower made of the image, as `mm_encoder_outputs`.

    InstructBLIP and BLIP-2 have a `generate` of their own, which encodes the image itself. Early releases of
    transformers 5 have no such argument.
    """
    supports = getattr(model, "_supports_mm_encoder_outputs", None)
    kind: Any = type(model)
    return kind.generate is GenerationMixin.generate and supports is not None and supports()


def image_features_argument(features: Any) -> dict[str, Any]:
    """The argument of `generate` with what `get_image_features` made, where `takes_image_features`."""
    return {"mm_encoder_outputs": {"image": features}}
