"""How another text stands in a prompt's place of the question."""

from dataclasses import dataclass


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
