"""Does the gain depend on irrelevance? Contrast with irrelevant, relevant and random tokens, no image, noise, oracle.

If the gain came from masking everything except irrelevant tokens, IAVA would have to beat the same number of random
tokens.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from iava.evaluation.plan import Plan
from iava.evaluation.runner import Advance
from iava.lvlm.model import LVLM
from iava.methods import METHODS
from iava.studies.compare import compare_methods, difference_figure, write_study

STUDIED_METHODS = ("iava", "iava-relevant", "iava-random", "no-image", "noise", "oracle")
"""Command-line names of the methods, which differ in the input of the contrast branch."""


def run_negatives_study(lvlm: LVLM, plan: Plan, folder: Path, advance: Advance = lambda *_: None) -> dict[str, Any]:
    """Measures all methods with the same settings, and writes results.json, table.md and plot.png.

    Args:
        plan: of "iava". The other methods use those of its settings that they have. The oracle is left out if the
            benchmark does not say which region answers a question.

    Returns:
        See `compare_methods`.

    Raises:
        IavaError: see `iava.evaluation.runner.evaluate`.
    """
    regions_known = all(question.region is not None for question in plan.task.questions)
    methods: dict[str, dict[str, Any]] = {"greedy": {}}
    for name in STUDIED_METHODS:
        if regions_known or name != "oracle":
            own = METHODS[name]().settings()
            methods[name] = {key: value for key, value in plan.methods["iava"].items() if key in own}
    heading = "The input of the contrast branch"
    plan = replace(plan, methods=methods)
    results, table = compare_methods(lvlm, plan, folder, advance, reference="iava-random", heading=heading)
    return write_study(folder, results, table, difference_figure(results["outcomes"]))
