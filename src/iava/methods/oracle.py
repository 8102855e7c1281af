"""The oracle: what the contrast would give if the region that answers the question were known."""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Self

import numpy as np
import torch

from iava.engine.prompt import Prompt
from iava.errors import IavaError
from iava.methods.controls_vstar import NoImage
from iava.methods.words import says

Box = tuple[float, float, float, float]
"""(x0, y0, x1, y1) in pixels of the original picture."""


class Oracle(NoImage):
    """Everything but the region that answers the question is kept: an upper bound, because somebody must know it.

    Takes what `NoImage` takes. The regions come from `with_regions`; a benchmark that knows them calls it.
    """

    name, title = "oracle", "oracle V*"
    control = False
    _boxes: Callable[[int], np.ndarray | None] | None = None
    _regions: Mapping[str, Sequence[Box]] = {}

    def with_regions(self, boxes: Callable[[int], np.ndarray | None], regions: Mapping[str, Sequence[Box]]) -> Self:
        """A copy for questions about one picture.

        Args:
            boxes: for a number of image tokens N, the part of the picture that each of them shows, (N, 4) in the order
                of the prompt; None where that is not known.
            regions: question -> the boxes that answer it. For a thing that is not there, they should be those of one
                that is, drawn at random: no box at all would say that the answer is no.
        """
        informed = copy.copy(self)
        informed._boxes, informed._regions = boxes, regions
        return informed

    def _keep(self, prompt: Prompt, valid: torch.Tensor) -> torch.Tensor:
        if self._boxes is None or self.processor is None:
            raise IavaError(
                "oracle must know which region answers: use `iava eval pope --model pocket`, or with_regions"
            )
        keep = valid.clone()
        for row, there in enumerate(valid):
            boxes = self._boxes(int(there.sum()))
            if boxes is None:
                kind = prompt.vlm.config.model_type
                raise IavaError(f"oracle does not know where {kind}'s image tokens look: use a model whose are patches")
            left, top, right, bottom = boxes.T
            for x0, y0, x1, y1 in self._regions_of(prompt.input_ids[row]):
                inside = np.logical_and.reduce([left < x1, top < y1, right > x0, bottom > y0])
                keep[row, : len(inside)] &= ~torch.from_numpy(inside).to(keep.device)
        return keep

    def _regions_of(self, ids: torch.Tensor) -> Sequence[Box]:
        asked = [question for question in self._regions if says(ids, question, self.processor.tokenizer)]
        if not asked:
            raise IavaError("oracle knows the regions of other questions than the one it is asked")
        return self._regions[max(asked, key=len)]
