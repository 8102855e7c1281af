"""Can i and lambda be set from the data? Rules that find them in each prompt, against settings that are fixed."""

from pathlib import Path
from typing import Any

from iava.bench.ablate import GENERALS
from iava.bench.records import Records
from iava.bench.runner import Advance, Plan, evaluate
from iava.bench.study.compare import drawing, outcomes, table
from iava.bench.study.outcome import leave
from iava.bench.study.variants import RULES, Ruled, Steady
from iava.bench.typeset import markdown
from iava.lvlm import LVLM
from iava.methods.base import Method

_PARAPHRASES = GENERALS[:6]
_REFERENCES = ("greedy", "iava")


def variants(settings: dict[str, Any]) -> list[Method]:
    """The adaptive ones: each rule for i alone, for lambda alone (then i binds nothing) and for both; and tokens that
    fall by more than 1 or 2 standard deviations over six wordings, with the lambda that is given.

    Args:
        settings: of IAVA; top_i and lam are replaced.
    """
    found: list[Method] = []
    for rule in RULES:
        for which, values in (
            ("i", {"top_i": "auto"}),
            ("lambda", {"top_i": 1.0, "lam": "auto"}),
            ("both", {"top_i": "auto", "lam": "auto"}),
        ):
            found.append(Ruled(f"{rule}-{which}", rule, **{**settings, **values}))
    rest = {key: value for key, value in settings.items() if key not in ("general", "top_i")}
    return found + [Steady(f"steady-{z:g}", _PARAPHRASES, z, **rest) for z in (1.0, 2.0)]


def auto(lvlm: LVLM, plan: Plan, folder: Path, advance: Advance = lambda *_: None) -> dict[str, Any]:
    """Measures all of them, and leaves study.json, study.md and study.svg in the folder.

    Args:
        plan: of "greedy" and "iava", the latter with the fixed settings that the others are compared with.

    Raises:
        ValueError: as `iava.bench.runner.evaluate`.
    """
    settings = dict(plan.methods["iava"])
    others = [method.bind(lvlm.model, lvlm.processor) for method in variants(settings)]
    results = evaluate(lvlm, plan, folder, advance, others=others)
    records = Records(folder / "records.jsonl").rows
    found = outcomes(records, results["methods"], _REFERENCES, benchmark=plan.benchmark, seed=plan.seed)
    fixed = results["methods"]["iava"]
    where = f"{plan.benchmark}, {plan.task.split}, model {plan.model}"
    note = f"IAVA is fixed at top_i={fixed['top_i']}, lam={fixed['lam']}, all have alpha={fixed['alpha']}. "
    note += f"Percent and points, 95 % intervals over images; {found[0]['n']:,} questions; seed {plan.seed}."
    told = markdown(table(found, _REFERENCES, f"i and lambda from the data ({where})", note))
    return leave(folder, {"outcomes": found, "manifest": results["manifest"]}, told, drawing(found))
