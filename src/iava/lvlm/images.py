"""Reading images: whatever a user has becomes one RGB picture, or one line that says why not."""

import io
import os
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from iava.errors import IavaError

ImageSource = str | os.PathLike[str] | bytes | Image.Image | np.ndarray

MAX_SIDE = 20_000
"""Pixels; wider or higher images are refused."""
MAX_PIXELS = 178_000_000
"""Width times height; Pillow itself refuses a little more."""
MAX_ASPECT = 100
"""Longer side over shorter: processors enlarge the shorter side to hundreds of pixels, and the longer with it."""


def read_image(source: ImageSource) -> Image.Image:
    """Reads an image as RGB, turned the way its EXIF data say, transparency laid over white.

    Args:
        source: a path, the bytes of an image file, a PIL image, or a uint8 array: (H, W) grey, (H, W, 3) RGB or
            (H, W, 4) RGBA. Palette, CMYK and 16-bit images are converted; of an animation the first frame is read.

    Returns:
        A new PIL image in mode RGB.

    Raises:
        IavaError: if it is missing, empty, broken, no image, larger than 20,000 pixels a side or 178 million
            pixels in all, or more than 100 times as long as wide.
    """
    if isinstance(source, Image.Image):
        return _to_rgb(_checked_size(source, "the image"))
    if isinstance(source, np.ndarray):
        return _to_rgb(_from_array(source))
    if isinstance(source, bytes):
        return _decode(source, "the image in the given bytes")
    if isinstance(source, str | os.PathLike):
        return _decode(_file_bytes(Path(source)), f"the image {os.fspath(source)!r}")
    raise IavaError(
        f"an image cannot be read from {type(source).__name__}: give a path, bytes, a PIL image or an array"
    )


def _file_bytes(path: Path) -> bytes:
    try:
        if not path.exists():
            raise IavaError(f"there is no image at {str(path)!r}")
        if not path.is_file():
            raise IavaError(f"{str(path)!r} is a folder, not an image file")
        return path.read_bytes()
    except OSError as error:
        raise IavaError(f"the image {str(path)!r} cannot be read: {error.strerror}") from None


def _decode(data: bytes, what: str) -> Image.Image:
    if not data:
        raise IavaError(f"{what} is empty (0 bytes)")
    try:
        with warnings.catch_warnings():
            # Pillow warns at half of the size that is refused here.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = _checked_size(Image.open(io.BytesIO(data)), what)
            return _to_rgb(image)
    except UnidentifiedImageError:
        raise IavaError(f"{what} is not in a known image format: use JPEG, PNG, WebP, GIF, BMP or TIFF") from None
    except Image.DecompressionBombError:
        raise IavaError(f"{what} is too large: at most {MAX_PIXELS:,} pixels can be read") from None
    except (OSError, SyntaxError, EOFError) as error:
        raise IavaError(f"{what} is broken: {str(error).splitlines()[0]}") from None


def _checked_size(image: Image.Image, what: str) -> Image.Image:
    width, height = image.size
    if width < 1 or height < 1:
        raise IavaError(f"{what} has no pixels ({width} x {height})")
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise IavaError(
            f"{what} is too large ({width} x {height}): at most {MAX_SIDE:,} pixels a side and {MAX_PIXELS:,} in all "
            "can be read"
        )
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise IavaError(f"{what} is too narrow ({width} x {height}): one side may be {MAX_ASPECT} times the other")
    return image


def _from_array(array: np.ndarray) -> Image.Image:
    if array.dtype != np.uint8:
        raise IavaError(f"the image array has dtype {array.dtype}: it must be uint8, 0 to 255")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise IavaError(f"the image array has shape {array.shape}: it must be (H, W), (H, W, 3) or (H, W, 4)")
    if 0 in array.shape:
        raise IavaError(f"the image array has no pixels: its shape is {array.shape}")
    return _checked_size(Image.fromarray(np.ascontiguousarray(array)), "the image array")


def _to_rgb(image: Image.Image) -> Image.Image:
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        # Pillow cuts 16 bits off at 255 instead of scaling them.
        grey = np.asarray(image).astype(np.float64) * (255 / 65535)
        return Image.fromarray(grey.round().clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise IavaError("the image has floating-point pixels, whose range is unknown: convert it to 8 bits first")
    if image.has_transparency_data:
        over_white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(over_white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def patch_boxes(size: tuple[int, int], *, resized: tuple[int, int], crop: tuple[int, int], patch: int) -> np.ndarray:
    """Where the patches lie in a picture that was resized, cropped around its centre and cut into squares.

    Args:
        size: (width, height) of the original, in pixels.
        resized: (width, height) after resizing.
        crop: (width, height) cut out of its centre; what lies outside the resized picture is padding.
        patch: side of a patch; pixels on the right and at the bottom that fill no patch are seen by none.

    Returns:
        (patches, 4) float (x0, y0, x1, y1) in original pixels, row by row, clipped to the picture.
    """
    edges = []
    for length, small, cut in zip(size, resized, crop, strict=True):
        in_crop = np.arange(cut // patch + 1) * patch
        edges.append(((in_crop + (small - cut) // 2) * length / small).clip(0, length))
    x, y = edges
    columns, rows = len(x) - 1, len(y) - 1
    x0, y0 = np.tile(x[:-1], rows), np.repeat(y[:-1], columns)
    x1, y1 = np.tile(x[1:], rows), np.repeat(y[1:], columns)
    return np.stack([x0, y0, x1, y1], axis=1)
