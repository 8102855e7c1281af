"""The same prompts with other text in the question's place, without reading again what the text does not change.

In a causal decoder, everything before the first changed token has the same keys and values. So an edit costs what
follows it: those tokens run behind the cached prompt. The image is never read again.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from iava.engine.boundary import run
from iava.engine.branch import Branch
from iava.engine.cache import shared_prefix
from iava.engine.layout import Row, lay_out
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
    counts = prompt.is_image.sum(dim=1).tolist()
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
        for row, found in zip(rows, over_images(attention, branch.is_image), strict=True):
            known[row][keys[row]] = found[..., : counts[row]]
    every = [attention[key] for attention, key in zip(known, keys, strict=True)]
    width = max(counts)
    return torch.stack([torch.nn.functional.pad(one, (0, width - one.shape[-1])) for one in every])


def _after_images(prompt: Prompt, row: int, edits: Edits, features: torch.Tensor | None) -> tuple[int, ...] | None:
    """The new tokens behind a prompt's last image token; None where the edits change what stands before."""
    end = int((prompt.tokens[row] < prompt.image_end[row]).sum())
    if features is not None or any(edit.start < end for edit in edits):
        return None
    return tuple(apply(prompt.ids(row), edits)[end:])


def _edited(prompt: Prompt, rows: Sequence[int], edits: Sequence[Edits], features: torch.Tensor | None) -> Branch:
    """Some prompts after their edits: behind the shared prefix where there is one, else from their start."""
    every = [_edited_row(prompt, row, own) for row, own in zip(rows, edits, strict=True)]
    if features is not None:
        _, valid = pack(prompt.is_image)
        embeddings = prompt.main.embeddings.clone()
        embeddings[prompt.is_image] = features[valid].to(embeddings)
        return lay_out(replace(prompt, main=replace(prompt.main, embeddings=embeddings)), every)
    # The last token runs again in any case.
    starts = [min([edit.start for edit in own] + [len(row.columns) - 1]) for row, own in zip(every, edits, strict=True)]
    short = [row.from_token(start) for row, start in zip(every, starts, strict=True)]
    new_images = any(prompt.is_image[row.prompt, row.columns[row.columns >= 0]].any() for row in short)
    if not (new_images and prompt.main.token_types is not None):
        ends = torch.stack([prompt.tokens[row][start - 1] + 1 for row, start in zip(rows, starts, strict=True)])
        # One more: a layer with a window keeps one column less than it sees.
        more = max(len(row.columns) for row in short) + 1
        prefix = shared_prefix(prompt, ends, more, rows) if min(starts) > 0 else None
        if prefix is not None:
            columns = torch.arange(prefix.get_seq_length(), device=ends.device)
            seen = prompt.main.mask[list(rows), : len(columns)].bool() & (columns < ends[:, None])
            return lay_out(prompt, short, prefix, seen)
    return lay_out(prompt, every)


def _edited_row(prompt: Prompt, row: int, edits: Edits) -> Row:
    columns, positions = prompt.tokens[row], prompt.main.positions[..., row, :]
    device = columns.device
    parts, done = [], 0
    # How far positions are ahead of what they were, by dimension.
    shift = torch.zeros_like(positions[..., :1])
    for edit in edits:
        new = torch.tensor(edit.tokens, dtype=torch.long, device=device)
        kept = columns[done : edit.start]
        first = _position(prompt, row, edit.start) + shift
        parts.append((kept, torch.zeros_like(kept), positions[..., kept] + shift))
        parts.append((torch.full_like(new, -1), new, first + torch.arange(len(new), device=device)))
        shift = first + len(new) - _position(prompt, row, edit.stop)
        done = edit.stop
    kept = columns[done:]
    parts.append((kept, torch.zeros_like(kept), positions[..., kept] + shift))
    sources, tokens, places = (torch.cat(part, dim=-1) for part in zip(*parts, strict=True))
    return Row(row, sources, places, tokens)


def _position(prompt: Prompt, row: int, index: int) -> torch.Tensor:
    """(..., 1) the position of a prompt's token; behind the last one, the position that follows."""
    columns = prompt.tokens[row]
    inside = min(index, len(columns) - 1)
    return prompt.main.positions[..., row, columns[inside : inside + 1]] + (index - inside)
