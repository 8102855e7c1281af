"""The command `iava score`."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from iava.benchmarks.registry import BENCHMARKS
from iava.cli.options import Json, Lemmatizer, ParserName, Pipeline, SpacyModel, Synonyms, given_options


def score(
    bench: Annotated[str, typer.Argument(help=f"Benchmark: {', '.join(BENCHMARKS)}.", show_default=False)],
    predictions: Annotated[
        Path,
        typer.Argument(
            help="Answers as JSON lines or an array; for mme also the folder of its own script. Formats of other "
            "projects and the records of a run are read, too.",
            show_default=False,
        ),
    ],
    parser: ParserName = None,
    instances: Annotated[Path | None, typer.Option(help="COCO instances JSON; required for chair.")] = None,
    captions: Annotated[
        Path | None, typer.Option(help="COCO captions JSON, for chair: objects in them count as present.")
    ] = None,
    annotations: Annotated[
        Path | None,
        typer.Option(
            help="annotations.json of AMBER, with relation.json and safe_words.txt beside it; required for amber."
        ),
    ] = None,
    questions: Annotated[
        Path | None,
        typer.Option(help="Questions with their labels, for answers without: POPE's files or folder, TextVQA's JSON."),
    ] = None,
    synonyms: Synonyms = None,
    lemmatizer: Lemmatizer = None,
    pipeline: Pipeline = None,
    spacy_model: SpacyModel = None,
    as_json: Json = False,
) -> None:
    """Score a file of answers from any source."""
    from iava.evaluation.predictions import score_file

    files = given_options(instances=instances, captions=captions, annotations=annotations, questions=questions)
    options = given_options(synonyms=synonyms, lemmatizer=lemmatizer, pipeline=pipeline, spacy_model=spacy_model)
    result, remark = score_file(bench, predictions, parser=parser, files=files, options=options)
    if remark:
        print(f"iava: {remark}", file=sys.stderr)
    if as_json:
        print(json.dumps(result, indent=2, ensure_ascii=False))
    elif "methods" in result:
        for method, found in result["methods"].items():
            _print_table({"benchmark": f"{bench} {method}", **given_options(parser=result.get("parser")), **found})
    else:
        _print_table(result)


def _print_table(result: dict[str, Any]) -> None:
    """Prints one row per group of numbers and one column per metric."""
    from rich.markup import escape

    from iava.cli.console import terminal
    from iava.reporting.folded_table import FoldedTable

    plain = {name: value for name, value in result.items() if not isinstance(value, dict | list)}
    groups = {"": plain} if any(isinstance(value, float) for value in plain.values()) else {}
    for name, value in result.items():
        if not isinstance(value, dict):
            continue
        nested = all(isinstance(one, dict) for one in value.values())
        groups |= value if nested else {name: value}
    metrics = list(
        dict.fromkeys(name for group in groups.values() for name, value in group.items() if not isinstance(value, str))
    )
    rows = [[escape(name), *(_cell_text(group.get(metric)) for metric in metrics)] for name, group in groups.items()]
    console = terminal()
    heading = " ".join(str(result[name]) for name in ("benchmark", "parser") if name in result)
    console.print(heading, style="italic", markup=False)
    console.print(FoldedTable(["", *metrics], [rows]))
    if result.get("missing"):
        console.print(f"not asked: {', '.join(result['missing'])}", markup=False)


def _cell_text(value: float | None) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.2f}" if value > 2 else f"{value:.4f}"
