"""Ablation of IAVA's settings: one setting varies, all others stay fixed.

Beside accuracy the tables show the yes-ratio and the share of selected image tokens, which may explain a difference.
Each value is a run of its own (`iava.evaluation.sweep`). All are compared with greedy decoding on the same questions.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from iava.engine.negatives import NEGATIVES
from iava.evaluation.plan import Plan
from iava.evaluation.records import write_json
from iava.evaluation.runner import Advance
from iava.evaluation.sweep import Trial, sweep
from iava.files import write_text
from iava.lvlm.model import LVLM
from iava.methods import METHODS
from iava.metrics.results import rows_of
from iava.reporting.formatting import display_scale, metric_heading
from iava.reporting.plots import Whisker, panels, plot_estimates, save_figure
from iava.reporting.renderers import markdown
from iava.reporting.tables import Cell, Table, TableRow, difference_cell, main_metric, metric_cell, value_cell
from iava.studies.compare import SELECTED, selected_share

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
GENERAL_INSTRUCTIONS = PARAPHRASES + UNRELATED
"""The paper's general instruction, five paraphrases of it, and four unrelated texts."""
ABLATIONS = {
    "i": "top_i",
    "lambda": "lam",
    "alpha": "alpha",
    "beta": "beta",
    "layers": "layers",
    "general": "general",
    "negative": "negative",
}
"""Name of an ablation -> the setting of IAVA that it varies."""
_VALUES: dict[str, Sequence[Any]] = {
    "i": (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0),
    "lambda": (-2.0, -1.0, -0.5, -0.1, 0.0, 0.25, 0.5, 1.0, 2.0),
    "alpha": (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0),
    "beta": (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0),
    "general": GENERAL_INSTRUCTIONS,
    "negative": NEGATIVES,
}


def default_values(ablation: str, model: PreTrainedModel) -> list[Any]:
    """The values that an ablation tries by default. For layers: all, both halves, and each layer alone."""
    if ablation != "layers":
        return list(_VALUES[ablation])
    depth = model.config.get_text_config().num_hidden_layers
    halves = [list(range(depth // 2)), list(range(depth // 2, depth))] if depth > 3 else []
    return ["all", *halves, *([n] for n in range(depth))]


def run_ablation(
    lvlm: LVLM,
    ablation: str,
    plan: Plan,
    folder: Path,
    values: Sequence[Any] = (),
    advance: Advance = lambda *_: None,
) -> dict[str, Any]:
    """Measures IAVA at each value of one setting, and writes results.json, table.md and plot.png.

    Args:
        ablation: a key of `ABLATIONS`.
        plan: its only method is IAVA, with the settings that stay fixed.
        values: the values to try; by default those of `default_values`.

    Returns:
        The content of results.json: "setting"; "greedy", a row (see `iava.metrics.results.rows_of`); "tried", for each
        value its settings, folder, metrics, intervals, comparison with greedy, and share of selected tokens; and the
        manifest of the first run.

    Raises:
        IavaError: if a value is out of range, or the folder cannot be used.
    """
    setting, (method,) = ABLATIONS[ablation], plan.methods
    values = values or default_values(ablation, lvlm.model)
    candidates = [METHODS[method](**{**plan.methods[method], setting: value}).settings() for value in values]
    (greedy,) = sweep(lvlm, plan, "greedy", [{}], folder, advance)
    trials = sweep(lvlm, plan, method, candidates, folder, advance)
    outcomes = [_outcome(trial, greedy, plan) for trial in trials]
    manifest = greedy.results["manifest"]
    results = {
        "setting": setting,
        "method": method,
        **{key: manifest["settings"][key] for key in ("benchmark", "model", "split", "limit", "seed")},
        "greedy": greedy.overall,
        "tried": [{"value": value} | outcome for value, outcome in zip(values, outcomes, strict=True)],
        "manifest": manifest,
    }
    write_json(folder / "results.json", results)
    write_text(folder / "table.md", f"{_ablation_table(results)}\n`{manifest['command']}`\n")
    _plot_ablation(results, folder / "plot.png")
    return results


def _outcome(trial: Trial, greedy: Trial, plan: Plan) -> dict[str, Any]:
    records = trial.records
    settings: dict[str, Mapping[str, Any]] = {"greedy": {}, records[0]["method"]: trial.settings}
    rows = rows_of([*greedy.records, *records], benchmark=plan.asked, settings=settings, seed=plan.seed)
    row = next(row for row in rows if row["category"] == "overall" and row["method"] != "greedy")
    return {
        "settings": trial.settings,
        "folder": trial.folder.name,
        **{key: row[key] for key in ("metrics", "intervals", "main", "comparison", "n")},
        "selected": list(selected_share(records, seed=plan.seed)),
    }


def _metrics_shown(row: Mapping[str, Any]) -> list[str]:
    """The main metric, then F1, AUC and yes-ratio as far as the row has them."""
    main = main_metric(dict(row))
    return [main, *(name for name in ("f1", "auc", "yes_ratio") if name in row["metrics"] and name != main)]


def _ablation_table(results: Mapping[str, Any]) -> str:
    metrics = _metrics_shown(results["greedy"])
    headings = [metric_heading(metrics[0]), "vs greedy", *map(metric_heading, metrics[1:]), SELECTED]
    greedy = results["greedy"] | {"comparison": None, "selected": (None, None)}
    rows = [TableRow("greedy", _trial_cells(greedy, metrics), "control")]
    rows += [TableRow(value_text(trial["value"]), _trial_cells(trial, metrics)) for trial in results["tried"]]
    data = f"{results['benchmark']}, {results['split']}"
    title = f"{METHODS[results['method']].__name__}, {results['setting']} varied ({data}, model {results['model']})"
    note = f"Percent, 95 % intervals over images; {results['greedy']['n']:,} questions; seed {results['seed']}."
    return markdown(Table(title, headings, rows, note, name_heading=results["setting"]))


def _trial_cells(trial: Mapping[str, Any], metrics: Sequence[str]) -> list[Cell]:
    """The main metric, its difference from greedy decoding, the other metrics, and the share of selected tokens."""
    row, comparison = dict(trial), trial["comparison"]
    difference = (
        Cell()
        if comparison is None
        else difference_cell(trial["main"], comparison["difference"], comparison["interval"])
    )
    others = [metric_cell(row, name) for name in metrics[1:]]
    return [metric_cell(row, metrics[0]), difference, *others, value_cell("selected", *trial["selected"])]


def value_text(value: Any) -> str:
    """The value of a setting as a short text."""
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _plot_ablation(results: Mapping[str, Any], path: Path) -> None:
    """Metrics against the setting and, where tokens are selected, against the share of selected tokens."""
    trials, greedy, setting = results["tried"], results["greedy"], results["setting"]
    labels = [value_text(trial["value"]) for trial in trials]
    shares, share_limits = [trial["selected"][0] for trial in trials], [trial["selected"][1] for trial in trials]
    # The panels are in percent, so scores in points are left out.
    metrics = [name for name in _metrics_shown(greedy) if name != "f1" and display_scale(name) == 100]
    with_shares = all(share is not None for share in shares) and setting in ("top_i", "lam", "layers", "general")
    against_shares = [name for name in metrics if name != "yes_ratio"] if with_shares else []
    joined = not isinstance(trials[0]["value"], str | list)
    count = len(metrics) + with_shares + len(against_shares)
    columns = min(3, len(metrics) + with_shares)
    figure, axes = panels(-(-count // columns), columns, width=3.4, height=2.8)
    free = iter(axes)
    for name in metrics:
        panel = next(free)
        reference = _greedy_reference(greedy, name)
        plot_estimates(panel, *_estimates_of(trials, name), labels=labels, reference=reference, joined=joined)
        panel.set(title=metric_heading(name) + ", %", xlabel=setting)
    if with_shares:
        panel = next(free)
        plot_estimates(panel, shares, share_limits, labels=labels, joined=joined)
        panel.set(title=f"{SELECTED}, %", xlabel=setting)
    for name in against_shares:
        panel = next(free)
        positions = [100 * share for share in shares]
        reference = _greedy_reference(greedy, name)
        plot_estimates(panel, *_estimates_of(trials, name), positions=positions, reference=reference, joined=joined)
        panel.set(title=metric_heading(name) + ", %", xlabel=f"{SELECTED}, %")
    for panel in free:
        panel.set_axis_off()
    save_figure(figure, path)


def _estimates_of(trials: Sequence[Mapping[str, Any]], metric: str) -> tuple[list[float | None], list[Whisker]]:
    return [trial["metrics"][metric] for trial in trials], [trial["intervals"].get(metric) for trial in trials]


def _greedy_reference(greedy: Mapping[str, Any], metric: str) -> tuple[str, float | None, Whisker]:
    return "greedy", greedy["metrics"][metric], greedy["intervals"].get(metric)
