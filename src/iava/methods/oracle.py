"""The oracle: what the contrast would give if the region that answers the question were known."""

import copy
from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np
import torch
from PIL import Image
from transformers import ProcessorMixin

from iava.engine.boundary import Prompt
from iava.errors import IavaError
from iava.lvlm.boxes import token_boxes
from iava.methods.controls_vstar import NoImage
from iava.methods.words import says

Box = tuple[float, float, float, float]
"""(x0, y0, x1, y1) in pixels of the original picture."""


class Oracle(NoImage):
    """Everything but the region that answers the question is kept: an upper bound, because somebody must know it.

    Takes what `NoImage` takes. Where the answer is, it must be `told`; a benchmark that knows does so.
    """

    name, title = "oracle", "oracle V*"
    control = False
    _picture: Image.Image | None = None
    _regions: Mapping[str, Sequence[Box]] = {}

    def told(self, picture: Image.Image, regions: Mapping[str, Sequence[Box]]) -> Self:
        """A copy for questions about one picture.

        Args:
            picture: what is asked about.
            regions: question -> the boxes that answer it. For a thing that is not there, they should be those of one
                that is, drawn at random: no box at all would say that the answer is no.
        """
        told = copy.copy(self)
        told._picture, told._regions = picture, regions
        return told

    def _keep(self, prompt: Prompt, valid: torch.Tensor) -> torch.Tensor:
        if self._picture is None or self.processor is None:
            raise IavaError("oracle must be told which region answers: use `iava eval pope --model pocket`, or told")
        keep = valid.clone()
        for row, there in enumerate(valid):
            boxes = token_boxes(prompt.outer, self.processor, self._picture, int(there.sum()))
            if boxes is None:
                kind = prompt.outer.config.model_type
                raise IavaError(f"oracle does not know where {kind}'s image tokens look: use a model whose are patches")
            for x0, y0, x1, y1 in self._region(prompt.input_ids[row], self.processor):
                left, top, right, bottom = boxes.T
                inside = np.logical_and.reduce([left < x1, top < y1, right > x0, bottom > y0])
                keep[row, : len(inside)] &= ~torch.from_numpy(inside).to(keep.device)
        return keep

    def _region(self, ids: torch.Tensor, processor: ProcessorMixin) -> Sequence[Box]:
        asked = [question for question in self._regions if says(ids, question, processor.tokenizer)]
        if not asked:
            raise IavaError("oracle was told of other questions than the one it is asked")
        return self._regions[max(asked, key=len)]
