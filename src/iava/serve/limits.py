"""Limits on requests and on what the server keeps. Each limit has its own error."""

from dataclasses import dataclass

from iava.methods.checks import check_number, check_whole

_LARGEST_REQUESTS = 10
"""Number of requests of the largest size that the server holds at a time."""


@dataclass(frozen=True)
class Limits:
    """Limits of a server.

    Args:
        body: bytes of a request body. A larger body gets status 413.
        pixels: pixels of all images of a request together. More get status 400.
        images: images of a request. More get status 400.
        prompt_tokens: tokens of a prompt, image tokens included. More get status 400. None: the model's positions.
        new_tokens: tokens of an answer. A request for more gets status 400. It is also the default.
        queue: requests that wait or run. A further request gets status 429.
        seconds: time from the first byte of a request to the last byte of its answer. A later answer is a 504.
        batch: rows of a batch.
        window: seconds that a batch waits for more rows.
        image_bytes: bytes of encoded images and prefixes that are kept.
        page_bytes: bytes of explorer pages that are kept.
        page_seconds: seconds that an explorer page is kept.

    Raises:
        IavaError: if a limit is out of range.
    """

    body: int = 20_000_000
    pixels: int = 50_000_000
    images: int = 8
    prompt_tokens: int | None = None
    new_tokens: int = 1024
    queue: int = 128
    seconds: float = 120.0
    batch: int = 16
    window: float = 0.01
    image_bytes: int = 1_000_000_000
    page_bytes: int = 100_000_000
    page_seconds: float = 1800.0

    def __post_init__(self) -> None:
        for name in ("body", "pixels", "images", "new_tokens", "queue", "batch"):
            check_whole(name, getattr(self, name), low=1)
        for name in ("image_bytes", "page_bytes"):
            check_whole(name, getattr(self, name), low=0)
        if self.prompt_tokens is not None:
            check_whole("prompt_tokens", self.prompt_tokens, low=1)
        for name in ("seconds", "page_seconds"):
            check_number(name, getattr(self, name), low=0, above=True)
        check_number("window", self.window, low=0)

    @property
    def held_bytes(self) -> int:
        """Bytes of bodies and decoded images of all requests that wait or run. More get status 429."""
        return _LARGEST_REQUESTS * (self.body + 3 * self.pixels)
