"""Where does the gain of IAVA+ come from: the choice of tokens for V*, or the centring on the text-only logits?"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from iava.engine.branch import Branch
from iava.engine.negatives import negative_image
from iava.engine.prompt import Prompt
from iava.evaluation.plan import Plan
from iava.evaluation.runner import Advance
from iava.lvlm.model import LVLM
from iava.methods.base import Method
from iava.methods.controls_vstar import RandomTokens, RelevantTokens
from iava.methods.iava import IAVA
from iava.methods.iava_plus import IAVAPlus, centred
from iava.methods.oracle import Oracle
from iava.methods.sid import least_attended
from iava.studies.compare import compare_methods, difference_figure, write_study

LEAST_ATTENDED_SHARE = 0.4
"""The share of image tokens that V* keeps if it keeps those with the lowest attention under the question."""


class LeastAttended(IAVA):
    """V* keeps the tokens with the lowest attention under the question, whatever their general attention."""

    def _select(self, prompt: Prompt, general: torch.Tensor, query: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        return least_attended(query, valid, LEAST_ATTENDED_SHARE)


class CentredWholeImage(IAVAPlus):
    """V* is the whole image, so the result is (1 - alpha) * l + alpha * l(text) without any selection."""

    def _select(self, prompt: Prompt, general: torch.Tensor, query: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        return valid


class CentredLeastAttended(IAVAPlus, LeastAttended):
    """IAVA+ with the V* of `LeastAttended`."""


class CentredRandom(IAVAPlus, RandomTokens):
    """IAVA+ with a V* of random tokens, as many as IAVA selects."""


class CentredRelevant(IAVAPlus, RelevantTokens):
    """IAVA+ with a V* of the tokens whose attention rises most, as many as IAVA selects."""


class CentredOracle(Oracle):
    """IAVA+ with a V* of everything outside the region that answers the question."""

    def branches(self, prompt: Prompt) -> list[Branch]:
        _, valid = prompt.images
        return [
            *super().branches(prompt),
            negative_image(self.negative, prompt, torch.zeros_like(valid), self.strength),
        ]

    def combine(self, main: torch.Tensor, contrast_logits: list[torch.Tensor], step: int) -> torch.Tensor:
        irrelevant, text = contrast_logits
        return centred(main, irrelevant, text, self.alpha)


VARIANTS: dict[str, type[Method]] = {
    "irrelevant": IAVA,
    "least attended": LeastAttended,
    "relevant": RelevantTokens,
    "random": RandomTokens,
    "oracle": Oracle,
    "irrelevant, centred": IAVAPlus,
    "least attended, centred": CentredLeastAttended,
    "relevant, centred": CentredRelevant,
    "random, centred": CentredRandom,
    "oracle, centred": CentredOracle,
    "the whole image, centred": CentredWholeImage,
}
"""Name of a variant in the tables -> its class."""


def contrast_variants(settings: dict[str, Any], *, oracle: bool) -> list[Method]:
    """Each choice of V* with IAVA's contrast and with the centred contrast of IAVA+, all with the same settings.

    Args:
        settings: of IAVA. Each variant uses those that it has.
        oracle: whether to include the variants that need the region that answers the question.
    """
    variants = []
    for name, kind in VARIANTS.items():
        if oracle or not issubclass(kind, Oracle):
            own = kind().settings()
            variant = kind(**{key: value for key, value in settings.items() if key in own})
            variant.name = name
            variants.append(variant)
    return variants


def run_centred_study(lvlm: LVLM, plan: Plan, folder: Path, advance: Advance = lambda *_: None) -> dict[str, Any]:
    """Measures all variants, and writes results.json, table.md and plot.png.

    Args:
        plan: of "greedy" and "iava". Its settings replace the defaults of IAVA+ for all variants.

    Returns:
        See `compare_methods`.

    Raises:
        IavaError: see `iava.evaluation.runner.evaluate`.
    """
    settings = IAVAPlus(**plan.methods["iava"]).settings()
    regions_known = all(question.region is not None for question in plan.task.questions)
    variants = [
        variant.bind(lvlm.model, lvlm.processor) for variant in contrast_variants(settings, oracle=regions_known)
    ]
    heading = f"V* and the contrast (alpha={settings['alpha']}, top_i={settings['top_i']})"
    plan = replace(plan, methods={"greedy": {}})
    results, table = compare_methods(
        lvlm, plan, folder, advance, reference="random, centred", heading=heading, variants=variants
    )
    return write_study(folder, results, table, difference_figure(results["outcomes"]))
