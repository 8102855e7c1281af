"""Figures of the regions study: attention of each head inside the region, and samples with their attention maps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from PIL import Image

from iava.benchmarks.task import Question
from iava.lvlm.answers import Explanation
from iava.reporting.plots import REFERENCE_COLOUR, SERIES_COLOUR, panels


@dataclass(frozen=True)
class RegionSample:
    """An image with a question and the explanation of its answer."""

    image: Image.Image
    question: Question
    explanation: Explanation


def heads_figure(results: Mapping[str, Any], names: Sequence[str]) -> Figure:
    """For each head, how many times chance the selected tokens and the attention lie inside. Chance is white.

    Args:
        results: see `iava.studies.regions.run_regions_study`.
        names: the names of all attention maps, those of single heads last.
    """
    layers, heads = results["shape"]
    figure, axes = panels(1, 3, width=3.4)
    titles = {"times_chance": "Selected tokens", "general": "General attention", "query": "Query attention"}
    for panel, (key, title) in zip(axes, titles.items(), strict=True):
        values = [results["attention"][name][key] for name in names[1 + layers :]]
        ratios = np.array([np.nan if value is None else value[0] for value in values]).reshape(layers, heads)
        ratios = ratios if key == "times_chance" else ratios / results["area"]
        image = panel.imshow(np.log2(ratios.clip(0.125, 8)), cmap="RdBu_r", vmin=-3, vmax=3, aspect="auto")
        panel.set(title=f"{title} inside,\ntimes chance", xlabel="head", ylabel="layer")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.yaxis.set_major_locator(MaxNLocator(integer=True))
    bar = figure.colorbar(image, ax=axes, ticks=range(-3, 4))
    bar.ax.set_yticklabels(["1/8", "1/4", "1/2", "1", "2", "4", "8"])
    return figure


def samples_figure(samples: Sequence[RegionSample]) -> Figure:
    """Each sample's image, both attention maps and selected tokens, with the region outlined."""
    figure, axes = panels(-(-len(samples) // 2), 8, width=1.3, height=1.5)
    for panel in axes:
        panel.set_axis_off()
    for n, sample in enumerate(samples):
        explanation = sample.explanation
        assert explanation.boxes is not None
        assert explanation.att_general is not None
        assert explanation.att_query is not None
        assert explanation.selected is not None
        highest = torch.stack([explanation.att_general, explanation.att_query]).max()
        overlays = {
            sample.question.question.removesuffix(" in the image?"): None,
            "general": explanation.att_general / highest,
            "query": explanation.att_query / highest,
            "selected": explanation.selected.float(),
        }
        for panel, (title, weights) in zip(axes[4 * n : 4 * n + 4], overlays.items(), strict=True):
            panel.imshow(sample.image)
            panel.set_title(title, fontsize=7, pad=2)
            if weights is not None:
                _shade(panel, explanation.boxes, weights.tolist())
            for x0, y0, x1, y1 in sample.question.region or ():
                corner, size = (x0, y0), (x1 - x0, y1 - y0)
                panel.add_patch(Rectangle(corner, *size, fill=False, edgecolor=REFERENCE_COLOUR, linewidth=1.2))
    return figure


def _shade(axes: Axes, boxes: np.ndarray, weights: Sequence[float]) -> None:
    for (x0, y0, x1, y1), weight in zip(boxes, weights, strict=True):
        alpha = 0.85 * weight**0.5
        axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, color=SERIES_COLOUR, alpha=alpha, linewidth=0))
