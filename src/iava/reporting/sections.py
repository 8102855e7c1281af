"""What a report says of one run: its tables, its drawings, the answers that changed, and what made it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from iava.benchmarks.parsers import NOTES
from iava.errors import IavaError
from iava.evaluation.runs import Run, questions_of
from iava.metrics.flips import REFERENCE, Flips, flips, shown
from iava.metrics.parts import Record, group_of
from iava.metrics.results import Row, is_control
from iava.metrics.shift import Curve, at_best_threshold, beyond_bias, bias_curve
from iava.pocket.scenes import load_scene
from iava.reporting.charts import Chart, cost_chart, yes_chart
from iava.reporting.formatting import number, pair
from iava.reporting.overlay import data_uri
from iava.reporting.published import beside, is_pocket
from iava.reporting.tables import Cell, Line, Table, category_tables, main_metric, summary
from iava.reporting.templating import settings_text
from iava.reporting.verdicts import title, verdicts

THUMBNAILS = 8
_THUMB = 240  # pixels of a thumbnail's longer side

OpenImage = Callable[[str], Image.Image]


@dataclass(frozen=True)
class Thumb:
    """A question whose answer changed, with a small picture if there is one at hand."""

    picture: str | None
    image: str
    question: str
    truth: str
    greedy: str
    ours: str


@dataclass(frozen=True)
class Strip:
    """Some of the answers, of so many, that a method changed for the better (gained), or for the worse."""

    method: str
    gained: bool
    most: int
    thumbs: list[Thumb]


@dataclass(frozen=True)
class Section:
    """A run in a report. Tables that have nothing to say are None or absent.

    Args:
        name, model: of the run.
        verdicts: a sentence for each method that is no control.
        facts: the main metric of each method, and its name.
        asked: how many questions about how many pictures.
        gaps: methods that did not answer everything.
        summary: the main metric by category.
        categories: the category, its table, and its yes-ratio chart.
        cost: cost against the main metric, overall.
        beyond, flips, published: further tables; published also says whether it is of the same model and data.
        strips: thumbnails of answers that changed.
        made: what made the numbers, term by term.
    """

    name: str
    model: str
    verdicts: list[str]
    facts: list[tuple[str, str]]
    asked: str
    gaps: list[str]
    summary: Table | None
    categories: list[tuple[str, Table, Chart | None]]
    cost: Chart | None
    beyond: Table | None
    flips: Table | None
    strips: list[Strip]
    published: tuple[Table, bool] | None
    made: list[tuple[str, list[str]]]

    @property
    def tables(self) -> list[Table]:
        """All of them, in the order in which they are shown."""
        published = self.published[0] if self.published else None
        several = [self.summary, *(table for _, table, _ in self.categories), self.beyond, self.flips, published]
        return [table for table in several if table is not None]


def section(run: Run) -> Section:
    """Everything a report says of a run, with pictures if they are still where the run found them."""
    rows = run.rows
    overall = [row for row in rows if row["category"] == "overall"]
    methods = [row["method"] for row in overall]
    changed = _changed(run, methods)
    ours = [some for some in changed if not is_control(some.method)]
    open_image = _opener(run) if ours else None
    tables = category_tables(rows)
    return Section(
        name=run.name,
        model=run.settings["model"],
        verdicts=verdicts(rows),
        facts=[(_fact(row), title(row["method"])) for row in overall],
        asked=_asked(run.records),
        gaps=_gaps(run, methods),
        summary=summary(rows) if len(tables) > 1 else None,
        categories=[(name, table, _chart(run, name)) for name, table in tables],
        cost=cost_chart(overall) if len(overall) > 1 else None,
        beyond=_beyond(run, overall),
        flips=_flips_table(changed),
        strips=[strip for some in ours for strip in _strips(some, open_image)],
        published=beside(run.settings, rows, run.records),
        made=_made(run, overall),
    )


def _fact(row: Row) -> str:
    main = main_metric(row)
    return number(main, row["metrics"][main])


def _asked(records: Sequence[Record]) -> str:
    questions = len({record["id"] for record in records})
    images = len({record["image"] for record in records})
    return f"{questions:,} questions about {images:,} pictures"


def _gaps(run: Run, methods: Sequence[str]) -> list[str]:
    everything = len({record["id"] for record in run.records})
    answered = {method: sum(r["method"] == method and "error" not in r for r in run.records) for method in methods}
    missing = [method for method in run.settings["methods"] if method not in methods]
    return [
        f"{title(name)}: {n:,} of {everything:,} questions answered" for name, n in answered.items() if n < everything
    ] + [f"{title(name)}: nothing answered" for name in missing]


def _yes_no(records: Iterable[Record]) -> list[Record]:
    """The answers whose logits of yes and no are known, to questions of yes and no."""
    return [r for r in records if r["truth"] in ("yes", "no") and r.get("yes") is not None and r.get("no") is not None]


def _margins(records: Sequence[Record]) -> list[float]:
    return [record["yes"] - record["no"] for record in records]


def _chart(run: Run, category: str) -> Chart | None:
    rows = [row for row in run.rows if row["category"] == category and {"yes_ratio", "accuracy"} <= set(row["metrics"])]
    if not rows:
        return None
    greedy = _yes_no(run.of(REFERENCE, category))
    truths = [record["truth"] for record in greedy]
    curve: Curve | None = bias_curve(_margins(greedy), truths) if greedy else None
    return yes_chart(rows, curve, truths.count("yes") / len(truths) if truths else None)


def _beyond(run: Run, overall: Sequence[Row]) -> Table | None:
    """What each method's accuracy is beyond what a constant bias reaches at its yes-ratio."""
    greedy = {record["id"]: record for record in _yes_no(run.of(REFERENCE))}
    lines = []
    for row in overall:
        ours = [record for record in _yes_no(run.of(row["method"])) if record["id"] in greedy]
        if row["method"] == REFERENCE or not ours or "yes_ratio" not in row["metrics"]:
            continue
        theirs = [greedy[record["id"]] for record in ours]
        truths = [record["truth"] for record in ours]
        said = [record["parsed"] == "yes" for record in ours]
        right = [record["parsed"] == record["truth"] for record in ours]
        groups = [group_of(record) for record in ours]
        beyond, limits = beyond_bias(_margins(theirs), truths, said, right, groups, seed=run.settings["seed"])
        accuracy = sum(right) / len(right)
        margins, others = _margins(ours), _margins(theirs)
        best, above, around = at_best_threshold(margins, others, truths, groups, seed=run.settings["seed"])
        cells = [
            Cell(number("yes_ratio", value := sum(said) / len(said)), "", value),
            Cell(number("accuracy", accuracy), "", accuracy),
            Cell(number("accuracy", accuracy - beyond), "", accuracy - beyond),
            Cell(number("accuracy", beyond, sign=True), pair("accuracy", limits, sign=True), beyond),
            Cell(number("accuracy", best), "", best),
            Cell(number("accuracy", above, sign=True), pair("accuracy", around, sign=True), above),
        ]
        control = is_control(row["method"])
        lines.append(Line(title(row["method"]), cells, "control" if control else "", not control))
    note = (
        "Accuracy against what greedy decoding reaches at the same yes-ratio when a constant is added to its yes-no "
        "margin on these very questions. Around zero: a shift and nothing else. Behind it: each method's accuracy at "
        "the best threshold of its own margin, and how far that lies above greedy decoding's at its best."
    )
    headings = ["Yes-ratio", "Accuracy", "Bias alone", "Beyond bias", "Best threshold", "Over greedy's best"]
    return Table("Beyond a constant bias", headings, lines, note) if lines else None


def _changed(run: Run, methods: Sequence[str]) -> list[Flips]:
    greedy = run.of(REFERENCE)
    found = [flips(method, run.of(method), greedy) for method in methods if method != REFERENCE]
    return [some for some in found if some.asked]


def _flips_table(changed: Sequence[Flips]) -> Table | None:
    lines = [
        Line(
            title(some.method),
            [
                Cell(str(some.asked), "", some.asked),
                Cell(str(len(some.gained)), "", len(some.gained)),
                Cell(str(len(some.lost)), "", len(some.lost)),
                Cell(f"{(net := len(some.gained) - len(some.lost)):+d}", "", net),
            ],
            "control" if is_control(some.method) else "",
            not is_control(some.method),
        )
        for some in changed
    ]
    note = "Different questions that one of the two answers rightly and the other does not."
    return (
        Table("Answers changed against greedy", ["Questions", "Gained", "Lost", "Net"], lines, note) if lines else None
    )


def _strips(some: Flips, open_image: OpenImage | None) -> list[Strip]:
    strips = [
        Strip(title(some.method), gained, len(pairs), [_thumb(pair, open_image) for pair in shown(pairs, THUMBNAILS)])
        for gained, pairs in ((True, some.gained), (False, some.lost))
    ]
    return [strip for strip in strips if strip.thumbs]


def _thumb(records: tuple[Record, Record], open_image: OpenImage | None) -> Thumb:
    greedy, ours = records
    return Thumb(
        _small(ours["image"], open_image), ours["image"], ours["question"], ours["truth"], greedy["text"], ours["text"]
    )


def _small(image: str, open_image: OpenImage | None) -> str | None:
    if open_image is None:
        return None
    try:
        picture = open_image(image).convert("RGB")
    except (OSError, ValueError):
        return None
    picture.thumbnail((_THUMB, _THUMB))
    return data_uri(picture)


def _opener(run: Run) -> OpenImage | None:
    """What gives a picture by its id; None if the questions are not those of the run any more, or nowhere."""
    if is_pocket(run.records):
        return _scene
    try:
        task = questions_of(run)
    except IavaError:
        return None
    return task.open_image if task else None


def _scene(image: str) -> Image.Image:
    split, _, index = image.rpartition("-")
    return load_scene(split, int(index)).render()


def _made(run: Run, overall: Sequence[Row]) -> list[tuple[str, list[str]]]:
    settings, manifests = run.settings, run.manifests
    unparsed = sum(round((row["metrics"].get("unparsed") or 0) * row["n"]) for row in overall)
    errors = sum("error" in record for record in run.records)
    parser = settings.get("parser")
    note = NOTES.get(parser or "")
    terms: list[tuple[str, list[Any]]] = [
        ("Command", [m.get("command") for m in manifests]),
        ("Folder", run.folders),
        ("Model", [f"{settings['model']}, weights {settings.get('weights', 'unknown')}"]),
        ("Questions", [f"{run.name}: {_asked(run.records)}"]),
        ("Decoding", [f"at most {settings.get('max_new_tokens', '?')} new tokens", *map(_method, overall)]),
        ("Prompt", [m.get("prompt") for m in manifests]),
        ("Parser", [f"{parser} ({note})" if note else parser]),
        ("Not counted", [f"{unparsed} answers unparsed (counted as wrong), {errors} errors (left out)"]),
        ("Seed", [settings["seed"]]),
        ("Statistics", ["95 % bootstrap over images; exact McNemar against the best control, Holm over methods"]),
        ("Versions", [", ".join(f"{k} {v}" for k, v in m.get("versions", {}).items()) for m in manifests]),
        ("Revision", [m.get("git") for m in manifests]),
        ("Hardware", [_hardware(m.get("machine", {})) for m in manifests]),
        ("Started", [m.get("started") for m in manifests]),
    ]
    told = [(term, [str(value) for value in dict.fromkeys(values) if value]) for term, values in terms]
    return [(term, values) for term, values in told if values]


def _hardware(machine: Mapping[str, Any]) -> str:
    if not machine:
        return ""
    return f"{machine['processor']}, {machine['threads']} threads, {machine['device']}, {machine['dtype']}"


def _method(row: Mapping[str, Any]) -> str:
    settings = settings_text(row["settings"])
    return f"{title(row['method'])}: {settings}" if settings else title(row["method"])
