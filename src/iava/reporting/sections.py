"""What a report says about one run: tables, charts, changed answers, and how the run was made."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from iava.benchmarks.parsers import NOTES
from iava.evaluation.runs import Run
from iava.metrics.flips import REFERENCES
from iava.metrics.parts import Record, group_of
from iava.metrics.results import Row
from iava.metrics.shift import BiasCurve, at_best_threshold, beyond_bias, bias_curve
from iava.reporting.changed_answers import ThumbnailStrip, changed_answers, changes_table, thumbnail_strips
from iava.reporting.charts import Chart, cost_chart, yes_ratio_chart
from iava.reporting.formatting import format_value
from iava.reporting.published import published_table
from iava.reporting.tables import (
    Cell,
    Table,
    category_tables,
    difference_cell,
    main_metric,
    method_row,
    summary_table,
    value_cell,
)
from iava.reporting.templating import settings_text
from iava.reporting.verdicts import title, verdicts


@dataclass(frozen=True)
class Section:
    """A run in a report. Parts that do not apply to the run are None or empty.

    Args:
        name, model: the run's name and its model.
        verdicts: a sentence for each method that is not a control.
        facts: the main metric of each method as text, and the method's title.
        extent: the number of questions and images, as text.
        gaps: methods with unanswered questions, as text.
        summary: the main metric by category.
        categories: each category with its table and its yes-ratio chart.
        cost: the main metric against cost, overall.
        beyond_bias: accuracy beyond a constant bias.
        changes: the number of changed answers.
        strips: examples of changed answers.
        published: published results, and whether they are of the same model and data set.
        provenance: terms and values that say how the run was made.
    """

    name: str
    model: str
    verdicts: list[str]
    facts: list[tuple[str, str]]
    extent: str
    gaps: list[str]
    summary: Table | None
    categories: list[tuple[str, Table, Chart | None]]
    cost: Chart | None
    beyond_bias: Table | None
    changes: Table | None
    strips: list[ThumbnailStrip]
    published: tuple[Table, bool] | None
    provenance: list[tuple[str, list[str]]]

    @property
    def tables(self) -> list[Table]:
        """All tables in the order of the report."""
        published = self.published[0] if self.published else None
        by_category = [table for _, table, _ in self.categories]
        tables = [self.summary, *by_category, self.beyond_bias, self.changes, published]
        return [table for table in tables if table is not None]


def report_section(run: Run) -> Section:
    """Everything that a report says about a run. Thumbnails are included if the run's images can still be opened."""
    rows = run.rows
    overall = [row for row in rows if row["category"] == "overall"]
    methods = [row["method"] for row in overall]
    tables = category_tables(rows)
    changes = changed_answers(run, overall)
    return Section(
        name=run.name,
        model=run.settings["model"],
        verdicts=verdicts(rows),
        facts=[(_main_value(row), title(row["method"])) for row in overall],
        extent=_extent(run.records),
        gaps=_gaps(run, methods),
        summary=summary_table(rows) if len(tables) > 1 else None,
        categories=[(name, table, _yes_ratio_chart(run, name)) for name, table in tables],
        cost=cost_chart(overall) if len(overall) > 1 else None,
        beyond_bias=_beyond_bias_table(run, overall),
        changes=changes_table(changes, overall),
        strips=thumbnail_strips(run, changes, overall),
        published=published_table(run.settings, rows, run.records),
        provenance=_run_provenance(run, overall),
    )


def _main_value(row: Row) -> str:
    main = main_metric(row)
    return format_value(main, row["metrics"][main])


def _extent(records: Sequence[Record]) -> str:
    questions = len({record["id"] for record in records})
    images = len({record["image"] for record in records})
    return f"{questions:,} questions about {images:,} images"


def _gaps(run: Run, methods: Sequence[str]) -> list[str]:
    total = len({record["id"] for record in run.records})
    answered = {method: sum(r["method"] == method and "error" not in r for r in run.records) for method in methods}
    partial = [f"{title(method)}: {n:,} of {total:,} questions answered" for method, n in answered.items() if n < total]
    missing = [method for method in run.settings["methods"] if method not in methods]
    return partial + [f"{title(method)}: no question answered" for method in missing]


def _with_margins(records: Iterable[Record]) -> list[Record]:
    """The answers to yes-no questions whose logits of yes and no are known."""
    return [r for r in records if r["truth"] in ("yes", "no") and r.get("yes") is not None and r.get("no") is not None]


def _plain_records(run: Run, category: str = "overall") -> list[Record]:
    """Plain decoding's answers with margins: of greedy decoding or, where that was not run, of sampling.

    A margin is that of the first token's logits, before any token is drawn, so it is the same in both.
    """
    found = (_with_margins(run.of(method, category)) for method in REFERENCES.values())
    return next((records for records in found if records), [])


def _record_margins(records: Sequence[Record]) -> list[float]:
    return [record["yes"] - record["no"] for record in records]


def _yes_ratio_chart(run: Run, category: str) -> Chart | None:
    rows = [row for row in run.rows if row["category"] == category and {"yes_ratio", "accuracy"} <= set(row["metrics"])]
    if not rows:
        return None
    plain = _plain_records(run, category)
    truths = [record["truth"] for record in plain]
    curve: BiasCurve | None = bias_curve(_record_margins(plain), truths) if plain else None
    return yes_ratio_chart(rows, curve, truths.count("yes") / len(truths) if truths else None)


def _beyond_bias_table(run: Run, overall: Sequence[Row]) -> Table | None:
    """Each method's accuracy beyond what a constant bias reaches at the same yes-ratio."""
    plain = {record["id"]: record for record in _plain_records(run)}
    rows = []
    for row in overall:
        method = row["method"]
        records = [record for record in _with_margins(run.of(method)) if record["id"] in plain]
        if method != REFERENCES[False] and records and "yes_ratio" in row["metrics"]:
            reference = [plain[record["id"]] for record in records]
            rows.append(method_row(row, _beyond_bias_cells(records, reference, run.settings["seed"])))
    note = (
        "Beyond bias: accuracy minus the accuracy that greedy decoding reaches at the same yes-ratio when a constant "
        "is added to its yes-no margin. A value near zero means that the method only shifts the yes-ratio. Best "
        "threshold: accuracy at the best threshold of the method's own margin, and its difference from greedy decoding "
        "at its best threshold. Both use the labels of these questions. What drawing costs counts as below the bias."
    )
    headings = ["Yes-ratio", "Accuracy", "Bias alone", "Beyond bias", "Best threshold", "vs greedy's best"]
    return Table("Beyond a constant bias", headings, rows, note) if rows else None


def _beyond_bias_cells(records: Sequence[Record], reference: Sequence[Record], seed: int) -> list[Cell]:
    """The cells of a method's row.

    Args:
        records: the method's answers.
        reference: the answers of greedy decoding to the same questions.
        seed: bootstrap seed.
    """
    truths = [record["truth"] for record in records]
    said_yes = [record["parsed"] == "yes" for record in records]
    correct = [record["parsed"] == record["truth"] for record in records]
    groups = [group_of(record) for record in records]
    margins, reference_margins = _record_margins(records), _record_margins(reference)
    beyond, limits = beyond_bias(reference_margins, truths, said_yes, correct, groups, seed=seed)
    best, gain, gain_limits = at_best_threshold(margins, reference_margins, truths, groups, seed=seed)
    accuracy, yes_ratio = sum(correct) / len(correct), sum(said_yes) / len(said_yes)
    return [
        value_cell("yes_ratio", yes_ratio),
        value_cell("accuracy", accuracy),
        value_cell("accuracy", accuracy - beyond),
        difference_cell("accuracy", beyond, limits),
        value_cell("accuracy", best),
        difference_cell("accuracy", gain, gain_limits),
    ]


def _run_provenance(run: Run, overall: Sequence[Row]) -> list[tuple[str, list[str]]]:
    """Terms and values that say how the run was made. Terms without a value are left out."""
    settings, manifests = run.settings, run.manifests
    unparsed = sum(round((row["metrics"].get("unparsed") or 0) * row["n"]) for row in overall)
    errors = sum("error" in record for record in run.records)
    parser = settings.get("parser")
    note = NOTES.get(parser or "")
    terms: list[tuple[str, list[Any]]] = [
        ("Command", [m.get("command") for m in manifests]),
        ("Folder", run.folders),
        ("Model", [f"{settings['model']}, weights {settings.get('weights', 'unknown')}"]),
        ("Questions", [f"{run.name}: {_extent(run.records)}"]),
        ("Decoding", [f"at most {settings.get('max_new_tokens', '?')} new tokens", *map(_method_settings, overall)]),
        ("Prompt", [m.get("prompt") for m in manifests]),
        ("Parser", [f"{parser} ({note})" if note else parser]),
        ("Excluded", [f"{unparsed} answers unparsed (counted as wrong), {errors} errors (left out)"]),
        ("Seed", [settings["seed"]]),
        (
            "Statistics",
            [
                "95 % bootstrap intervals over images",
                "exact McNemar test against the best control of the same decoding mode, Holm correction over methods",
            ],
        ),
        ("Versions", [", ".join(f"{k} {v}" for k, v in m.get("versions", {}).items()) for m in manifests]),
        ("Revision", [m.get("git") for m in manifests]),
        ("Hardware", [_hardware(m.get("machine", {})) for m in manifests]),
        ("Started", [m.get("started") for m in manifests]),
    ]
    texts = [(term, [str(value) for value in dict.fromkeys(values) if value]) for term, values in terms]
    return [(term, values) for term, values in texts if values]


def _hardware(machine: Mapping[str, Any]) -> str:
    if not machine:
        return ""
    return f"{machine['processor']}, {machine['threads']} threads, {machine['device']}, {machine['dtype']}"


def _method_settings(row: Mapping[str, Any]) -> str:
    settings = settings_text(row["settings"])
    mode = "draws each token" if row["draws"] else "takes the most probable token"
    return f"{title(row['method'])}: {mode}" + (f", {settings}" if settings else "")
