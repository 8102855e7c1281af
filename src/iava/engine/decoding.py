"""One call of `generate`, decoded with a method's branches."""

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel, StoppingCriteriaList
from transformers.generation import LogitsProcessor, LogitsProcessorList
from transformers.generation.utils import GenerateOutput

from iava.engine import hf
from iava.engine.boundary import check_served
from iava.engine.caches.prefix_cache import PrefixCache
from iava.engine.draws import Draw
from iava.engine.multi_branch import Beside, Branches, Combine, Hook, MultiBranchModel
from iava.engine.tap import check_attention, held
from iava.errors import IavaError


def decode(
    model: PreTrainedModel,
    input_ids: torch.Tensor,
    *,
    vlm: PreTrainedModel | None,
    branches: Branches | None,
    combine: Combine,
    beside: Beside | None = None,
    settled: Callable[[torch.Tensor], torch.Tensor] | None = None,
    hook: Hook | None,
    sampling: bool | None,
    warpers: list[LogitsProcessor],
    prefix_cache: PrefixCache | None = None,
    unfinished: Callable[[], Sequence[int]] | None = None,
    seed: int | None = None,
    generators: Sequence[torch.Generator] | None = None,
    logits_processor: LogitsProcessorList,
    stopping_criteria: StoppingCriteriaList,
    generation_config: GenerationConfig,
    **model_kwargs: Any,
) -> GenerateOutput | torch.Tensor:
    """Runs the decoding loop that `generation_config` asks for, over all branches.

    Args:
        model: the model on which `generate` was called.
        input_ids: (B, S), left padded, as are the rest of the arguments, which `generate` passes to its loop.
        vlm: the vision-language model; None: `model`.
        branches, combine, beside, settled, hook, prefix_cache, unfinished: see `MultiBranchModel`.
        sampling: True to draw tokens, False to take the best, None to do as `generate` was told.
        warpers: applied to the combined logits after `generate`'s own processors, where tokens are drawn.
        seed: of a generator that this call's draws come from. None: tokens are drawn from torch's global generator,
            as `generate` draws them.
        generators: one for each prompt that `generate` was given, from which its tokens are drawn instead.

    Raises:
        IavaError: if the model, an option of `generate`, or the cache cannot be served.
    """
    vlm = vlm or model
    arguments = hf.generate_arguments(model)
    hf.check_options(generation_config, arguments)
    cache = model_kwargs.get(hf.CACHE)
    # Whoever gets the cache back goes on from the main branch's rows.
    returned = generation_config.return_dict_in_generate or arguments.get(hf.CACHE) is not None
    if cache is None:
        cache = model_kwargs[hf.CACHE] = hf.new_cache(model)
    several = branches is not None or hook is not None
    if several:
        check_served(vlm)
        _check_call(model, input_ids, cache, hf.generate_arguments(vlm))
    model_kwargs["use_cache"] = True
    config = copy.copy(generation_config)
    # A prompt that is read in pieces passes the decoder's boundary more than once.
    config.prefill_chunk_size = None
    config.do_sample = config.do_sample if sampling is None else sampling
    _connect_streamer(model_kwargs, arguments, config, input_ids)
    processors, criteria, generator = [*logits_processor], [*stopping_criteria], None
    if config.do_sample:
        processors += warpers
        if generators is None and seed is not None:
            generators = [torch.Generator(input_ids.device).manual_seed(seed)]
        if generators is not None:
            generator = generators[0]
            if config.num_beams == 1:
                draw = Draw(generators)
                processors, criteria, config.do_sample = [*processors, draw], [draw.restored, *criteria], False
    loop_model = MultiBranchModel(
        model,
        vlm,
        branches=branches,
        combine=combine,
        beside=beside,
        # Beams would have to carry the tokens that a branch has not read.
        settled=settled if config.num_beams == 1 and hook is None and unfinished is None else None,
        hook=hook,
        prefix_cache=prefix_cache,
        shares=_shares(config, cache),
        unfinished=unfinished,
        generate_kwargs=hf.generate_arguments(vlm),
        seed=torch.initial_seed() if seed is None else seed,
        generator=generator,
    )
    # A compiled step must find no hooks on the model. Only a cache of fixed size can be compiled for.
    watched = (several or prefix_cache is not None) and (hook is not None or not cache.is_compileable)
    watch: AbstractContextManager[None] = held(model) if watched else nullcontext()
    with watch:
        try:
            return hf.decoding_loop(model, config)(
                loop_model,
                input_ids,
                logits_processor=LogitsProcessorList(processors),
                stopping_criteria=StoppingCriteriaList(criteria),
                generation_config=config,
                **model_kwargs,
            )
        finally:
            if returned:
                loop_model.select_main(cache)


def _check_call(model: Any, input_ids: torch.Tensor, cache: Any, arguments: dict[str, Any]) -> None:
    """Refuses calls that a method with contrast branches, or with a hook, cannot serve."""
    if input_ids.shape[1] == 0:
        raise IavaError("generate was given inputs_embeds alone, which do not say where the image is: add input_ids")
    if arguments.get("pixel_values_videos") is not None:
        raise IavaError("the method reads images, not videos: leave out pixel_values_videos, or show frames as images")
    if hf.recomputes(model):
        raise IavaError("gradient checkpointing in train mode keeps no cache to decode with: call model.eval()")
    check_attention(model)
    kind = hf.cache_kind(cache)
    if kind is not None:
        raise IavaError(
            f"the cache is {kind}, and branches cannot stand side by side in it: use a dynamic or a static cache"
        )
    if cache.get_seq_length() > 0:
        raise IavaError(f"{hf.CACHE} already holds tokens: the method must read the whole prompt, leave it out")


def _shares(config: GenerationConfig, cache: Any) -> bool:
    """Whether prompts may share what they begin with: not where each one's own states or cache are asked for."""
    shown = config.return_dict_in_generate and (config.output_attentions or config.output_hidden_states)
    return not shown and hf.cache_kind(cache) is None and cache.get_seq_length() == 0


def _connect_streamer(
    model_kwargs: dict[str, Any], arguments: dict[str, Any], config: GenerationConfig, input_ids: torch.Tensor
) -> None:
    """Gives the loop the streamer, which `generate` drops for a loop that is a Python object."""
    bound, given = model_kwargs.get("streamer"), arguments.get("streamer")
    streamer = given if bound is None else bound
    if streamer is None:
        return
    if config.num_beams > 1:
        raise IavaError("beam search has no tokens to stream before it ends: leave out streamer, or num_beams")
    model_kwargs["streamer"] = streamer
    if given is not streamer:
        # The first that a streamer gets is the prompt; `generate` has sent it to its own.
        streamer.put(input_ids.cpu())
