"""Is it the irrelevance? The contrast with V* of irrelevant, relevant and random tokens, no image, noise, the oracle.

If the gain depended on masking all but what is irrelevant, IAVA would have to beat the same number of random tokens.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from iava.evaluation.plan import Plan
from iava.evaluation.runner import Advance
from iava.lvlm.model import LVLM
from iava.methods import METHODS
from iava.studies.compare import compare, drawing, leave

NAMES = ("iava", "iava-relevant", "iava-random", "no-image", "noise", "oracle")


def negatives(lvlm: LVLM, plan: Plan, folder: Path, advance: Advance = lambda *_: None) -> dict[str, Any]:
    """Measures all of them with the settings of one, and leaves results.json, table.md and plot.png in the folder.

    Args:
        plan: of "iava", whose settings the others take as far as they have them. The oracle is left out where
            the benchmark does not say which region answers.

    Returns:
        See `compare`.

    Raises:
        IavaError: as `iava.evaluation.runner.evaluate`.
    """
    known = all(question.region is not None for question in plan.task.questions)
    methods: dict[str, dict[str, Any]] = {"greedy": {}}
    for name in NAMES:
        if known or name != "oracle":
            has = METHODS[name]().settings()
            methods[name] = {key: value for key, value in plan.methods["iava"].items() if key in has}
    plan = replace(plan, methods=methods)
    heading = "What the second branch sees"
    found, told = compare(lvlm, plan, folder, advance, reference="iava-random", heading=heading)
    return leave(folder, found, told, drawing(found["outcomes"]))
