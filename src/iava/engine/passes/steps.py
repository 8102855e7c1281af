"""What the rows of all branches get in each decoding step: masks, positions and image columns, written once per run."""

import torch

from iava.engine.caches.merging import Layout

ROOM = 256
"""By so many columns the buffers grow. A multiple of 16: kernels read masks with such strides without a copy."""


class Steps:
    """The inputs of decoding steps, behind R rows of K columns: first the B rows of the main branch, then the others'.

    Each step adds one column that all rows see.

    Args:
        mask: (B, S) long, of the prompts; None where no token is padding.
        is_image: (B, S) bool.
        layout: of the contrast branches.
    """

    def __init__(self, mask: torch.Tensor | None, is_image: torch.Tensor, layout: Layout) -> None:
        main = torch.ones_like(is_image, dtype=torch.long) if mask is None else mask
        pad = layout.left_pad, 0
        self.branches = 1 + len(layout.mask) // len(is_image)
        self.complete = layout.complete
        """Whether every row sees every column: without a mask the kernels are faster."""
        self._mask = torch.cat([torch.nn.functional.pad(main, pad), layout.mask.to(main)])
        self._additive: torch.Tensor | None = None
        self._is_image: torch.Tensor | None = None
        if layout.is_image is not None:
            self._is_image = torch.cat([torch.nn.functional.pad(is_image, pad), layout.is_image])
        offset = layout.position_offset
        none = torch.zeros_like(offset[..., : len(is_image), :])
        self._offset = torch.cat([none, offset], dim=-2)

    def mask(self, columns: int) -> torch.Tensor:
        """(R, columns) long, 1 at columns that a row may see."""
        self._grow(columns)
        return self._mask[:, :columns]

    def additive(self, columns: int, dtype: torch.dtype) -> torch.Tensor:
        """(R, 1, 1, columns) float: 0 at columns that a row may see, the lowest number at the others."""
        self._grow(columns)
        if self._additive is None or self._additive.shape[-1] < columns:
            self._additive = (self._mask == 0).to(dtype).mul_(torch.finfo(dtype).min)[:, None, None]
        return self._additive[..., :columns]

    def is_image(self, columns: int) -> torch.Tensor:
        """(R, columns) bool. The layout must know where image tokens are."""
        self._grow(columns)
        assert self._is_image is not None
        return self._is_image[:, :columns]

    def positions(self, last: torch.Tensor) -> torch.Tensor:
        """(..., 1 or B, 1) positions of the main branch's new tokens -> (..., R, 1), those of all rows."""
        own = last.expand(*last.shape[:-2], self._offset.shape[-2] // self.branches, 1)
        return torch.cat([own] * self.branches, dim=-2) + self._offset

    def _grow(self, columns: int) -> None:
        more = -(-columns // ROOM) * ROOM - self._mask.shape[1]
        if columns > self._mask.shape[1]:
            self._mask = torch.nn.functional.pad(self._mask, (0, more), value=1)
            if self._is_image is not None:
                self._is_image = torch.nn.functional.pad(self._is_image, (0, more))
