"""How the study of regions is shown: a table, maps of layers and heads, samples side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from iava.bench.plots import OURS, REFERENCE, estimates, panels, save
from iava.bench.pope import Region
from iava.bench.results import number, pair
from iava.bench.tables import Cell, Line, Table
from iava.bench.task import Question
from iava.bench.typeset import markdown
from iava.lvlm import Explanation

Sample = tuple[Image.Image, Question, Explanation]
_HEADS = 24
"""How many heads the table shows."""
_COLUMNS = {
    "selected_inside": "Selected inside",
    "chance": "By chance",
    "times_chance": "Times chance",
    "elsewhere": "Selected on other things",
    "general": "General attention inside",
    "query": "Query attention inside",
    "query_over_general": "Query / general",
}
_QUOTIENTS = ("times_chance", "query_over_general")


def table(found: Mapping[str, Any], told: Mapping[str, Any]) -> str:
    lines = [Line("chosen layers", _cells(found["mean"]))]
    depth = len(found["layers"]["chance"])
    lines += [Line(f"layer {n}", _cells({k: v[n] for k, v in found["layers"].items()})) for n in range(depth)]
    of_heads = {(n, h): one[0] for n, row in enumerate(found["heads"]["query"]) for h, one in enumerate(row)}
    for n, h in sorted(of_heads, key=lambda head: -of_heads[head])[:_HEADS]:
        lines.append(Line(f"layer {n}, head {h}", _cells({k: v[n][h] for k, v in found["heads"].items()})))
    settings = ", ".join(f"{key}={value}" for key, value in told["method"].items() if key in ("top_i", "lam", "layers"))
    note = (
        f"{found['questions']:,} questions about {told['images']:,} pictures ({told['pictures']}, model "
        f"{told['model']}); the boxes have {number('', found['area'])} % of the {found['tokens']:.0f} tokens; "
        f"{settings}; of {len(of_heads)} heads the {min(_HEADS, len(of_heads))} with most query attention inside. "
        f"Percent, quotients as they are; 95 % intervals over images; seed {told['seed']}."
    )
    title = "Where the selected tokens and the attention lie"
    return markdown(Table(title, list(_COLUMNS.values()), lines, note, head="Attention of"))


def _cells(values: Mapping[str, Any]) -> list[Cell]:
    cells = []
    for name in _COLUMNS:
        value, limits = values[name]
        if value is None:
            cells.append(Cell("–"))
        elif name in _QUOTIENTS:
            cells.append(Cell(f"{value:.2f}", f"[{limits[0]:.2f}, {limits[1]:.2f}]"))
        else:
            cells.append(Cell(number("", value), pair("", limits)))
    return cells


def drawn(found: Mapping[str, Any]) -> Figure:
    layers = found["layers"]
    figure, axes = panels(1, 4)
    labels = [str(n) for n in range(len(layers["chance"]))]
    reference = ("area of the boxes", found["area"], None)
    values, limits = zip(*layers["selected_inside"], strict=True)
    estimates(axes[0], values, limits, labels=labels, reference=reference)
    axes[0].set(title="Selected tokens inside, %", xlabel="layer")
    for panel, name in zip(axes[1:], ("times_chance", "general", "query"), strict=True):
        heads = np.array([[np.nan if one[0] is None else one[0] for one in row] for row in found["heads"][name]])
        # Chance is white: what is above it is of one colour, what is below of the other.
        times = heads if name == "times_chance" else heads / found["area"]
        shown = panel.imshow(np.log2(times.clip(0.125, 8)), cmap="RdBu_r", vmin=-3, vmax=3, aspect="auto")
        panel.set(title=f"{_COLUMNS[name]}, times chance", xlabel="head", ylabel="layer")
        panel.set(xticks=range(heads.shape[1]), yticks=range(heads.shape[0]))
        bar = figure.colorbar(shown, ax=panel, ticks=range(-3, 4))
        bar.ax.set_yticklabels(["1/8", "1/4", "1/2", "1", "2", "4", "8"])
    axes[1].set_title("Selected tokens inside, times chance")
    return figure


def show_samples(samples: Sequence[Sample], path: Path) -> None:
    """Of each picture what is asked about, both attentions and the selected tokens, side by side."""
    figure, axes = panels(-(-len(samples) // 2), 8, width=1.5, height=1.7)
    for panel in axes:
        panel.set_axis_off()
    for n, (picture, question, seen) in enumerate(samples):
        assert seen.att_general is not None
        assert seen.att_query is not None
        assert seen.selected is not None
        row, region = axes[4 * n : 4 * n + 4], question.region or ()
        most = max(float(seen.att_general.max()), float(seen.att_query.max()))
        _show(row[0], picture, region, f"asked: {question.category}")
        for panel, weights, name in ((row[1], seen.att_general, "general"), (row[2], seen.att_query, "query")):
            _show(panel, picture, region, name, seen.boxes, (weights / most).numpy())
        _show(row[3], picture, region, "selected", seen.boxes, seen.selected.float().numpy())
    save(figure, path)


def _show(
    axes: Axes,
    picture: Image.Image,
    region: Region,
    title: str,
    boxes: np.ndarray | None = None,
    weights: np.ndarray | None = None,
) -> None:
    axes.imshow(picture)
    axes.set_title(title, fontsize=7, pad=2)
    if boxes is not None and weights is not None:
        axes.imshow(np.full((picture.height, picture.width), 255), cmap="gray", vmin=0, vmax=255, alpha=0.35)
        for (x0, y0, x1, y1), weight in zip(boxes, weights, strict=True):
            axes.add_patch(
                Rectangle((x0, y0), x1 - x0, y1 - y0, color=OURS, alpha=0.85 * float(weight) ** 0.5, linewidth=0)
            )
    for x0, y0, x1, y1 in region:
        axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=REFERENCE, linewidth=1.2))
