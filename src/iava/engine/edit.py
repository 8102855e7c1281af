"""The same prompts with other text in the question's place, without reading again what the text does not change.

In a causal decoder, everything before the first changed token has the same keys and values. So an edit costs what
follows it: those tokens run behind the cached prompt. The image is never read again.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from iava.engine.boundary import run
from iava.engine.branch import Branch
from iava.engine.caches.cache import shared_prefix
from iava.engine.host import Array, to_device
from iava.engine.layout import BranchRow, lay_out
from iava.engine.probe import last_row, over_images
from iava.engine.prompt import Prompt, pack


@dataclass(frozen=True)
class Edit:
    """A replacement of text tokens in one prompt.

    The prompt becomes `ids[:start] + tokens + ids[stop:]`. No image token lies in `ids[start:stop]`; image tokens may
    stand on either side of it.

    Args:
        start: index of the first replaced token, counted in the prompt's own ids without padding.
        stop: index behind the last replaced token; equal to `start` for an insertion.
        tokens: the new token ids.
    """

    start: int
    stop: int
    tokens: list[int]


Edits = Sequence[Edit]
"""Those of one prompt, from left to right; none leaves it as it is."""


def apply(ids: Sequence[int], edits: Edits) -> list[int]:
    """The token ids of a prompt after its edits."""
    new = list(ids)
    for edit in reversed(edits):
        new[edit.start : edit.stop] = edit.tokens
    return new


def rewritten(prompt: Prompt, edits: Sequence[Edits], features: torch.Tensor | None = None) -> Branch:
    """The same prompts with other text in each.

    Args:
        prompt: what the decoder read; its cache is left as it was.
        edits: those of each prompt.
        features: (B, N, D) what the decoder is fed for the images, where it depends on the text.
    """
    return _edited(prompt, range(len(edits)), edits, features)


def attention_under(prompt: Prompt, edits: Sequence[Edits], features: torch.Tensor | None = None) -> torch.Tensor:
    """The attention to the image of the last token of the same prompts with other text in each.

    Prompts that share a prefix and continue alike behind it are run once, and what was found is kept with the prefix.

    Args: see `rewritten`.

    Returns:
        (B, L, heads, N) float32, as `probe.over_images` gives it.
    """
    if prompt.beside is not None and list(prompt.beside[0]) == list(edits):
        return prompt.beside[1]
    counts = prompt.image_counts
    keys = [_after_images(prompt, row, own, features) for row, own in enumerate(edits)]
    kept = [prefix.attention for prefix in prompt.shared] or [{} for _ in edits]
    known = [{} if key is None else attention for key, attention in zip(keys, kept, strict=True)]
    # Prompts with one key and one prefix give the same; one of them is run.
    missing = {(id(known[row]), key): row for row, key in enumerate(keys) if key not in known[row]}
    if missing:
        rows = list(missing.values())
        branch = _edited(prompt, rows, [edits[row] for row in rows], features)
        with last_row(prompt.model) as attention:
            run(prompt.model, branch)
        for row, found in zip(rows, over_images(attention, *pack(branch.is_image)), strict=True):
            known[row][keys[row]] = found[..., : counts[row]]
    every = [attention[key] for attention, key in zip(known, keys, strict=True)]
    width = max(counts)
    return torch.stack([torch.nn.functional.pad(one, (0, width - one.shape[-1])) for one in every])


def _after_images(prompt: Prompt, row: int, edits: Edits, features: torch.Tensor | None) -> tuple[int, ...] | None:
    """The new tokens behind a prompt's last image token; None where the edits change what stands before."""
    end = images_end(prompt, row)
    if features is not None or any(edit.start < end for edit in edits):
        return None
    return tuple(apply(prompt.ids(row), edits)[end:])


def images_end(prompt: Prompt, row: int) -> int:
    """The number of a prompt's tokens up to its last image token."""
    return int((prompt.tokens[row] < prompt.image_end[row]).sum())


def _edited(prompt: Prompt, rows: Sequence[int], edits: Sequence[Edits], features: torch.Tensor | None) -> Branch:
    """Some prompts after their edits: behind the shared prefix where there is one, else from their start."""
    if features is not None:
        _, valid = prompt.images
        embeddings = prompt.main.embeddings.clone()
        embeddings[prompt.is_image] = features[valid].to(embeddings)
        every = [edited_row(prompt, row, own)[0] for row, own in zip(rows, edits, strict=True)]
        return lay_out(replace(prompt, main=replace(prompt.main, embeddings=embeddings)), every)
    both = [edited_row(prompt, row, own) for row, own in zip(rows, edits, strict=True)]
    every, starts = [row for row, _ in both], [start for _, start in both]
    short = [row.from_token(start) for row, start in both]
    new_images = any(prompt.host[2][row.prompt, row.columns[row.columns >= 0]].any() for row in short)
    if not (new_images and prompt.main.token_types is not None):
        ends = np.array([prompt.tokens[row][start - 1] + 1 for row, start in zip(rows, starts, strict=True)])
        # One more: a layer with a window keeps one column less than it sees.
        more = max(len(row.columns) for row in short) + 1
        prefix = shared_prefix(prompt, ends, more, rows) if min(starts) > 0 else None
        if prefix is not None:
            seen = prompt.host[1][list(rows), : int(ends.max())] & (np.arange(int(ends.max())) < ends[:, None])
            there = to_device(seen, prompt.input_ids.device)
            return lay_out(prompt, short, prefix, there, [int(end) for end in ends])
    return lay_out(prompt, every)


def edited_row(prompt: Prompt, row: int, edits: Edits) -> tuple[BranchRow, int]:
    """A prompt after its edits, and the number of tokens that it shares with the prompt as it was.

    The last token is never shared, because it runs again in any case.
    """
    columns, positions = prompt.tokens[row], prompt.host_positions[..., row, :]
    parts, done = [], 0
    # How far positions are ahead of what they were, by dimension.
    shift = np.zeros_like(positions[..., :1])
    for edit in edits:
        new = np.array(edit.tokens, dtype=np.int64)
        kept = columns[done : edit.start]
        first = _position_of(prompt, row, edit.start) + shift
        parts.append((kept, np.zeros_like(kept), positions[..., kept] + shift))
        parts.append((np.full_like(new, -1), new, first + np.arange(len(new))))
        shift = first + len(new) - _position_of(prompt, row, edit.stop)
        done = edit.stop
    kept = columns[done:]
    parts.append((kept, np.zeros_like(kept), positions[..., kept] + shift))
    sources, tokens, places = (np.concatenate(part, axis=-1) for part in zip(*parts, strict=True))
    return BranchRow(row, sources, places, tokens), min([edit.start for edit in edits] + [len(sources) - 1])


def _position_of(prompt: Prompt, row: int, index: int) -> Array:
    """(..., 1) the position of a prompt's token; behind the last one, the position that follows."""
    columns = prompt.tokens[row]
    inside = min(index, len(columns) - 1)
    return prompt.host_positions[..., row, columns[inside : inside + 1]] + (index - inside)
