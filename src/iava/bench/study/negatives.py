"""Is it the irrelevance? The contrast with V* of irrelevant, relevant and random tokens, no image, noise, the oracle.

If the gain depended on masking all but what is irrelevant, IAVA would have to beat the same number of random tokens.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from iava.bench.records import Records
from iava.bench.runner import Advance, Plan, evaluate
from iava.bench.study.compare import drawing, outcomes, table
from iava.bench.study.outcome import leave
from iava.bench.typeset import markdown
from iava.lvlm import LVLM
from iava.methods import METHODS

NAMES = ("iava", "iava-relevant", "iava-random", "no-image", "noise", "oracle")
_REFERENCES = ("greedy", "iava-random")


def negatives(lvlm: LVLM, plan: Plan, folder: Path, advance: Advance = lambda *_: None) -> dict[str, Any]:
    """Measures all of them with the settings of one, and leaves study.json, study.md and study.svg in the folder.

    Args:
        plan: of "iava", whose settings the others take as far as they have them. The oracle is left out where
            the benchmark does not say which region answers.

    Raises:
        ValueError: as `iava.bench.runner.evaluate`.
    """
    known = all(question.region is not None for question in plan.questions.questions)
    names = [name for name in NAMES if known or name != "oracle"]
    methods = {"greedy": {}, **{name: _taken(name, plan.methods["iava"]) for name in names}}
    results = evaluate(lvlm, replace(plan, methods=methods), folder, advance)
    records = Records(folder / "records.jsonl").rows
    found = outcomes(records, results["methods"], _REFERENCES, benchmark=plan.benchmark, seed=plan.seed)
    where = f"{plan.benchmark}, {plan.task.split}, model {plan.model}"
    note = f"Percent and points, 95 % intervals over images; {found[0]['n']:,} questions; seed {plan.seed}."
    told = markdown(table(found, _REFERENCES, f"What the second branch sees ({where})", note))
    return leave(folder, {"outcomes": found, "manifest": results["manifest"]}, told, drawing(found))


def _taken(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    known = METHODS[name]().settings()
    return {key: value for key, value in settings.items() if key in known}
