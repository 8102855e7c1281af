"""Reads the images of a request: data URIs, and addresses of hosts that the operator allows. Files are never read."""

import base64
import binascii
import hashlib
import io
import re
import time
import warnings
from collections.abc import Callable, Sequence
from urllib.parse import unquote_to_bytes
from weakref import WeakValueDictionary

from PIL import Image

from iava.errors import IavaError
from iava.lvlm.images import FORMATS, read_image
from iava.serve.errors import ApiError
from iava.serve.images.fetch import Fetcher
from iava.serve.limits import Limits

_ANY_DATA_URI = re.compile(r"data:(?P<type>[\w.+/-]*)(?:;[\w=.+-]+)*?(?P<base64>;base64)?,", re.ASCII | re.IGNORECASE)


class ImageReader:
    """Reads the images of requests. Any thread may use it.

    Args:
        limits: limits of the server.
        fetcher: fetches http and https addresses.
    """

    def __init__(self, limits: Limits, fetcher: Fetcher) -> None:
        self._limits = limits
        self._fetcher = fetcher
        # Equal bytes give the same image object, as long as something else holds it.
        self._known: WeakValueDictionary[bytes, Image.Image] = WeakValueDictionary()

    def read(self, urls: Sequence[tuple[str, str]], deadline: float, hold: Callable[[int], None]) -> list[Image.Image]:
        """Reads the images of a request, in order, as RGB.

        Args:
            urls: (name of the field, `image_url.url`) of each image.
            deadline: `time.monotonic()` at which the request must be answered.
            hold: called with the number of bytes that an image will take, before it is decoded.

        Raises:
            ApiError: 400 if an image is refused or cannot be read; 504 if fetching takes too long; the errors of
                `hold`.
        """
        limits = self._limits
        if len(urls) > limits.images:
            raise ApiError(
                400,
                f"the request has {len(urls)} images: at most {limits.images} are served",
                param=urls[limits.images][0],
                code="too_many_images",
            )
        images: list[Image.Image] = []
        left = limits.pixels
        for field, url in urls:
            data = _bytes_of(url, field, self._fetcher, limits, deadline)
            pixels = _pixels(data)
            left -= pixels
            if left < 0:
                message = f"the images have too many pixels: at most {limits.pixels:,} together are served"
                raise ApiError(400, message, param=field, code="image_too_large")
            hold(3 * pixels)
            images.append(self._decoded(data, field))
        return images

    def _decoded(self, data: bytes, field: str) -> Image.Image:
        digest = hashlib.sha256(data).digest()
        image = self._known.get(digest)
        if image is None:
            try:
                image = read_image(data, max_pixels=self._limits.pixels)
            except IavaError as error:
                raise ApiError(400, str(error), param=field, code="invalid_image") from None
            image = self._known.setdefault(digest, image)
        return image


def is_remote(url: str) -> bool:
    """Whether an image must be fetched from another host."""
    return url[:8].lower().startswith(("http://", "https://"))


def _bytes_of(url: str, field: str, fetcher: Fetcher, limits: Limits, deadline: float) -> bytes:
    head = _ANY_DATA_URI.match(url)
    if head is not None:
        return _decoded(url[head.end() :], head["base64"] is not None, field)
    if is_remote(url):
        if time.monotonic() >= deadline:
            raise ApiError(504, "the images took too long to fetch", param=field, code="timeout")
        return fetcher.fetch(url, field, limits.body, deadline)
    raise ApiError(
        400,
        f"{field} is {url[:40]!r}: it must be a data URI (data:image/png;base64,...) or an http(s) address",
        param=field,
        code="invalid_image_url",
    )


def _decoded(text: str, is_base64: bool, field: str) -> bytes:
    if not is_base64:
        return unquote_to_bytes(text)
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ApiError(400, f"{field}: the data URI is not valid base64", param=field, code="invalid_image") from None


def _pixels(data: bytes) -> int:
    """The number of pixels according to the header of an image file; 0 for other data."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                return image.width * image.height
    except Exception:  # Decoders raise any exception for broken files, and `read_image` reports the reason.
        return 0
