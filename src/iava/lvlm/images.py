"""Reading an image from any source as RGB, or one line that says why it cannot be read."""

import base64
import binascii
import io
import os
import re
import stat
import warnings
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from iava.errors import IavaError, reason_of
from iava.lvlm.remote import Remote, fetch, short

ImageSource = str | os.PathLike[str] | bytes | BinaryIO | Image.Image | np.ndarray

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "QOI")
"""Pillow's names of the formats that are read. Others, such as EPS, would start programs of their own."""
MAX_SIDE = 20_000
"""Largest width and height, in pixels."""
MAX_PIXELS = 50_000_000
"""Largest width times height, unless a caller says otherwise."""
MAX_ASPECT = 100
"""Largest ratio of the sides. Processors enlarge the shorter side to hundreds of pixels, and the longer with it."""

_SILENCE = Lock()
_IMAGE_DATA_URI = re.compile(r"data:(?:image/[\w.+-]+)?(?:;[\w.+-]+=[\w.+-]+)*;base64,", re.IGNORECASE)


def read_image(source: ImageSource, *, max_pixels: int = MAX_PIXELS, remote: Remote = False) -> Image.Image:
    """Reads an image as RGB, rotated as its EXIF data say, with transparency laid over white.

    Args:
        source: a path, a data URI, an http(s) address, the bytes of an image file, an open binary file, a PIL image, or
            a uint8 array: (H, W) grey, (H, W, 3) RGB or (H, W, 4) RGBA. Palette, CMYK and 16-bit images are converted.
            Of an animation the first frame is read.
        max_pixels: largest width times height.
        remote: whether addresses may be fetched: True allows all, a function is asked for each address and redirect.

    Returns:
        A new PIL image in mode RGB.

    Raises:
        IavaError: if it is missing, empty, broken, in a format that is not in `FORMATS`, larger than 20,000 pixels a
            side or `max_pixels` in all, or more than 100 times as long as wide, or if an address may not be fetched.
    """
    if isinstance(source, Image.Image):
        return _guarded("the image", lambda: _to_rgb(_checked_size(source, "the image", max_pixels)))
    if isinstance(source, np.ndarray):
        return _to_rgb(_from_array(source, max_pixels))
    if isinstance(source, bytes):
        return _decode(io.BytesIO(source), "the image in the given bytes", max_pixels)
    if isinstance(source, str) and source[:5].lower() == "data:":
        return _decode(io.BytesIO(_data_uri(source)), "the image in the data URI", max_pixels)
    if isinstance(source, str) and source.startswith(("http://", "https://")):
        return _decode(io.BytesIO(fetch(source, remote)), f"the image at {short(source)}", max_pixels)
    if isinstance(source, str | os.PathLike):
        return _from_file(source, max_pixels)
    if hasattr(source, "read"):
        return _decode(_seekable(source), "the image in the given file", max_pixels)
    raise IavaError(
        f"an image cannot be read from {type(source).__name__}: give a path, bytes, a PIL image or an array"
    )


def _from_file(source: str | os.PathLike[str], max_pixels: int) -> Image.Image:
    name = os.fspath(source)
    what = f"the image {name!r}"
    try:
        # Not Path.exists: it takes a loop of links, or a name that is too long, for a missing file.
        kind = Path(source).stat().st_mode
        if stat.S_ISDIR(kind):
            raise IavaError(f"{name!r} is a folder, not an image file")
        if not stat.S_ISREG(kind):
            raise IavaError(f"{name!r} is a device or a pipe, not an image file")
        with Path(source).open("rb") as file:
            return _decode(file, what, max_pixels)
    except FileNotFoundError:
        raise IavaError(f"there is no image at {name!r}") from None
    except OSError as error:
        raise IavaError(f"{what} cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        if isinstance(error, IavaError):
            raise
        # A name with a null character, or with half of a pair of surrogates.
        raise IavaError(f"there is no image at {name!r}: {reason_of(error)}") from None


def _seekable(source: BinaryIO) -> io.BytesIO:
    try:
        data = source.read()
    except (OSError, ValueError) as error:
        raise IavaError(f"the image in the given file cannot be read: {error}") from None
    if not isinstance(data, bytes):
        raise IavaError('the image in the given file cannot be read: open the file in binary mode, "rb"')
    return io.BytesIO(data)


def _data_uri(text: str) -> bytes:
    head = _IMAGE_DATA_URI.match(text)
    if head is None:
        raise IavaError(f"the data URI {text[:40]!r} holds no image: it must begin like data:image/png;base64,")
    try:
        return base64.b64decode(text[head.end() :], validate=True)
    except (binascii.Error, ValueError) as error:
        raise IavaError(f"the image in the data URI is broken: {error}") from None


def _decode(file: BinaryIO, what: str, max_pixels: int) -> Image.Image:
    if not file.read(1):
        raise IavaError(f"{what} is empty (0 bytes)")
    file.seek(0)

    def decode() -> Image.Image:
        # Warnings are the whole process's, so one thread at a time silences them, and only while headers are read.
        with _SILENCE, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Pillow knows the names of formats only once all are loaded.
            Image.init()
            image = Image.open(file, formats=FORMATS)
        return _to_rgb(_checked_size(image, what, max_pixels), new=True)

    return _guarded(what, decode)


def _guarded(what: str, decode: Callable[[], Image.Image]) -> Image.Image:
    """Runs a decoder, which raises whatever its author wrote for data that it does not expect."""
    try:
        return decode()
    except IavaError:
        raise
    except UnidentifiedImageError:
        raise IavaError(f"{what} is not in a format that is read here: use JPEG, PNG, WebP, GIF, BMP or TIFF") from None
    except Image.DecompressionBombError:
        raise IavaError(f"{what} is too large: it has more than {MAX_PIXELS:,} pixels") from None
    except MemoryError:
        raise IavaError(f"{what} does not fit into memory") from None
    except Exception as error:
        raise IavaError(f"{what} is broken: {reason_of(error)}") from None


def _checked_size(image: Image.Image, what: str, max_pixels: int) -> Image.Image:
    width, height = image.size
    if width < 1 or height < 1:
        raise IavaError(f"{what} has no pixels ({width} x {height})")
    if max(width, height) > MAX_SIDE or width * height > max_pixels:
        raise IavaError(
            f"{what} is too large ({width} x {height}): at most {MAX_SIDE:,} pixels a side and {max_pixels:,} in all "
            "are read; max_pixels raises the second limit"
        )
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise IavaError(f"{what} is too narrow ({width} x {height}): one side may be {MAX_ASPECT} times the other")
    return image


def _from_array(array: np.ndarray, max_pixels: int) -> Image.Image:
    if array.dtype != np.uint8:
        raise IavaError(f"the image array has dtype {array.dtype}: it must be uint8, 0 to 255")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise IavaError(f"the image array has shape {array.shape}: it must be (H, W), (H, W, 3) or (H, W, 4)")
    if 0 in array.shape:
        raise IavaError(f"the image array has no pixels: its shape is {array.shape}")
    return _checked_size(Image.fromarray(np.ascontiguousarray(array)), "the image array", max_pixels)


def _to_rgb(image: Image.Image, *, new: bool = False) -> Image.Image:
    """Converts an image; one that is new may be changed in place, so that it is in memory only once."""
    if new:
        ImageOps.exif_transpose(image, in_place=True)
    else:
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        # Pillow cuts 16 bits off at 255 instead of scaling them.
        scaled = ((np.arange(65536, dtype=np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
        return Image.fromarray(np.take(scaled, np.asarray(image), mode="clip")).convert("RGB")
    if image.mode == "F":
        raise IavaError("the image has floating-point pixels, whose range is unknown: convert it to 8 bits first")
    if image.has_transparency_data:
        over_white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(over_white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")
