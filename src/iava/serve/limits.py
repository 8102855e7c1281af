"""What a server grants a request. Every limit has its own error."""

from dataclasses import dataclass

from iava.methods.checks import check_number, check_whole


@dataclass(frozen=True)
class Limits:
    """Bounds on requests and on what the server keeps.

    Args:
        body: bytes of a request's body; more is a 413.
        pixels: of all images of a request together; more is a 400.
        images: of a request; more is a 400.
        prompt_tokens: image tokens included; more is a 400. None: what the model's positions hold.
        new_tokens: of an answer, and the default where a request names no number; more is a 400.
        queue: requests that wait or run; one more is a 429.
        seconds: from the request's first byte to the answer's last; later is a 504.
        batch: rows that are decoded together.
        window: seconds that a batch waits for more rows.
        image_bytes: of encoded images and prefixes that are kept.
        page_bytes: of explorer pages that are kept.
        page_seconds: how long an explorer page is kept.

    Raises:
        IavaError: if a bound is out of range.
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
