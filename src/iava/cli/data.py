"""The commands that need no model: `iava score`, `iava merge`, `iava data`."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from iava.errors import IavaError


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
    from iava.evaluation.predictions import score_file

    result, remark = score_file(
        bench, predictions, parser=parser, instances=instances, captions=captions, annotations=annotations
    )
    if remark:
        print(f"iava: {remark}", file=sys.stderr)
    if as_json:
        print(json.dumps(result, indent=2, ensure_ascii=False))
    else:
        _print_table(result)


def merge(
    shards: Annotated[list[Path], typer.Argument(help="The folders of all shards of a run.", show_default=False)],
    out: Annotated[Path, typer.Option(help="A new folder for the whole run.", show_default=False)],
) -> None:
    """Joins the shards of a run that `iava eval --shard` made."""
    from iava.evaluation.merge import merge as join

    print_results(join(shards, out), out)


def print_results(results: dict[str, Any], folder: Path) -> None:
    """Tells what was measured; what must be known beside the table goes to standard error."""
    from iava.cli.console import terminal
    from iava.evaluation.records import Records
    from iava.reporting.renderers import console_table
    from iava.reporting.verdicts import remarks, verdicts

    console = terminal()
    console.print(console_table(results["rows"]))
    for sentence in verdicts(results["rows"]):
        console.print(sentence, style="bold", markup=False)
    console.print(f"records and results: {folder}", markup=False)
    for remark in remarks(Records(folder / "records.jsonl").rows):
        print(f"iava: {remark}", file=sys.stderr)


def check(
    folder: Annotated[Path, typer.Option("--data", help="Holds a folder for each data set.")] = Path("data"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Says which benchmarks are in a folder, what is wrong with them, and where to get the others."""
    from iava.benchmarks.sources import check as check_all

    if folder.exists() and not folder.is_dir():
        raise IavaError(f"{folder} is a file: name the folder that holds a folder for each data set")
    found = check_all(folder)
    if as_json:
        print(json.dumps([asdict(one) for one in found], indent=2, ensure_ascii=False))
    else:
        from iava.cli.console import terminal

        console = terminal()
        for one in found:
            console.print(f"{one.name:<12} {one.state:<8} {one.detail}", markup=False)
    broken = [one.name for one in found if one.state == "broken"]
    if broken:
        raise IavaError(f"{', '.join(broken)} in {folder} cannot be used as it is")


def build_pope(
    instances: Annotated[Path, typer.Option(help="Annotated objects, as COCO's instances JSON.", show_default=False)],
    images: Annotated[Path, typer.Option(help="The folder of the images.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Where the questions go, as JSON lines.", show_default=False)],
    per_image: Annotated[int, typer.Option(help="Questions of each truth an image and category.")] = 3,
    limit: Annotated[int | None, typer.Option(help="Only so many images, drawn at random.")] = None,
    seed: Annotated[int, typer.Option(help="Of the images, the objects asked for and the random negatives.")] = 0,
) -> None:
    """Builds POPE's questions (random, popular, adversarial) for any data set with annotated objects."""
    from iava.benchmarks.layouts import pope_lines
    from iava.files import check_file, write_text

    check_file(out)
    lines = pope_lines(instances, images, per_image=per_image, limit=limit, seed=seed)
    write_text(out, lines)
    print(f"{lines.count(chr(10))} questions: {out}")


def write_pocket(
    out: Annotated[Path, typer.Option(help="A new folder for the data sets.", show_default=False)],
    split: Annotated[str, typer.Option(help="tune, tune-heldout, test or test-heldout.")] = "test",
    limit: Annotated[int | None, typer.Option(help="Only the first so many images.")] = None,
) -> None:
    """Writes pocket scenes as POPE, MME and TextVQA are published, to try what reads those."""
    from iava.benchmarks.pocket_files import write_pocket as write

    print(f"{', '.join(write(out, split, limit))}: {out}")


def _print_table(result: dict[str, Any]) -> None:
    """One row for each group of numbers, one column for each name that any of them has."""
    from rich import box
    from rich.table import Table

    from iava.cli.console import terminal

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
