"""Where does IAVA+'s gain come from: from which tokens are V*, or from leaving the text's own leaning out?"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from iava.engine.boundary import Prompt, pack
from iava.engine.negatives import NEGATIVES
from iava.evaluation.plan import Plan
from iava.evaluation.runner import Advance
from iava.lvlm.model import LVLM
from iava.methods.base import Method
from iava.methods.controls_vstar import RandomTokens, RelevantTokens
from iava.methods.iava import IAVA
from iava.methods.iava_plus import IAVAPlus, centred
from iava.methods.oracle import Oracle
from iava.methods.sid import least_attended
from iava.methods.trace import Trace
from iava.studies.compare import compare, drawing, leave

LEAST = 0.4
"""Which share of the image's tokens is V* where V* is what the question attends to least."""


class Least(IAVA):
    """V* is what the question attends to least; what the general instruction attends to does not matter."""

    def _select(self, prompt: Prompt, general: torch.Tensor, query: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        return least_attended(query, valid, LEAST)


class Everything(IAVAPlus):
    """V* is the whole image: (1 - alpha) * l + alpha * l(text), no selection at all."""

    def _select(self, prompt: Prompt, general: torch.Tensor, query: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        return valid


class CentredLeast(IAVAPlus, Least):
    """V* is what the question attends to least."""


class CentredRandom(IAVAPlus, RandomTokens):
    """V* is as many random tokens as IAVA selects."""


class CentredRelevant(IAVAPlus, RelevantTokens):
    """V* is as many tokens as IAVA selects, those whose attention rises most."""


class CentredOracle(Oracle):
    """V* is everything but the region that answers."""

    def others(self, prompt: Prompt, trace: Trace | None) -> list[dict[str, Any]]:
        _, valid = pack(prompt.is_image)
        return [self.second(prompt, trace), NEGATIVES[self.negative](prompt, torch.zeros_like(valid))]

    def combine(self, logits: torch.Tensor, negative: torch.Tensor | None, step: int) -> torch.Tensor:
        assert negative is not None
        assert self.alpha is not None
        return centred(logits, negative, self.alpha)


VARIANTS: dict[str, type[Method]] = {
    "irrelevant": IAVA,
    "least attended": Least,
    "relevant": RelevantTokens,
    "random": RandomTokens,
    "oracle": Oracle,
    "irrelevant, centred": IAVAPlus,
    "least attended, centred": CentredLeast,
    "relevant, centred": CentredRelevant,
    "random, centred": CentredRandom,
    "oracle, centred": CentredOracle,
    "the whole image, centred": Everything,
}


def variants(settings: dict[str, Any], *, oracle: bool) -> list[Method]:
    """Each V* contrasted as IAVA does and as IAVA+ does, all with the same settings.

    Args:
        settings: of IAVA.
        oracle: whether the region that answers is known.
    """
    found = []
    for name, kind in VARIANTS.items():
        if oracle or not issubclass(kind, Oracle):
            has = kind().settings()
            method = kind(**{key: value for key, value in settings.items() if key in has})
            method.name = name
            found.append(method)
    return found


def centred_study(lvlm: LVLM, plan: Plan, folder: Path, advance: Advance = lambda *_: None) -> dict[str, Any]:
    """Measures all of them, and leaves results.json, table.md and plot.png in the folder.

    Args:
        plan: of "greedy" and "iava", whose settings all take but for those of IAVA+'s own defaults.

    Returns:
        See `compare`.

    Raises:
        IavaError: as `iava.evaluation.runner.evaluate`.
    """
    settings = IAVAPlus(**plan.methods["iava"]).settings()
    known = all(question.region is not None for question in plan.task.questions)
    others = [method.bind(lvlm.model, lvlm.processor) for method in variants(settings, oracle=known)]
    heading = "V* and the contrast (alpha={alpha}, top_i={top_i})".format(**settings)
    plan = replace(plan, methods={"greedy": {}})
    found, told = compare(lvlm, plan, folder, advance, reference="random, centred", heading=heading, others=others)
    return leave(folder, found, told, drawing(found["outcomes"]))
