"""One self-contained page about a run: what was asked and seen, what was measured, and what made it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from iava.bench.pope import PARSERS
from iava.bench.results import CONTROLS, limits, p_value, percent, signed, signed_limits, title, verdicts
from iava.explain.overlay import data_uri, reading, shrunk
from iava.explain.page import environment
from iava.explain.words import differing
from iava.lvlm import Answer

PARSER_NOTES = {
    "word": "word-level, yes XOR no",
    "substring": "substring, as the papers' scripts",
    "exact": "the whole answer is yes or no",
}
_NUMBERS = {"precision": "Precision", "recall": "Recall", "f1": "F1", "yes_ratio": "Yes-ratio", "auc": "AUC"}


@dataclass(frozen=True)
class Example:
    """A picture with what was asked about it.

    Args:
        name: the image's id.
        picture: the image that was asked about.
        questions: question, truth if known, and two answers: greedy's and the method's with an explanation.
    """

    name: str
    picture: Image.Image
    questions: Sequence[tuple[str, str | None, Answer, Answer]]


def report_page(
    results: Mapping[str, Any], groups: Sequence[tuple[str, str, Sequence[Example]]], *, command: str, prompt: str
) -> str:
    """The report as HTML that needs no network.

    Args:
        results: what `iava.bench.runner.evaluate` returned.
        groups: examples under a heading, with a sentence that says how they were chosen.
        command: what the user typed.
        prompt: how a question looks when the model reads it.
    """
    rows, manifest = results["rows"], results["manifest"]
    parse = PARSERS[manifest["settings"]["parser"]]
    return (
        environment()
        .get_template("bench/report.html.j2")
        .render(
            verdicts=verdicts(rows),
            groups=[
                (heading, note, [_example(e, parse) for e in examples])
                for heading, note, examples in groups
                if examples
            ],
            tables=_tables(rows),
            made=_made(rows, manifest, command, prompt),
            split=manifest["settings"]["split"],
            images=manifest["settings"]["limit"],
            model=manifest["settings"]["model"],
            questions=max(row["n"] for row in rows),
            version=manifest["versions"]["iava"],
        )
    )


def _example(example: Example, parse: Callable[[str], str | None]) -> dict[str, Any]:
    small = shrunk(example.picture)
    return {
        "name": example.name,
        "picture": data_uri(small),
        "ratio": f"{small.width} / {small.height}",
        "questions": [
            {
                "question": question,
                "truth": truth,
                "greedy": differing(greedy.text, ours.text)[0],
                "ours": differing(greedy.text, ours.text)[1],
                "greedy_right": None if truth is None else parse(greedy.text) == truth,
                "ours_right": None if truth is None else parse(ours.text) == truth,
                "title": title(ours.method),
                "reading": reading(ours, example.picture.size, each_layer=False),
            }
            for question, truth, greedy, ours in example.questions
        ],
    }


def _tables(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A table a category, each on the same accuracy axis."""
    ends = [end for row in rows for end in row["intervals"]["accuracy"]]
    low, high = max(0.0, min(ends) - 0.02), min(1.0, max(ends) + 0.02)

    def place(share: float) -> str:
        return f"{100 * (share - low) / (high - low):.2f}"

    tables = []
    for category in dict.fromkeys(row["category"] for row in rows):
        chosen = [row for row in rows if row["category"] == category]
        tables.append(
            {
                "category": category,
                "n": chosen[0]["n"],
                "axis": (percent(low), percent(high)),
                "headings": list(_NUMBERS.values()),
                "rows": [_cells(row, place) for row in chosen],
            }
        )
    return tables


def _cells(row: Mapping[str, Any], place: Callable[[float], str]) -> dict[str, Any]:
    metrics, intervals, comparison = row["metrics"], row["intervals"], row["comparison"]
    low, high = intervals["accuracy"]
    return {
        "title": title(row["method"]),
        "control": row["method"] in CONTROLS,
        "best": comparison is None and row["method"] in CONTROLS,
        "accuracy": percent(metrics["accuracy"]),
        "limits": limits(intervals["accuracy"]),
        "at": place(metrics["accuracy"]),
        "from": place(low),
        "to": place(high),
        "numbers": [
            (percent(metrics[name]), limits(intervals[name]) if name in intervals else "") for name in _NUMBERS
        ],
        "unparsed": metrics["unparsed"],
        "seconds": f"{row['seconds']:.3f}",
        "difference": signed(comparison["difference"]) if comparison else None,
        "difference_limits": signed_limits(comparison["interval"]) if comparison else None,
        "p": p_value(comparison) if comparison else None,
    }


def _made(
    rows: Sequence[Mapping[str, Any]], manifest: Mapping[str, Any], command: str, prompt: str
) -> list[tuple[str, list[str]]]:
    settings, machine, versions = manifest["settings"], manifest["machine"], manifest["versions"]
    overall = [row for row in rows if row["category"] == "overall"]
    unparsed = sum(round(row["metrics"]["unparsed"] * row["n"]) for row in overall)
    errors = sum(row["errors"] for row in overall)
    return [
        ("Command", [command]),
        ("Model", [f"{settings['model']}, weights {settings['weights']}"]),
        ("Questions", [f"POPE-style on {settings['split']}: random, popular, adversarial; half yes, half no"]),
        ("Decoding", [f"at most {settings['max_new_tokens']} new tokens", *(_method(row) for row in overall)]),
        ("Prompt", [prompt]),
        ("Parser", [f"{settings['parser']} ({PARSER_NOTES[settings['parser']]})"]),
        ("Not counted", [f"{unparsed} answers unparsed (counted as wrong), {errors} errors (left out)"]),
        ("Seed", [str(settings["seed"])]),
        ("Statistics", ["95 % bootstrap over images; exact McNemar against the best control, Holm over methods"]),
        ("Versions", [", ".join(f"{name} {number}" for name, number in versions.items())]),
        *([("Revision", [manifest["git"]])] if manifest["git"] else []),
        (
            "Hardware",
            [f"{machine['processor']}, {machine['threads']} threads, {machine['device']}, {machine['dtype']}"],
        ),
        ("Started", [manifest["started"]]),
    ]


def _method(row: Mapping[str, Any]) -> str:
    settings = ", ".join(f"{key}={value}" for key, value in row["settings"].items() if value is not None)
    return f"{title(row['method'])}: {settings}" if settings else title(row["method"])
