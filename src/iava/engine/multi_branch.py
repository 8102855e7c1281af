"""Several branches, one batch, Hugging Face's own decoding loops.

The multi-branch model looks like the model to `GenerationMixin._sample` and `_beam_search`. Its forward runs the rows
of all branches together, and returns one row of logits for each prompt. Sampling, beams, stopping criteria and logits
processors therefore work as they do in `generate`.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from transformers import PreTrainedModel

from iava.engine import hf
from iava.engine.boundary import capture
from iava.engine.branch import Branch
from iava.engine.caches.merging import Layout, lay_side_by_side, merge_caches, select_main_branch
from iava.engine.caches.prefix_cache import PrefixCache, may_share, read_together
from iava.engine.edit import Edits
from iava.engine.passes.lagging import LaggingBranches
from iava.engine.passes.packed import read_beside
from iava.engine.passes.pieces import read_branches
from iava.engine.passes.steps import Steps
from iava.engine.probe import last_row
from iava.engine.prompt import Prompt, image_mask, prompt_of

Branches = Callable[[Prompt], Sequence[Branch]]
Combine = Callable[[torch.Tensor, list[torch.Tensor], int], torch.Tensor]
Beside = Callable[[Prompt], Sequence[Edits] | None]
Hook = Callable[[PreTrainedModel, torch.Tensor, int, int], AbstractContextManager[None]]


class MultiBranchModel(hf.LoopModel):
    """A model whose logits come from several branches.

    Args:
        model: the real model; it is not changed.
        vlm: the vision-language model; another than `model` where that hands decoding to its language model.
        branches: the contrast branches, given the prompt that the main branch has read. None: there are none.
        combine: (main logits (B, V), the contrast branches' logits, each (B, V), number of the step from 0) -> logits
            (B, V), all float32.
        beside: the edits of another text of each prompt whose attention to the image `branches` asks for, given the
            prompt that is not read yet. None: there is none, or it cannot be read beside the prompt.
        settled: whether the main branch's logits, (B, V) float32, decide the step by themselves. Then the contrast
            branches do not run; they catch up when they are needed. None: they run in each step, beside the main one.
        hook: entered around each run of the prompts and of new tokens; given the model, (R, T) bool, which of the T
            tokens so far are the image's, how many rows are the main branch's, which come first, and the number of the
            step from 0, in which the prompts are read. The other rows are a contrast branch's. It may make the decoder
            give twice as many rows; the others are then contrast logits.
        prefix_cache: what was read of images before, and what is read of them now.
        shares: whether prompts that begin alike are read together.
        unfinished: returns the numbers of the prompts that need more tokens, in order. It is asked before each step.
            The rows of other prompts leave the batch and the cache, and their logits are zero. Not for beam search.
            None keeps all rows.
        generate_kwargs: see `Prompt`.
        seed: see `Prompt`.
        generator: for beam sampling, see `hf.LoopModel`.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        vlm: PreTrainedModel,
        *,
        branches: Branches | None,
        combine: Combine,
        beside: Beside | None = None,
        settled: Callable[[torch.Tensor], torch.Tensor] | None = None,
        hook: Hook | None = None,
        prefix_cache: PrefixCache | None = None,
        shares: bool = True,
        unfinished: Callable[[], Sequence[int]] | None = None,
        generate_kwargs: dict[str, Any],
        seed: int,
        generator: torch.Generator | None = None,
    ) -> None:
        # A hook's decisions are no part of a compiled call.
        super().__init__(model, generator, compiles=hook is None)
        self._vlm = vlm
        self._branches = branches
        self._combine = combine
        self._beside = beside
        self._hook = hook
        self._prefix_cache = prefix_cache
        self._shares = shares
        self._unfinished = unfinished
        self._about: dict[str, Any] = {"generate_kwargs": generate_kwargs, "seed": seed}
        self._step = 0
        self._prompts = 0
        # The prompts whose rows are in the batch, in order. None: all.
        self._kept: torch.Tensor | None = None
        self._rows = 0
        self._is_image: Any = None
        self._layout: Layout | None = None
        self._steps: Steps | None = None
        self._settled = settled
        self._lagging: LaggingBranches | None = None
        # Puts the contrast branches' rows into the cache.
        self._join_branches: Callable[[], Layout] | None = None

    def prefill(self, input_ids: torch.Tensor, model_kwargs: dict[str, Any], read: Callable[[], hf.Outputs]) -> Any:
        self._rows = self._prompts = len(input_ids)
        prompt, outputs = self._read_together(input_ids, model_kwargs, read)
        if self._branches is None:
            if self._hook is not None:
                self._is_image = image_mask(self._vlm, input_ids) if prompt is None else prompt.is_image
            if outputs is None:
                with self._hooked(self._is_image):
                    outputs = read()
            return self._combined(outputs)
        if outputs is None:
            prompt, outputs = self._read_beside(prompt, input_ids, model_kwargs, read)
        if prompt is None or outputs is None:
            is_image = image_mask(self._vlm, input_ids) if self._hook is not None else None
            with capture(self.model) as captured, last_row(self.model) as rows, self._hooked(is_image):
                outputs = read()
            prompt = self._prompt(input_ids, model_kwargs, captured)
            prompt.rows = rows
        self._is_image = prompt.is_image
        branches = list(self._branches(prompt))

        def hooks(branch: Branch) -> AbstractContextManager[None]:
            return self._hooked(branch.is_image, contrast=True)

        watch = None if self._hook is None else hooks
        logits, caches = read_branches(self.model, branches, watch, prompt.largest_run)
        if self._settled is not None:
            self._lagging = LaggingBranches(self.model, branches, caches)
            return self._combined(outputs, logits)
        length, main, read_main = input_ids.shape[1], outputs[hf.CACHE], prompt.main
        unpadded, images = bool(prompt.host[1].all()), self._hook is not None

        def join() -> Layout:
            layout = lay_side_by_side(read_main, branches, complete=unpadded, images=images)
            merge_caches(main, length, branches, caches, layout.left_pad)
            return layout

        # Whoever wants one token only, as many benchmarks do, need not pay for it.
        self._join_branches = join
        return self._combined(outputs, logits)

    def prepare_inputs_for_generation(self, input_ids: torch.Tensor, **kwargs: Any) -> dict[str, Any]:
        """All branches get the same new tokens, at their own positions and with their own mask."""
        self._join()
        if self._unfinished is not None:
            self._leave_out_finished(kwargs[hf.CACHE])
        if self._kept is not None:
            input_ids, kwargs = self._of_kept(input_ids, kwargs)
        steps = self._begun_steps(kwargs.get("attention_mask"))
        if steps is None:
            return self.model.prepare_inputs_for_generation(input_ids, **kwargs)
        columns = input_ids.shape[1] + self._left_pad
        kwargs["attention_mask"] = None if steps.complete else steps.mask(columns)
        if not steps.complete and hf.takes_additive_mask(self.model, kwargs.get(hf.CACHE)):
            kwargs["attention_mask"] = steps.additive(columns, self.model.dtype)
        for name in hf.ROW_INPUTS:
            if kwargs.get(name) is not None:
                kwargs[name] = torch.cat([kwargs[name]] * steps.branches)
        if kwargs.get("position_ids") is not None:
            kwargs["position_ids"] = steps.positions(kwargs["position_ids"][..., -1:])
        return self.model.prepare_inputs_for_generation(input_ids.repeat(steps.branches, 1), **kwargs)

    def step(self, run: Callable[..., hf.Outputs], inputs: dict[str, Any]) -> hf.Outputs:
        with self._hooked_step():
            outputs = run(**inputs)
        if self._lagging is None:
            return self._combined(outputs)
        assert self._settled is not None
        self._lagging.add(inputs["input_ids"])
        # The host must know what to run next, so it waits.
        settled = bool(self._settled(outputs.logits[:, -1].float()))
        return self._combined(outputs, [] if settled else self._lagging.logits())

    def reorder(self, cache: Any, beams: torch.Tensor) -> None:
        self._join()
        # The contrast branches' rows follow the same beams.
        count = 1 if self._layout is None else 1 + len(self._layout.mask) // self._rows
        cache.reorder_cache(self._of_branches(beams, count))

    def select_main(self, cache: Any) -> None:
        """Leaves the main branch's rows in the cache; the others are of no use to who goes on from here."""
        select_main_branch(cache, self._rows, self._left_pad)

    @property
    def _left_pad(self) -> int:
        return 0 if self._layout is None else self._layout.left_pad

    def _join(self) -> None:
        if self._join_branches is not None:
            self._layout, self._join_branches = self._join_branches(), None

    def _begun_steps(self, mask: torch.Tensor | None) -> Steps | None:
        """What the decoding steps get; None without contrast branches. `mask` is the prompts', and ones behind it."""
        if self._steps is None and self._layout is not None:
            length = self._is_image.shape[1]
            self._steps = Steps(None if mask is None else mask[:, :length], self._is_image, self._layout)
        return self._steps

    def _leave_out_finished(self, cache: Any) -> None:
        """Takes the rows of prompts that are finished out of the cache and the layout, where there are any."""
        assert self._unfinished is not None
        before = list(range(self._prompts)) if self._kept is None else self._kept.tolist()
        left = set(self._unfinished())
        chosen = [row for row, prompt in enumerate(before) if prompt in left]
        if not chosen or len(chosen) == len(before):
            return
        rows = torch.tensor(chosen, device=self.model.device)
        self.reorder(cache, rows)
        self._kept = torch.tensor([before[row] for row in chosen], device=rows.device)
        if self._layout is not None:
            self._layout = self._layout.of(self._of_branches(rows, len(self._layout.mask) // self._rows))
        if self._is_image is not None:
            self._is_image = self._is_image[rows]
        self._rows, self._steps = len(chosen), None

    def _of_kept(self, input_ids: torch.Tensor, kwargs: dict[str, Any]) -> tuple[torch.Tensor, dict[str, Any]]:
        """A step's inputs for the prompts whose rows are in the batch."""
        chosen = dict(kwargs)
        for name in ("attention_mask", *hf.ROW_INPUTS):
            if kwargs.get(name) is not None:
                chosen[name] = kwargs[name][self._kept]
        positions = kwargs.get("position_ids")
        if positions is not None and positions.shape[-2] > 1:
            chosen["position_ids"] = positions[..., self._kept, :]
        return input_ids[self._kept], chosen

    def _of_branches(self, rows: torch.Tensor, count: int) -> torch.Tensor:
        """The numbers of the same rows in each of `count` branches, (count * R,)."""
        return torch.cat([rows + self._rows * number for number in range(count)]).long()

    def _read_together(
        self, input_ids: torch.Tensor, model_kwargs: dict[str, Any], read: Callable[[], hf.Outputs]
    ) -> tuple[Prompt | None, hf.Outputs | None]:
        """Reads the prompts if some begin alike, or if it is to be kept how they begin."""
        token = getattr(self._vlm.config, "image_token_id", None)
        if not self._shares or token is None:
            return None, None
        pixels = self._about["generate_kwargs"].get("pixel_values")
        if not may_share(input_ids, pixels, token, keeps=self._prefix_cache is not None):
            return None, None
        prompt = self._unread(input_ids, model_kwargs, read)

        def hooks(branch: Branch) -> AbstractContextManager[None]:
            return self._hooked(branch.is_image)

        return prompt, read_together(prompt, self._prefix_cache, hooks, probe=self._branches is not None)

    def _read_beside(
        self,
        prompt: Prompt | None,
        input_ids: torch.Tensor,
        model_kwargs: dict[str, Any],
        read: Callable[[], hf.Outputs],
    ) -> tuple[Prompt | None, hf.Outputs | None]:
        """Reads the prompts and another text of each in one pass, if the method wants one and the model allows it."""
        able = self._beside is not None and self._shares and hf.takes_additive_mask(self.model)
        if not able or self._hook is not None:
            return prompt, None
        prompt = self._unread(input_ids, model_kwargs, read) if prompt is None else prompt
        edits = self._beside(prompt) if self._beside is not None else None
        return prompt, None if edits is None else read_beside(prompt, edits)

    def _unread(self, input_ids: torch.Tensor, model_kwargs: dict[str, Any], read: Callable[[], hf.Outputs]) -> Prompt:
        """The prompts as the decoder would be given them."""
        with capture(self.model, stop=True) as captured:
            read()
        return self._prompt(input_ids, model_kwargs, captured)

    def _hooked(self, is_image: torch.Tensor | None, contrast: bool = False) -> AbstractContextManager[None]:
        """The method's hook around a run of one branch: (B, T) bool, where its image tokens are."""
        if self._hook is None or is_image is None:
            return nullcontext()
        return self._hook(self.model, is_image, 0 if contrast else len(is_image), self._step)

    def _hooked_step(self) -> AbstractContextManager[None]:
        """The method's hook around a run of one new token for each row of all branches."""
        if self._hook is None:
            return nullcontext()
        columns = self._is_image.shape[1] + self._step
        if self._steps is None:
            is_image = torch.nn.functional.pad(self._is_image, (0, self._step))
        else:
            is_image = self._steps.is_image(columns + self._left_pad)
        return self._hook(self.model, is_image, self._rows, self._step)

    def _prompt(self, input_ids: torch.Tensor, model_kwargs: dict[str, Any], captured: dict[str, Any]) -> Prompt:
        cache = model_kwargs[hf.CACHE]
        return prompt_of(self.model, self._vlm, input_ids, captured, model_kwargs, cache, **self._about)

    def _combined(self, outputs: hf.Outputs, contrast_logits: list[torch.Tensor] | None = None) -> hf.Outputs:
        """One row of logits for each prompt, of all branches': the contrast branches' follow the main branch's rows."""
        main, rest = outputs.logits[: self._rows, -1], outputs.logits[self._rows :, -1]
        if contrast_logits is None:
            contrast_logits = list(rest.split(self._rows)) if len(rest) else []
        # Half precision would lose the difference of two nearly equal rows.
        if len(outputs.logits) > self._rows:
            self._show_main_branch(outputs)
        main, *contrast_logits = (self._of_all(one.float()) for one in (main, *contrast_logits))
        outputs.logits = self._combine(main, contrast_logits, self._step)[:, None]
        self._step += 1
        return outputs

    def _of_all(self, logits: torch.Tensor) -> torch.Tensor:
        """(B, V) for all prompts, out of those of the prompts whose rows are in the batch."""
        if self._kept is None:
            return logits
        return logits.new_zeros(self._prompts, logits.shape[1]).index_copy(0, self._kept.to(logits.device), logits)

    def _show_main_branch(self, outputs: hf.Outputs) -> None:
        """Leaves the main branch's rows in the attentions and hidden states that a caller asked for."""
        left_pad = self._left_pad
        if outputs.get("attentions") is not None:
            outputs.attentions = tuple(layer[: self._rows, ..., left_pad:] for layer in outputs.attentions)
        if outputs.get("hidden_states") is not None:
            outputs.hidden_states = tuple(layer[: self._rows] for layer in outputs.hidden_states)
