"""What each of IAVA's settings does: one is varied, the others stay.

Beside accuracy and its like stands what they may be an effect of: how often yes was said, and the share of the image's
tokens that were selected. Every setting is a run of its own (`iava.evaluation.sweep`), and all are compared with greedy
decoding of the same questions.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from iava.engine.negatives import NEGATIVES
from iava.evaluation.plan import Plan
from iava.evaluation.records import write_json
from iava.evaluation.runner import Advance
from iava.evaluation.sweep import Trial, sweep
from iava.files import write_text
from iava.lvlm.model import LVLM
from iava.methods import METHODS
from iava.metrics.parts import Record, group_of
from iava.metrics.results import rows_of
from iava.metrics.stats import Interval, bootstrap
from iava.reporting.formatting import heading, number, pair, scale
from iava.reporting.plots import estimates, panels, save
from iava.reporting.renderers import markdown
from iava.reporting.tables import Cell, Line, Table, estimate, main_metric

PARAPHRASES = (
    "Describe this image.",
    "Please describe this image in detail.",
    "Describe the picture.",
    "What is in this image?",
    "What do you see?",
    "List everything in the image.",
)
UNRELATED = (
    "Is there a book?",
    "What is the capital of France?",
    "Hello.",
    "Count from one to ten.",
)
GENERALS = PARAPHRASES + UNRELATED
"""Ten general instructions: the paper's own, five that ask for the same, and four that do not."""
SETTINGS = {
    "i": "top_i",
    "lambda": "lam",
    "alpha": "alpha",
    "beta": "beta",
    "layers": "layers",
    "general": "general",
    "negative": "negative",
}
"""What can be varied -> the setting of IAVA."""
_VALUES: dict[str, Sequence[Any]] = {
    "i": (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0),
    "lambda": (-2.0, -1.0, -0.5, -0.1, 0.0, 0.25, 0.5, 1.0, 2.0),
    "alpha": (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0),
    "beta": (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0),
    "general": GENERALS,
    "negative": tuple(NEGATIVES),
}


def values_of(what: str, model: PreTrainedModel) -> list[Any]:
    """The values that are tried unless others are given; layers: all, both halves, and each alone."""
    if what != "layers":
        return list(_VALUES[what])
    depth = model.config.get_text_config().num_hidden_layers
    halves = [list(range(depth // 2)), list(range(depth // 2, depth))] if depth > 3 else []
    return ["all", *halves, *([n] for n in range(depth))]


def ablate(
    lvlm: LVLM,
    what: str,
    plan: Plan,
    folder: Path,
    values: Sequence[Any] = (),
    advance: Advance = lambda *_: None,
) -> dict[str, Any]:
    """Measures IAVA at each value of one setting, and writes results.json, table.md and plot.png to the folder.

    Args:
        what: of `SETTINGS`.
        plan: of one method, IAVA with the settings that stay.
        values: to be tried; none: those of `values_of`.

    Returns:
        What is in the JSON: "setting", "plan", "greedy" (a row, see `iava.metrics.results.rows_of`), "tried": for each
        its value, settings, folder, metrics, intervals, comparison with greedy, and "selected", share and interval;
        and the first run's manifest.

    Raises:
        IavaError: if a value is out of range, or the folder cannot be used.
    """
    setting, (method,) = SETTINGS[what], plan.methods
    values = values or values_of(what, lvlm.model)
    candidates = [METHODS[method](**{**plan.methods[method], setting: value}).settings() for value in values]
    (greedy,) = sweep(lvlm, plan, "greedy", [{}], folder, advance)
    tried = sweep(lvlm, plan, method, candidates, folder, advance)
    manifest = greedy.results["manifest"]
    found = {
        "setting": setting,
        "method": method,
        **{key: manifest["settings"][key] for key in ("benchmark", "model", "split", "limit", "seed")},
        "greedy": greedy.overall,
        "tried": [{"value": value} | _outcome(one, greedy, plan) for value, one in zip(values, tried, strict=True)],
        "manifest": manifest,
    }
    write_json(folder / "results.json", found)
    write_text(folder / "table.md", _told(found))
    _draw(found, folder / "plot.png")
    return found


def _outcome(one: Trial, greedy: Trial, plan: Plan) -> dict[str, Any]:
    records = one.records
    settings: dict[str, Mapping[str, Any]] = {"greedy": {}, records[0]["method"]: one.settings}
    rows = rows_of([*greedy.records, *records], benchmark=plan.asked, settings=settings, seed=plan.seed)
    row = next(row for row in rows if row["category"] == "overall" and row["method"] != "greedy")
    kept = {key: row[key] for key in ("metrics", "intervals", "main", "comparison", "n")}
    share, limits = selected_share(records, seed=plan.seed)
    return {"settings": one.settings, "folder": one.folder.name, **kept, "selected": [share, limits]}


def selected_share(records: Sequence[Record], *, seed: int) -> tuple[float | None, Interval | None]:
    """The mean share of image tokens that were selected, and its 95 % interval over images; None if none said so."""
    said = [record for record in records if "selected" in record]
    if not said:
        return None, None
    values = np.array([(record["selected"], 1.0) for record in said])
    limits = bootstrap(values, [group_of(record) for record in said], lambda s: s[:, 0] / s[:, 1], seed=seed)
    return float(values[:, 0].mean()), limits


def outcome_cells(row: Mapping[str, Any], metrics: Sequence[str]) -> list[Cell]:
    """A row's metrics, its difference from greedy decoding, and the share of tokens selected."""
    comparison, (share, limits) = row["comparison"], row["selected"]
    main = row["main"]
    against = Cell()
    if comparison is not None:
        against = Cell(number(main, comparison["difference"], sign=True), pair(main, comparison["interval"], sign=True))
    chosen = Cell(number("", share), pair("", limits) if limits else "")
    return [estimate(dict(row), metrics[0]), against, *(estimate(dict(row), name) for name in metrics[1:]), chosen]


def metrics_of(row: Mapping[str, Any]) -> list[str]:
    """The metrics that are shown: the main one first, then those of `f1`, `auc` and `yes_ratio` that there are."""
    main = main_metric(dict(row))
    return [main, *(name for name in ("f1", "auc", "yes_ratio") if name in row["metrics"] and name != main)]


def _told(found: Mapping[str, Any]) -> str:
    metrics = metrics_of(found["greedy"])
    headings = [heading(metrics[0]), "vs greedy", *(heading(name) for name in metrics[1:]), "Tokens selected"]
    greedy = found["greedy"] | {"comparison": None, "selected": (None, None)}
    lines = [Line("greedy", outcome_cells(greedy, metrics), "control")]
    lines += [Line(text_of(one["value"]), outcome_cells(one, metrics)) for one in found["tried"]]
    where = f"{found['benchmark']}, {found['split']}"
    title = f"{METHODS[found['method']].__name__}, {found['setting']} varied ({where}, model {found['model']})"
    note = f"Percent, 95 % intervals over images; {found['greedy']['n']:,} questions; seed {found['seed']}."
    told = markdown(Table(title, headings, lines, note, head=found["setting"]))
    return f"{told}\n`{found['manifest']['command']}`\n"


def text_of(value: Any) -> str:
    """A setting's value in few letters."""
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _draw(found: Mapping[str, Any], path: Path) -> None:
    tried, greedy = found["tried"], found["greedy"]
    labels = [text_of(one["value"]) for one in tried]
    shares, share_limits = [one["selected"][0] for one in tried], [one["selected"][1] for one in tried]
    # A score on a scale of its own is drawn as it is.
    metrics = [name for name in metrics_of(greedy) if name != "f1" and scale(name) == 100]
    told = all(share is not None for share in shares) and found["setting"] in ("top_i", "lam", "layers", "general")
    against_share = [name for name in metrics if name != "yes_ratio"] if told else []
    joined = not isinstance(tried[0]["value"], str | list)
    used = len(metrics)
    columns = min(3, used + told)
    figure, axes = panels(-(-(used + told + len(against_share)) // columns), columns, width=3.4, height=2.8)
    for panel, name in zip(axes, metrics, strict=False):
        values, limits = _drawn(tried, name)
        reference = ("greedy", greedy["metrics"][name], greedy["intervals"].get(name))
        estimates(panel, values, limits, labels=labels, reference=reference, joined=joined)
        panel.set(title=heading(name) + ", %", xlabel=found["setting"])
    if told:
        estimates(axes[used], shares, share_limits, labels=labels, joined=joined)
        axes[used].set(title="Image tokens selected, %", xlabel=found["setting"])
        used += 1
    for name in against_share:
        values, limits = _drawn(tried, name)
        reference = ("greedy", greedy["metrics"][name], greedy["intervals"].get(name))
        places = [100 * share for share in shares]
        estimates(axes[used], values, limits, places=places, reference=reference, joined=joined)
        axes[used].set(title=heading(name) + ", %", xlabel="image tokens selected, %")
        used += 1
    for panel in axes[used:]:
        panel.set_axis_off()
    save(figure, path)


def _drawn(tried: Sequence[Mapping[str, Any]], name: str) -> tuple[list[float | None], list[Any]]:
    return [one["metrics"][name] for one in tried], [one["intervals"].get(name) for one in tried]
