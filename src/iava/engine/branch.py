"""What one branch of the batch reads."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import DynamicCache


@dataclass(frozen=True)
class Branch:
    """What the decoder is fed in one branch: B prompts of W columns, left padded, behind P columns of a prefix.

    Every branch has this form, the main one too. What the tokens are that an answer continues from is its last column.

    Args:
        embeddings: (B, W, D).
        positions: (..., B, W); leading dimensions are those of a model with 3-D positions.
        mask: (B, P + W) long, 1 at columns that may be seen.
        is_image: (B, P + W) bool, True at image tokens.
        prefix: keys and values of the P columns before; None: P is 0.
        token_types: (B, W), for families whose outer model makes masks of them.
        begins: for each row the first of its W columns that is no padding; needed to decode behind a prompt.
        sees: for each row the column of the prefix behind the last one that it may see; needed like `begins`.
        deepstack: (T, D) features that single layers add to the T image tokens of all rows, in order.
        others: what else the decoder takes, the same for all branches.
    """

    embeddings: torch.Tensor
    positions: torch.Tensor
    mask: torch.Tensor
    is_image: torch.Tensor
    prefix: DynamicCache | None = None
    token_types: torch.Tensor | None = None
    begins: Sequence[int] = ()
    sees: Sequence[int] = ()
    deepstack: Sequence[torch.Tensor] | None = None
    others: dict[str, Any] = field(default_factory=dict)

    @property
    def prefix_width(self) -> int:
        """P."""
        return self.mask.shape[1] - self.embeddings.shape[1]

    def decoder_inputs(self) -> dict[str, Any]:
        """What the decoder takes beside embeddings, positions and mask."""
        if self.deepstack is None:
            return self.others
        visual = self.is_image[:, self.prefix_width :]
        return {**self.others, "visual_pos_masks": visual, "deepstack_visual_embeds": list(self.deepstack)}
