"""Can i and lambda be chosen from the data? Four adaptive rules against fixed settings."""

from pathlib import Path
from typing import Any

from iava.evaluation.plan import Plan
from iava.evaluation.runner import Advance
from iava.lvlm.model import LVLM
from iava.methods.base import Method
from iava.studies.ablate import PARAPHRASES
from iava.studies.compare import compare_methods, difference_figure, write_study
from iava.studies.variants import RULES, RuleSelection, StableDrop


def adaptive_variants(settings: dict[str, Any]) -> list[Method]:
    """IAVA with each rule that sets i and lambda, and with `StableDrop` over six wordings of the general instruction.

    Args:
        settings: of IAVA. `top_i` and `lam` are replaced.
    """
    adaptive = {**settings, "top_i": "auto", "lam": "auto"}
    return [*(RuleSelection(rule, **adaptive) for rule in RULES), StableDrop(PARAPHRASES, **adaptive)]


def run_auto_study(lvlm: LVLM, plan: Plan, folder: Path, advance: Advance = lambda *_: None) -> dict[str, Any]:
    """Measures all variants, and writes results.json, table.md and plot.png.

    Args:
        plan: of "greedy" and "iava". The fixed settings of the latter are the reference.

    Returns:
        See `compare_methods`.

    Raises:
        IavaError: see `iava.evaluation.runner.evaluate`.
    """
    settings = dict(plan.methods["iava"])
    variants = [variant.bind(lvlm.model, lvlm.processor) for variant in adaptive_variants(settings)]
    fixed = lvlm.method("iava", **settings).settings()
    heading = f"Adaptive i and lambda (IAVA: fixed, top_i={fixed['top_i']}, lam={fixed['lam']})"
    results, table = compare_methods(lvlm, plan, folder, advance, reference="iava", heading=heading, variants=variants)
    return write_study(folder, results, table, difference_figure(results["outcomes"]))
