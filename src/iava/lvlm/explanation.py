"""Turning the trace of a decoding run into an explanation of each answer."""

from typing import Any

import torch
from PIL import Image
from transformers import PreTrainedModel, ProcessorMixin

from iava.lvlm.answers import CrossAttention, Explanation
from iava.lvlm.boxes import qformer_boxes, token_boxes
from iava.methods.trace import Trace

CANDIDATES = 10
"""Number of candidate tokens that an explanation keeps for each step."""


def explanation(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    picture: Image.Image | None,
    trace: Trace,
    cross_attention: list[torch.Tensor],
    row: int,
    steps: int,
) -> Explanation:
    """Explains one answer of a batch.

    Args:
        picture: the image that was asked about. None where there are several: then no token has a rectangle.
        trace: of the run, with candidate tokens.
        cross_attention: the Q-Former's in each of its runs, see `engine.images.qformer`. Empty without one.
        row: the answer's index in the batch.
        steps: number of decoding steps that led to the answer.
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
        boxes=None if valid is None or picture is None else token_boxes(model, processor, picture, int(valid.sum())),
        steps=[
            {kind: _candidate_texts(processor, ids[row], p[row]) for kind, (ids, p) in step.items()}
            for step in trace.steps[:steps]
        ],
        # The Q-Former runs on the question first, then on the general instruction if that has a run of its own.
        cross_attention=CrossAttention(
            cross_attention[-1][row].cpu(), cross_attention[0][row].cpu(), qformer_boxes(model, processor, picture)
        )
        if cross_attention and picture is not None
        else None,
        top_i=None if top_i is None else int(top_i),
        # The shortest decimal with the same value in single precision: -0.1, not -0.10000000149.
        lam=None if lam is None else float(str(lam.numpy()[()])),
        heads_general=kept.get("heads_general"),
        heads_query=kept.get("heads_query"),
    )


def selected_shares(trace: Trace, rows: int) -> list[float] | list[None]:
    """Share of each row's image tokens that the method selected, 0 to 1. None where it selects none."""
    if "selected" not in trace.reading:
        return [None] * rows
    valid = trace.reading["valid"]
    return ((trace.reading["selected"] & valid).sum(dim=1) / valid.sum(dim=1)).tolist()


def _candidate_texts(processor: Any, ids: torch.Tensor, probabilities: torch.Tensor) -> list[dict[str, Any]]:
    return [
        {"id": token, "text": processor.decode([token]), "probability": probability}
        for token, probability in zip(ids.tolist(), probabilities.tolist(), strict=True)
        if probability > 0
    ]
