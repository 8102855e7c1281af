"""The page, the tables and the charts of a caption frontier."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from iava.evaluation.environment import command, package_version
from iava.evaluation.frontier import LENGTH, Frontier, FrontierCurve, Outcome
from iava.files import write_text
from iava.methods import METHODS
from iava.metrics.frontier import Distance
from iava.metrics.stats import Interval
from iava.reporting import charts
from iava.reporting.charts import BOTTOM, LEFT, RIGHT, TOP, Chart, Ends, Point, pixel, separated, ticks
from iava.reporting.formatting import display_scale, format_interval, format_value, metric_heading, metric_in_sentence
from iava.reporting.renderers import escape_markdown, latex, markdown
from iava.reporting.tables import Cell, Table, TableRow, difference_cell, value_cell
from iava.reporting.templating import template_environment
from iava.reporting.verdicts import title


def write_frontier(page: Path, found: Frontier) -> tuple[Path, Path, Path]:
    """Writes a frontier as HTML, and its tables beside it as Markdown and LaTeX.

    Args:
        page: the HTML file. The other two files differ in the extension only.

    Returns:
        The paths of the three files.

    Raises:
        IavaError: if a file cannot be written.
    """
    files = page, page.with_suffix(".md"), page.with_suffix(".tex")
    texts = frontier_html(found), frontier_markdown(found, 1), frontier_latex(found)
    for file, text in zip(files, texts, strict=True):
        write_text(file, text)
    return files


def frontier_markdown(found: Frontier, level: int) -> str:
    """Verdicts and tables as Markdown, below a heading of the given level."""
    lines = [f"{'#' * level} {escape_markdown(heading(found))}\n"]
    lines += [f"{escape_markdown(one)}\n" for one in frontier_verdicts(found)]
    return "\n".join([*lines, *(markdown(table, level + 1) for table in _tables(found)), f"`{command()}`\n"])


def frontier_latex(found: Frontier) -> str:
    """The tables as LaTeX."""
    return "\n".join(map(latex, _tables(found)))


def _tables(found: Frontier) -> list[Table]:
    return [settings_table(found), distances_table(found)]


def heading(found: Frontier) -> str:
    """What the frontier is about: benchmark, split, model and number of images."""
    settings = found.runs[0].settings
    about = f"{settings['benchmark']} · {settings['split']}, {settings['model']}, {found.images:,} images"
    return f"Caption frontier: {about}"


def frontier_verdicts(found: Frontier) -> list[str]:
    """A sentence for each method that does not make the frontier."""
    tested: dict[str, list[Outcome]] = {}
    for one in found.outcomes:
        if one.tested:
            tested.setdefault(one.setting.method, []).append(one)
    return [_frontier_verdict(found, method, some) for method, some in tested.items()]


def _frontier_verdict(found: Frontier, method: str, tested: Sequence[Outcome]) -> str:
    metric = metric_in_sentence(found.metric)
    frontier = f"the frontier of the controls at the same {metric}"
    reached = [(one, away) for one in tested if (away := one.distances[found.metric]) is not None]
    below = sum(away.interval[1] < 0 for _, away in reached)
    above = sum(away.interval[0] > 0 for _, away in reached)
    if len(tested) == 1 and reached:
        one, away = reached[0]
        difference = format_value("chair_i", away.difference, sign=True)
        limits = format_interval("chair_i", away.interval, sign=True)
        outcome = "it helps here" if below else "it does not help here" if above else "no difference is shown here"
        return f"{_label(one)}: CHAIRi minus {frontier} is {difference}, 95 % interval {limits}: {outcome}."
    sentence = (
        f"{title(method)}: of {len(tested)} settings, {below} lie below {frontier} and {above} above it, with "
        "intervals clear of zero."
    )
    beyond = len(tested) - len(reached)
    return sentence + (f" No control reaches the {metric} of {beyond}." if beyond else "")


def settings_table(found: Frontier) -> Table:
    """Every setting with its metrics."""
    names = ["chair_i", "recall", "object_f1", "things", "words"]
    rows = []
    for one in found.outcomes:
        cells = [
            value_cell(name, one.metrics[name], one.intervals[name] if name != "words" else None) for name in names
        ]
        rows.append(_setting_row(found, one, [*cells, Cell(_cost(one.setting.method))]))
    note = (
        "CHAIRi (lower is better), recall and F1 of the different things named, in percent. Things named and words per "
        "caption; verify drops things and leaves the text as it is. 95 % intervals over images. Cost: forward passes a "
        "token."
    )
    return Table("Settings", [*map(metric_heading, names), "Cost"], rows, note)


def distances_table(found: Frontier) -> Table:
    """Every setting of a method against the frontier of the controls."""
    rows = []
    for one in found.outcomes:
        if not one.distances:
            continue
        cells: list[Cell] = []
        for name in (found.metric, LENGTH):
            away = one.distances[name]
            if away is None:
                cells += [Cell("no control reaches it"), Cell(), Cell()]
                continue
            p = one.p_holm.get(name)
            shown = Cell() if p is None else Cell("< 0.001" if p < 0.001 else f"{p:.3f}", "", p)
            cells += [difference_cell("chair_i", away.difference, away.interval), shown, Cell(_mixture(found, away))]
        rows.append(_setting_row(found, one, cells))
    metric = metric_in_sentence(found.metric)
    note = (
        f"CHAIRi minus the lowest CHAIRi of the controls ({', '.join(map(title, found.controls))}), in percentage "
        f"points, at the same {metric} and at the same number of things named; below zero the method is better. 95 % "
        "intervals over images. p: paired permutation test over images, after Holm. A control named twice with shares "
        "is a random mixture."
    )
    sides = (f"at the same {metric}", "at the same length")
    headings = [text for side in sides for text in (f"CHAIRi {side}", "p (Holm)", "Against")]
    return Table("Distance to the frontier of the controls", headings, rows, note)


def _setting_row(found: Frontier, one: Outcome, cells: Sequence[Cell]) -> TableRow:
    control = one.setting.method in found.controls
    return TableRow(_label(one), cells, "control" if control else "", not control)


def _label(one: Outcome) -> str:
    return f"{title(one.setting.method)} {one.strength}".strip()


def _mixture(found: Frontier, away: Distance) -> str:
    parts = [(found.outcomes[number], share) for number, share in away.controls]
    return " + ".join(_label(one) if len(parts) == 1 else f"{share:.0%} {_label(one)}" for one, share in parts)


def _cost(method: str) -> str:
    kind = METHODS[method]
    return kind.cost or ("2 in one batch" if kind.has_branches() else "1")


def frontier_html(found: Frontier) -> str:
    """The page. It loads nothing from the network."""
    template = template_environment().get_template("frontier.html.j2")
    return template.render(found=frontier_data(found), canvas=charts, version=package_version("iava"))


def frontier_data(found: Frontier) -> dict[str, Any]:
    """What a page shows of a frontier, for the macro `frontier` of section.html.j2."""
    methods = list(dict.fromkeys(one.setting.method for one in found.outcomes if one.distances))
    return {
        "heading": heading(found),
        "verdicts": frontier_verdicts(found),
        "pairs": [("The controls", _charts(found, None)), *((title(name), _charts(found, name)) for name in methods)],
        "tables": _tables(found),
        "metric": metric_in_sentence(found.metric),
        "command": command(),
        "folders": [str(folder) for run in found.runs for folder in run.folders],
        "provenance": _provenance(found),
    }


def _provenance(found: Frontier) -> list[tuple[str, list[str]]]:
    """Terms and values that say how the captions were made, those that any of the runs has."""
    settings, manifests = found.runs[0].settings, [one for run in found.runs for one in run.manifests]
    machines = [one.get("machine") or {} for one in manifests]
    terms: list[tuple[str, list[Any]]] = [
        ("Prompt", [one.get("prompt") for one in manifests]),
        ("Decoding", [f"at most {settings.get('max_new_tokens', '?')} new tokens"]),
        ("Seed", [settings["seed"]]),
        ("Versions", [", ".join(f"{k} {v}" for k, v in one.get("versions", {}).items()) for one in manifests]),
        ("Hardware", [", ".join(map(str, machine.values())) for machine in machines]),
    ]
    texts = [(term, [str(value) for value in dict.fromkeys(values) if value]) for term, values in terms]
    return [(term, values) for term, values in texts if values]


def _charts(found: Frontier, method: str | None) -> list[Chart]:
    """Recall or F1, and length, against CHAIRi: of one method, or of all controls (None)."""
    points = [one for one in found.outcomes if _has_point(found, one, method)]
    return [_chart(found, points, method, name) for name in (found.metric, LENGTH)]


def _has_point(found: Frontier, one: Outcome, method: str | None) -> bool:
    return one.setting.method in found.controls if method is None else one.setting.method == method


def _chart(found: Frontier, some: Sequence[Outcome], method: str | None, name: str) -> Chart:
    x_ends = _ends([one.intervals["chair_i"] for one in found.outcomes])
    y_ends = _ends([one.intervals[name] for one in found.outcomes])
    reference, own = found.curves["", name], found.curves[method, name] if method else []
    points = [_point(found, one, name, x_ends, y_ends, with_title=method is None) for one in some]
    return Chart(
        f"{metric_heading(name)} and CHAIRi",
        "CHAIRi, % (lower is better)",
        metric_heading(name) + (", %" if display_scale(name) == 100 else " per caption"),
        ticks(x_ends, LEFT, RIGHT, 100),
        ticks(y_ends, BOTTOM, TOP, display_scale(name)),
        separated(points),
        curve=_line(reference, x_ends, y_ends),
        band=_area(reference, x_ends, y_ends),
        own=_line(own, x_ends, y_ends),
        own_band=_area(own, x_ends, y_ends),
    )


def _ends(intervals: Sequence[Interval]) -> Ends:
    low, high = min(low for low, _ in intervals), max(high for _, high in intervals)
    margin = 0.05 * (high - low) or 0.01
    return max(0.0, low - margin), high + margin


def _point(found: Frontier, one: Outcome, name: str, x_ends: Ends, y_ends: Ends, *, with_title: bool) -> Point:
    x, y = one.metrics["chair_i"], one.metrics[name]
    strength = ", ".join(part.partition("=")[2] for part in one.strength.split(", ") if part)
    label = f"{title(one.setting.method)} {strength}".strip() if with_title else strength
    at_y = pixel(y, y_ends, BOTTOM, TOP)
    return Point(
        x=(at_x := pixel(x, x_ends, LEFT, RIGHT)),
        y=at_y,
        # The bands show the intervals.
        left=at_x,
        right=at_x,
        low=at_y,
        high=at_y,
        label=label,
        label_y=at_y,
        highlighted=one.setting.method not in found.controls,
        text=f"{_label(one)}: CHAIRi {format_value('chair_i', x)}, {metric_in_sentence(name)} {format_value(name, y)}",
    )


def _line(curve: FrontierCurve, x_ends: Ends, y_ends: Ends) -> str:
    pixels = [(pixel(x, x_ends, LEFT, RIGHT), pixel(y, y_ends, BOTTOM, TOP)) for y, x, _ in curve]
    return "M" + "L".join(f"{x} {y}" for x, y in pixels) if len(pixels) > 1 else ""


def _area(curve: FrontierCurve, x_ends: Ends, y_ends: Ends) -> str:
    left = [(y, limits[0], limits) for y, _, limits in curve]
    right = [(y, limits[1], limits) for y, _, limits in reversed(curve)]
    outline = _line([*left, *right], x_ends, y_ends)
    return f"{outline}Z" if outline else ""
