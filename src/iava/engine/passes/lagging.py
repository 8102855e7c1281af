"""Contrast branches that run only when their logits are wanted, and then catch up in one pass."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from transformers import DynamicCache, PreTrainedModel

from iava.engine.boundary import run
from iava.engine.branch import Branch


@dataclass
class LaggingBranches:
    """Contrast branches behind their prompts, and the new tokens that they have not read.

    Args:
        model: the model that runs the decoding loop.
        branches: what each branch has read.
        caches: what each was read into.
    """

    model: PreTrainedModel
    branches: Sequence[Branch]
    caches: Sequence[DynamicCache]
    _waiting: list[torch.Tensor] = field(default_factory=list)

    def add(self, tokens: torch.Tensor) -> None:
        """Notes the main branch's new tokens, (B, 1) ids."""
        self._waiting.append(tokens)

    def logits(self) -> list[torch.Tensor]:
        """Each branch's logits behind all tokens so far, (B, V), once it has read those that it lacks in one pass."""
        tokens = torch.cat(self._waiting, dim=1)
        self._waiting.clear()
        embeddings = self.model.get_input_embeddings()(tokens)
        self.branches = [
            self._longer(branch, embeddings, cache) for branch, cache in zip(self.branches, self.caches, strict=True)
        ]
        return [run(self.model, branch).logits[:, -1] for branch in self.branches]

    def _longer(self, branch: Branch, embeddings: torch.Tensor, cache: DynamicCache) -> Branch:
        count = embeddings.shape[1]
        ahead = torch.arange(1, count + 1, device=branch.positions.device)
        return replace(
            branch,
            embeddings=embeddings.to(branch.embeddings),
            positions=branch.positions[..., -1:] + ahead,
            mask=torch.nn.functional.pad(branch.mask, (0, count), value=1),
            is_image=torch.nn.functional.pad(branch.is_image, (0, count)),
            prefix=cache,
            token_types=None,
            deepstack=None,
        )
