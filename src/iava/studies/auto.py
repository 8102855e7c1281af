"""Can i and lambda be set from the data? Four ways to find them in each prompt, against settings that are fixed."""

from pathlib import Path
from typing import Any

from iava.evaluation.plan import Plan
from iava.evaluation.runner import Advance
from iava.lvlm.model import LVLM
from iava.methods.base import Method
from iava.studies.ablate import PARAPHRASES
from iava.studies.compare import compare, drawing, leave
from iava.studies.variants import RULES, Ruled, Steady


def variants(settings: dict[str, Any]) -> list[Method]:
    """The adaptive ones: a rule that finds both i and lambda; and tokens whose attention falls by more than it varies
    over six wordings of the general instruction.

    Args:
        settings: of IAVA; top_i and lam are replaced.
    """
    auto = {**settings, "top_i": "auto", "lam": "auto"}
    return [*(Ruled(rule, **auto) for rule in RULES), Steady(PARAPHRASES, **auto)]


def auto(lvlm: LVLM, plan: Plan, folder: Path, advance: Advance = lambda *_: None) -> dict[str, Any]:
    """Measures all of them, and leaves results.json, table.md and plot.png in the folder.

    Args:
        plan: of "greedy" and "iava", the latter with the fixed settings that the others are compared with.

    Returns:
        See `compare`.

    Raises:
        IavaError: as `iava.evaluation.runner.evaluate`.
    """
    settings = dict(plan.methods["iava"])
    others = [method.bind(lvlm.model, lvlm.processor) for method in variants(settings)]
    heading = "i and lambda from the data (IAVA: fixed at top_i={top_i}, lam={lam})".format(
        **lvlm.method("iava", **settings).settings()
    )
    found, told = compare(lvlm, plan, folder, advance, reference="iava", heading=heading, others=others)
    return leave(folder, found, told, drawing(found["outcomes"]))
