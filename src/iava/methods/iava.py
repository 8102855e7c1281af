"""IAVA: contrast with an image of which only the tokens irrelevant to the question are left.

Instruction-Aligned Visual Attention for Mitigating Hallucinations in Large Vision-Language Models
(arXiv 2503.18556, ICME 2025). No code was published: where the paper is silent, the parameters say what was chosen.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import torch
from transformers import PreTrainedModel, ProcessorMixin

from iava.engine.boundary import Prompt, pack
from iava.engine.negatives import NEGATIVES
from iava.engine.prefix import Instruction, attention_under
from iava.engine.probe import mean_attention, over_images
from iava.engine.qformer import features_under
from iava.errors import IavaError
from iava.methods.base import Method
from iava.methods.checks import check_choice, check_contrast, check_lam, check_layers, check_text, check_top_i
from iava.methods.select import criteria, select_irrelevant
from iava.methods.trace import Trace

PUBLISHED_LAM = {"llava": 0.0, "instructblip": -0.1}  # by Hugging Face model type; others take 0


class IAVA(Method):
    """Instruction-aligned visual attention (arXiv 2503.18556).

    Image tokens that get much attention under a general instruction and less under the question are irrelevant to
    it. The second branch sees only those; what it says is subtracted.

    Args:
        processor: the model's processor, which writes the general instruction; it must have a chat template.
        general: the general instruction.
        top_i: how many tokens with the largest fall of attention may be selected: an int is a count, a float in
            (0, 1] a share of the image's tokens. The paper asks for a moderate number. "auto" finds it in each
            prompt's own attention (`select.criteria`); so it does for lam.
        lam: attention under the general instruction must lie above mean + lam * std over the image's tokens. None
            takes the published value: 0.0 for LLaVA, -0.1 for InstructBLIP, 0.0 for others. Or "auto".
        alpha: strength of the contrast, at least 0.
        beta: plausibility, 0 to 1; see `contrast`.
        negative: how the others are masked: "drop" takes them out of the sequence (best on tune, docs/papers.md),
            "zeros" zeroes their embeddings, "hide" keeps what follows the image from looking at them, "pixels" paints
            their patches over and reads the image again. Where none is selected, all are masked: only text is left.
        layers: whose attention is averaged: "all", or decoder layer indices, negative ones from the end.
        qformer: what InstructBLIP's Q-Former reads in the general pass: its "own" general instruction, or the
            "query", as in the question's pass.
        model: InstructBLIP and BLIP-2 hand decoding to their language model, which does not know the image: for them
            this is the vision-language model itself. Others need none.

    Raises:
        IavaError: if a parameter is out of range.

    Example:
        >>> method = IAVA(processor, top_i=0.2)
        >>> model.generate(**inputs, custom_generate=method, max_new_tokens=64)
    """

    name = "iava"
    paper: ClassVar[str | None] = "2503.18556"
    cost = "2 in one batch, and the general instruction once"
    negatives: ClassVar[Sequence[str]] = tuple(NEGATIVES)

    def __init__(
        self,
        processor: ProcessorMixin | None = None,
        *,
        general: str = "Describe this image.",
        top_i: int | float | str = 0.2,
        lam: float | str | None = None,
        alpha: float = 1.0,
        beta: float = 0.1,
        negative: str = "drop",
        layers: str | Sequence[int] = "all",
        qformer: str = "own",
        model: PreTrainedModel | None = None,
    ) -> None:
        check_text("general", general, 'an instruction such as "Describe this image."')
        check_top_i(top_i)
        if lam is not None:
            check_lam(lam)
        check_contrast(alpha, beta)
        check_choice("negative", negative, self.negatives)
        check_choice("qformer", qformer, ("own", "query"))
        self.processor = processor
        self.general = general
        self.top_i = top_i
        self.lam = lam
        self.alpha = alpha
        self.beta = beta
        self.negative = negative
        self.reads_pixels = negative == "pixels"
        self.layers = check_layers(layers)
        self.qformer = qformer
        self.model = model
        self._instruction: Instruction | None = None

    def settings(self) -> dict[str, Any]:
        names = ("general", "top_i", "lam", "alpha", "beta", "negative", "layers", "qformer")
        return {name: getattr(self, name) for name in names}

    def bind(self, model: PreTrainedModel, processor: ProcessorMixin) -> Self:
        bound = super().bind(model, processor)
        bound.lam = self._lam_for(model)
        bound._instruction = None
        return bound

    def second(self, prompt: Prompt, trace: Trace | None) -> dict[str, Any]:
        query = over_images(prompt.rows, prompt.is_image)
        general = self._under_general(prompt)
        att_query, att_general = mean_attention(query, self.layers), mean_attention(general, self.layers)
        _, valid = pack(prompt.is_image)
        keep = self._select(prompt, att_general, att_query, valid)
        if trace is not None:
            asked = self._lam_for(prompt.outer)
            top_i, lam = criteria(att_general, att_query, top_i=self.top_i, lam=asked, valid=valid)
            trace.reading = {"selected": keep, "valid": valid, "top_i": top_i[:, 0], "lam": lam[:, 0]}
            for name, heads, mean in (("general", general, att_general), ("query", query, att_query)):
                each = {f"heads_{name}": heads, f"layers_{name}": heads.mean(dim=2), f"att_{name}": mean}
                trace.reading |= each
        return self._negative(prompt, keep)

    def _select(self, prompt: Prompt, general: torch.Tensor, query: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """The image tokens that the second branch keeps, by attention to them: (B, N) floats -> bool."""
        lam = self._lam_for(prompt.outer)
        return select_irrelevant(general, query, top_i=self.top_i, lam=lam, valid=valid)

    def _negative(self, prompt: Prompt, keep: torch.Tensor) -> dict[str, Any]:
        return NEGATIVES[self.negative](prompt, keep)

    def _lam_for(self, model: PreTrainedModel) -> float | str:
        return PUBLISHED_LAM.get(model.config.model_type, 0.0) if self.lam is None else self.lam

    def _under_general(self, prompt: Prompt) -> torch.Tensor:
        if self.processor is None:
            raise IavaError("IAVA has no processor to write the general instruction with: use IAVA(processor)")
        if self._instruction is None:
            self._instruction = Instruction(self.processor, self.general, prompt.outer.config.image_token_id)
        features = features_under(prompt, self._instruction) if self.qformer == "own" else None
        return attention_under(prompt, self._instruction, features)
