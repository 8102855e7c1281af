"""The commands that need no model: `iava score`, `iava data check`, `iava data build-pope`."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer


def score(
    bench: Annotated[str, typer.Argument(help="pope, mme, textvqa, chair or amber.", show_default=False)],
    predictions: Annotated[Path, typer.Argument(help="JSON lines, one answer a line.", show_default=False)],
    parser: Annotated[
        str | None,
        typer.Option(help="How yes and no are read: word (default), substring or exact; mme: official (default) too."),
    ] = None,
    instances: Annotated[Path | None, typer.Option(help="chair: COCO's instances JSON.")] = None,
    captions: Annotated[
        Path | None, typer.Option(help="chair: COCO's captions JSON; what it names counts as being there too.")
    ] = None,
    annotations: Annotated[
        Path | None, typer.Option(help="amber: annotations.json, with relation.json and safe_words.txt beside it.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Scores a file of answers, whatever produced them."""
    from iava.bench.predictions import score_file

    result, remark = score_file(
        bench, predictions, parser=parser, instances=instances, captions=captions, annotations=annotations
    )
    if remark:
        print(f"iava: {remark}", file=sys.stderr)
    if as_json:
        print(json.dumps(result, indent=2, ensure_ascii=False))
    else:
        _print_table(result)


def _print_table(result: dict[str, Any]) -> None:
    """One row for each group of numbers, one column for each name that any of them has."""
    from rich import box
    from rich.table import Table

    from iava.console import terminal

    plain = {name: value for name, value in result.items() if not isinstance(value, dict | list)}
    groups = {"": plain} if any(isinstance(value, float) for value in plain.values()) else {}
    for name, value in result.items():
        if not isinstance(value, dict):
            continue
        nested = all(isinstance(one, dict) for one in value.values())
        groups |= value if nested else {name: value}
    heading = " ".join(str(result[name]) for name in ("benchmark", "parser") if name in result)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=heading, title_justify="left")
    columns = dict.fromkeys(
        name for group in groups.values() for name, value in group.items() if not isinstance(value, str)
    )
    table.add_column("")
    for column in columns:
        table.add_column(column, justify="right")
    for name, group in groups.items():
        table.add_row(name, *(_number(group.get(column)) for column in columns))
    console = terminal()
    console.print(table)
    if result.get("missing"):
        console.print(f"not asked: {', '.join(result['missing'])}", markup=False)


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.2f}" if value > 2 else f"{value:.4f}"
