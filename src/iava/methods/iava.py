"""IAVA: contrast with an image of which only the tokens irrelevant to the question are left.

Instruction-Aligned Visual Attention for Mitigating Hallucinations in Large Vision-Language Models
(arXiv 2503.18556, ICME 2025). No code was published: where the paper is silent, the settings say what was chosen.
"""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, ClassVar

import torch
from transformers import ProcessorMixin

from iava.engine.branch import Branch
from iava.engine.edit import Edit, attention_under
from iava.engine.images.qformer import features_under
from iava.engine.negatives import NEGATIVES, READ_AGAIN, WHOLE_IMAGE, negative_image
from iava.engine.probe import mean_attention, over_images
from iava.engine.prompt import Prompt
from iava.engine.text.instruction import editable
from iava.errors import IavaError
from iava.methods.base import Method
from iava.methods.checks import (
    check_choice,
    check_contrast,
    check_lam,
    check_layers,
    check_number,
    check_text,
    check_top_i,
)
from iava.methods.select import criteria, select_irrelevant


@dataclass(eq=False)
class IAVA(Method):
    """Instruction-aligned visual attention (arXiv 2503.18556).

    Image tokens that get much attention under a general instruction and less under the question are irrelevant to
    it. The contrast branch sees only those; its logits are subtracted.

    Args:
        processor: the model's processor, which writes the general instruction; it must have a chat template.
        general: the general instruction.
        top_i: how many tokens with the largest fall of attention may be selected: an int is a count, a float in
            (0, 1] a share of the image's tokens. The paper asks for a moderate number. "auto" finds it in each
            prompt's own attention (`select.criteria`); so it does for lam.
        lam: any finite number, or "auto"; attention under the general instruction must lie above mean + lam * std over
            the image's tokens. None takes the published value: 0.0 for LLaVA, -0.1 for InstructBLIP, 0.0 for others.
        alpha: strength of the contrast, at least 0.
        beta: plausibility, 0 to 1; see `contrast`.
        negative: how the others are masked: "drop" takes them out of the sequence (best on tune, docs/papers.md),
            "zeros" zeroes their embeddings, "hide" keeps what follows the image from looking at them, "pixels" paints
            their patches over and reads the image again. Where none is selected, all are masked: only text is left.
            "blur" and "lowres" degrade the patches of the others and read the image again. Where none is selected, the
            whole image is degraded.
        strength: of "blur", the standard deviation, and of "lowres", the side of a block, both as a share of the
            image's shorter side; above 0, at most 1.
        layers: whose attention is averaged: "all", or decoder layer indices, negative ones from the end.
        qformer: what InstructBLIP's Q-Former reads in the general pass: its "own" general instruction, or the
            "query", as in the question's pass.

    Raises:
        IavaError: if a setting is out of range.

    Examples:
        >>> out = model.generate(**inputs, custom_generate=iava.IAVA(processor, top_i=0.2), max_new_tokens=8)
        >>> processor.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        ' Yes.'
    """

    processor: ProcessorMixin | None = field(default=None, repr=False)
    _: KW_ONLY
    general: str = "Describe this image."
    top_i: int | float | str = 0.2
    lam: float | str | None = None
    alpha: float = 1.0
    beta: float = 0.1
    negative: str = "drop"
    strength: float = 0.01
    layers: str | Sequence[int] = "all"
    qformer: str = "own"

    name = "iava"
    paper: ClassVar[str | None] = "2503.18556"
    cost = "2 in one batch, and the general instruction once"
    published: ClassVar[dict[str, dict[str, Any]]] = {"lam": {"llava": 0.0, "instructblip": -0.1, "other": 0.0}}
    negatives: ClassVar[Sequence[str]] = NEGATIVES

    def __post_init__(self) -> None:
        super().__post_init__()
        check_text("general", self.general, 'an instruction such as "Describe this image."')
        check_top_i(self.top_i)
        if self.lam is not None:
            check_lam(self.lam)
        check_contrast(self.alpha, self.beta)
        check_choice("negative", self.negative, self.negatives)
        check_number("strength", self.strength, low=0, high=1, above=True)
        check_choice("qformer", self.qformer, ("own", "query"))
        self.layers = check_layers(self.layers)

    @property
    def reads_pixels(self) -> bool:
        return self.negative in READ_AGAIN

    @property
    def own_images(self) -> int:
        return int(self.negative in WHOLE_IMAGE)

    def branches(self, prompt: Prompt) -> list[Branch]:
        query = over_images(prompt.rows, *prompt.images)
        general = self._under_general(prompt)
        att_query, att_general = mean_attention(query, self.layers), mean_attention(general, self.layers)
        _, valid = prompt.images
        keep = self._select(prompt, att_general, att_query, valid)
        top_i, lam = criteria(att_general, att_query, top_i=self.top_i, lam=self._lam, valid=valid)
        prompt.reading = {"selected": keep, "valid": valid, "top_i": top_i[:, 0], "lam": lam[:, 0]}
        for name, heads, mean in (("general", general, att_general), ("query", query, att_query)):
            each = {f"heads_{name}": heads, f"layers_{name}": heads.mean(dim=2), f"att_{name}": mean}
            prompt.reading |= each
        return [self._negative(prompt, keep)]

    def beside(self, prompt: Prompt) -> list[list[Edit]] | None:
        own = self.qformer == "own" and prompt.generate_kwargs.get("qformer_input_ids") is not None
        return None if own else self._edits(prompt)

    @property
    def _lam(self) -> float | str:
        assert self.lam is not None
        return self.lam

    def _select(self, prompt: Prompt, general: torch.Tensor, query: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """The image tokens that the contrast branch keeps, by attention to them: (B, N) floats -> bool."""
        return select_irrelevant(general, query, top_i=self.top_i, lam=self._lam, valid=valid)

    def _negative(self, prompt: Prompt, keep: torch.Tensor) -> Branch:
        return negative_image(self.negative, prompt, keep, self.strength)

    def _under_general(self, prompt: Prompt) -> torch.Tensor:
        """(B, L, heads, N)."""
        edits = self._edits(prompt)
        features = features_under(prompt, edits, self.processor) if self.qformer == "own" else None
        return attention_under(prompt, edits, features)

    def _edits(self, prompt: Prompt) -> list[list[Edit]]:
        """Those that put the general instruction in the question's place."""
        if self.processor is None:
            raise IavaError("IAVA has no processor to write the general instruction with: use IAVA(processor)")
        return [one.replaced(self.general) for one in editable(prompt, self.processor)]
