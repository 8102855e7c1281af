"""Encoded images and their prefixes, kept for later calls within a number of bytes."""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image

from iava.engine.caches.prefix_cache import PrefixCache, SharedPrefix


@dataclass(eq=False)
class KeptImage:
    """An image and everything that was computed for it.

    Args:
        image: RGB.
        processed: output of the image processor.
        features: output of the vision tower.
        prefixes: prefixes of prompts whose last image this is.
    """

    image: Image.Image
    processed: Any = None
    features: Any = None
    prefixes: list[SharedPrefix] = field(default_factory=list)

    @property
    def nbytes(self) -> int:
        """Bytes of memory, on any device."""
        pixels = self.image.width * self.image.height * 3
        made = [*(self.processed or {}).values(), *(self.features or {}).values()]
        return pixels + sum(map(_nbytes, made)) + sum(prefix.nbytes for prefix in self.prefixes)


class ImageMemory:
    """Images by identity, the least recently used first. Belongs to one model and one thread.

    Args:
        max_bytes: largest number of bytes that are kept after `trim`.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._kept: OrderedDict[int, KeptImage] = OrderedDict()
        self.nbytes = 0
        """Number of bytes after the last `trim`."""

    def __len__(self) -> int:
        return len(self._kept)

    def of(self, image: Image.Image) -> KeptImage:
        """Returns the entry of an image, and makes it the most recently used."""
        # The entry holds the image, so its id stays its own.
        kept = self._kept.setdefault(id(image), KeptImage(image))
        self._kept.move_to_end(id(image))
        return kept

    def prefix_cache(self, rows: Sequence[Sequence[Image.Image]]) -> PrefixCache:
        """Returns a prefix cache with the prefixes of the images of each row."""
        last = {id(images[-1]): self.of(images[-1]) for images in rows}
        return PrefixCache([prefix for kept in last.values() for prefix in kept.prefixes])

    def keep_prefixes(self, rows: Sequence[Sequence[Image.Image]], cache: PrefixCache) -> None:
        """Keeps the prefixes that the last call read into `prefix_cache(rows)`."""
        for images, prefix in zip(rows, cache.latest, strict=False):
            prefix.compact()
            kept = self.of(images[-1])
            if not any(prefix is one for one in kept.prefixes):
                kept.prefixes.append(prefix)

    def clear(self) -> None:
        """Removes all images."""
        self._kept.clear()
        self.nbytes = 0

    def trim(self) -> None:
        """Removes the least recently used images until the rest fits."""
        sizes = {key: kept.nbytes for key, kept in self._kept.items()}
        self.nbytes = sum(sizes.values())
        while self.nbytes > self._max_bytes:
            key, _ = self._kept.popitem(last=False)
            self.nbytes -= sizes[key]


def _nbytes(value: Any) -> int:
    if isinstance(value, torch.Tensor | np.ndarray):
        return int(value.nbytes)
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        return sum(map(_nbytes, value))
    return 0
