"""What a decoding run left behind, as an explanation of each answer."""

from typing import Any

import torch
from PIL import Image
from transformers import PreTrainedModel, ProcessorMixin

from iava.lvlm.answers import Explanation, Looks
from iava.lvlm.boxes import look_boxes, token_boxes
from iava.methods.trace import Trace

CANDIDATES = 10
"""How many candidate tokens of a step an explanation keeps."""


def explanation(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    picture: Image.Image,
    trace: Trace,
    looks: list[torch.Tensor],
    row: int,
    steps: int,
) -> Explanation:
    """Explains one answer of a batch.

    Args:
        picture: what was asked about.
        trace: of the run, with candidates.
        looks: what the Q-Former looked at each time it ran, see `engine.qformer.looks`; empty where there is none.
        row: the answer's place in the batch.
        steps: how many steps led to it.
    """
    reading = {key: value[row].cpu() for key, value in trace.reading.items()}
    valid = reading.pop("valid", None)
    top_i, lam = reading.pop("top_i", None), reading.pop("lam", None)
    kept = {key: value[..., valid] for key, value in reading.items()}
    return Explanation(
        att_general=kept.get("att_general"),
        att_query=kept.get("att_query"),
        layers_general=kept.get("layers_general"),
        layers_query=kept.get("layers_query"),
        selected=kept.get("selected"),
        boxes=None if valid is None else token_boxes(model, processor, picture, int(valid.sum())),
        steps=[
            {kind: _candidates(processor, ids[row], p[row]) for kind, (ids, p) in step.items()}
            for step in trace.steps[:steps]
        ],
        # The Q-Former reads the question first, and the general instruction if it is given its own.
        looks=Looks(looks[-1][row].cpu(), looks[0][row].cpu(), look_boxes(model, processor, picture))
        if looks
        else None,
        top_i=None if top_i is None else int(top_i),
        # The shortest decimal that is the same in single precision: -0.1, not -0.10000000149.
        lam=None if lam is None else float(str(lam.numpy()[()])),
        heads_general=kept.get("heads_general"),
        heads_query=kept.get("heads_query"),
    )


def shares(trace: Trace, rows: int) -> list[float] | list[None]:
    """Of each row's image tokens how many were selected, as a share of 1; None where the method selects none."""
    if "selected" not in trace.reading:
        return [None] * rows
    valid = trace.reading["valid"]
    return ((trace.reading["selected"] & valid).sum(dim=1) / valid.sum(dim=1)).tolist()


def _candidates(processor: Any, ids: torch.Tensor, probabilities: torch.Tensor) -> list[dict[str, Any]]:
    return [
        {"id": token, "text": processor.decode([token]), "probability": probability}
        for token, probability in zip(ids.tolist(), probabilities.tolist(), strict=True)
        if probability > 0
    ]
