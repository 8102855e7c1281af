"""The rectangle of each image token in the original image, for each family of image processing.

The rectangle of a thumbnail's token overlaps those of the tiles' tokens. The token that ends a row of tiles has a
rectangle of zero width at the right edge.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image
from transformers import PreTrainedModel, ProcessorMixin
from transformers.image_processing_utils import select_best_resolution
from transformers.image_transforms import get_resize_output_image_size
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas

Size = tuple[int, int]


def token_boxes(
    model: PreTrainedModel, processor: ProcessorMixin, picture: Image.Image, count: int
) -> np.ndarray | None:
    """The rectangles of an image's tokens, in the order of the prompt.

    Args:
        model: the vision-language model.
        processor: its processor.
        picture: the original image.
        count: number of its image tokens.

    Returns:
        (count, 4) float (x0, y0, x1, y1) in pixels of the original. None where the tokens are not patches of the
        image (Q-Formers), or where the family's image processing is not known here.
    """
    find = _FAMILIES.get(model.config.model_type)
    boxes = None if find is None else find(model.config, processor, picture)
    # A vision tower that also returns a class token, as CLIP does, has no such grid.
    return boxes if boxes is not None and len(boxes) == count else None


def qformer_boxes(model: PreTrainedModel, processor: ProcessorMixin, picture: Image.Image) -> np.ndarray:
    """The rectangles of the patches that a Q-Former attends to, (P, 4) like `token_boxes`.

    BLIP-2, InstructBLIP: the image is resized to the processor's size.
    """
    size = processor.image_processor.size
    patch = model.config.vision_config.patch_size
    return _equal_boxes(picture.size, size["height"] // patch, size["width"] // patch)


def patch_boxes(size: tuple[int, int], *, resized: tuple[int, int], crop: tuple[int, int], patch: int) -> np.ndarray:
    """The rectangles of the patches of an image that was resized, centre-cropped and divided into squares.

    Args:
        size: (width, height) of the original, in pixels.
        resized: (width, height) after resizing.
        crop: (width, height) of the centre crop. Parts outside the resized image are padding.
        patch: side of a patch. Pixels on the right and at the bottom that do not fill a patch are dropped.

    Returns:
        (patches, 4) float (x0, y0, x1, y1) in pixels of the original, row by row, clipped to the image.
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


def _equal_boxes(size: Size, rows: int, columns: int) -> np.ndarray:
    """The image divided into equal rectangles, row by row."""
    return patch_boxes((columns, rows), resized=(columns, rows), crop=(columns, rows), patch=1) * np.array(
        [size[0] / columns, size[1] / rows] * 2
    )


def _within(boxes: np.ndarray, region: np.ndarray, size: Size) -> np.ndarray:
    """Boxes of an image of `size`, mapped into a region (x0, y0, x1, y1) of another image."""
    scale = (region[2:] - region[:2]) / np.array(size)
    return boxes * np.tile(scale, 2) + np.tile(region[:2], 2)


def _cropped(config: Any, processor: Any, picture: Image.Image) -> np.ndarray:
    """LLaVA: patches of the resized, centre-cropped image."""
    processing = processor.image_processor.to_dict()
    width, height = picture.size
    resized = picture.size
    if processing["do_resize"]:
        target = processing["size"]
        if target.get("shortest_edge"):
            blank = np.empty((height, width, 1), dtype=np.uint8)
            high, wide = get_resize_output_image_size(
                blank, target["shortest_edge"], default_to_square=False, input_data_format="channels_last"
            )
            resized = (wide, high)
        else:
            resized = (target["width"], target["height"])
    crop = resized
    if processing["do_center_crop"]:
        crop = (processing["crop_size"]["width"], processing["crop_size"]["height"])
    return patch_boxes(picture.size, resized=resized, crop=crop, patch=config.vision_config.patch_size)


def _merged(config: Any, processor: Any, picture: Image.Image) -> np.ndarray:
    """Qwen-VL, GLM-V: the image in its own aspect ratio, several patches for each token."""
    _, rows, columns = processor.image_processor(picture)["image_grid_thw"][0]
    merge = config.vision_config.spatial_merge_size
    return _equal_boxes(picture.size, int(rows) // merge, int(columns) // merge)


def _squeezed(config: Any, processor: Any, picture: Image.Image) -> np.ndarray:
    """Gemma 3, PaliGemma: the image resized to a square with a fixed number of tokens."""
    tokens = getattr(config, "mm_tokens_per_image", None)
    if tokens is None:
        tokens = (config.vision_config.image_size // config.vision_config.patch_size) ** 2
    side = round(tokens**0.5)
    return _equal_boxes(picture.size, side, side)


def _tiled(rows: int, columns: int, side: int, size: Size) -> np.ndarray:
    """Tiles of the image, row by row, with side x side tokens each, then a thumbnail."""
    thumbnail = _equal_boxes(size, side, side)
    if rows * columns <= 1:
        return thumbnail
    tiles = _equal_boxes(size, rows, columns)
    return np.concatenate([*(_within(thumbnail, tile, size) for tile in tiles), thumbnail])


def _internvl(config: Any, processor: Any, picture: Image.Image) -> np.ndarray:
    """InternVL, Aya Vision: the image resized to a grid of square tiles."""
    settings = processor.image_processor
    columns, rows = 1, 1
    if settings.crop_to_patches:
        columns, rows = _best_grid(picture.size, settings)
    image_size = config.vision_config.image_size
    patch_size = config.vision_config.patch_size
    patches = _side(image_size) // _side(patch_size)
    # The factor of one family is the inverse of the other's.
    side = round(patches * config.downsample_ratio) if "internvl" in config.model_type else None
    return _tiled(rows, columns, side or patches // config.downsample_factor, picture.size)


def _best_grid(size: Size, settings: Any) -> Size:
    width, height = size
    tile = (settings.size["height"], settings.size["width"])
    return get_optimal_tiled_canvas((height, width), tile, settings.min_patches, settings.max_patches)


def _side(size: Any) -> int:
    return size[0] if isinstance(size, list | tuple) else size


def _idefics(config: Any, processor: Any, picture: Image.Image) -> np.ndarray:
    """Idefics 3, SmolVLM: the image resized to whole tiles."""
    made = processor.image_processor([[picture]], return_row_col_info=True)
    rows, columns = int(made["rows"][0][0]), int(made["cols"][0][0])
    side = config.vision_config.image_size // config.vision_config.patch_size // config.scale_factor
    return _tiled(max(rows, 1), max(columns, 1), side, picture.size)


def _padded(config: Any, processor: Any, picture: Image.Image) -> np.ndarray | None:
    """LLaVA-NeXT, LLaVA-OneVision: a thumbnail, then padded tiles in the image's aspect ratio with row-end tokens."""
    width, height = picture.size
    tile, patch = config.vision_config.image_size, config.vision_config.patch_size
    high, wide = select_best_resolution((height, width), config.image_grid_pinpoints)
    rows, columns = high // tile * (tile // patch), wide // tile * (tile // patch)
    scale = min(wide / width, high / height)
    # Only whole tokens of padding are removed on both sides.
    if width / height > columns / rows:
        cut_x, cut_y = 0, (rows - int(round(height * columns / width, 7))) // 2
    else:
        cut_x, cut_y = (columns - int(round(width * rows / height, 7))) // 2, 0
    resized = np.array([min(-(-width * scale // 1), wide), min(-(-height * scale // 1), high)])
    margin = (np.array([wide, high]) - resized) // 2
    canvas = _equal_boxes((wide, high), rows, columns).reshape(rows, columns, 4)
    canvas = canvas[cut_y : rows - cut_y, cut_x : columns - cut_x]
    limit = int(config.vision_aspect_ratio.removeprefix("anyres_max_")) if _onevision(config) else None
    if limit is not None:
        ratio = (canvas.shape[0] * canvas.shape[1] / (limit * (tile // patch) ** 2)) ** 0.5
        if ratio > 1.1:
            x0, y0 = canvas[0, 0, :2]
            x1, y1 = canvas[-1, -1, 2:]
            fewer = int(canvas.shape[0] // ratio), int(canvas.shape[1] // ratio)
            whole = _equal_boxes((1, 1), *fewer)
            canvas = _within(whole, np.array([x0, y0, x1, y1]), (1, 1)).reshape(*fewer, 4)
    boxes = (canvas - np.tile(margin, 2)) * np.tile(np.array([width, height]) / resized, 2)
    boxes = boxes.clip(0, np.tile([width, height], 2))
    end = boxes[:, -1:].copy()
    end[..., 0] = end[..., 2]
    boxes = np.concatenate([boxes, end], axis=1).reshape(-1, 4)
    return np.concatenate([_equal_boxes(picture.size, tile // patch, tile // patch), boxes])


def _onevision(config: Any) -> bool:
    return config.model_type == "llava_onevision"


_FAMILIES: dict[str, Callable[[Any, Any, Image.Image], np.ndarray | None]] = {
    "llava": _cropped,
    "vipllava": _cropped,
    "llava_next": _padded,
    "llava_onevision": _padded,
    "qwen2_vl": _merged,
    "qwen2_5_vl": _merged,
    "qwen3_vl": _merged,
    "glm4v": _merged,
    "gemma3": _squeezed,
    "paligemma": _squeezed,
    "internvl": _internvl,
    "aya_vision": _internvl,
    "idefics3": _idefics,
    "smolvlm": _idefics,
}
