"""The commands `iava data ...`."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from iava.benchmarks.registry import BENCHMARKS, benchmark
from iava.cli.options import Json, Limit
from iava.errors import IavaError

commands = typer.Typer(help="List the benchmarks in a folder, and build new ones.")


@commands.command()
def check(
    folder: Annotated[
        Path, typer.Option("--data", help="Folder with one subfolder per data set, or the folder of one data set.")
    ] = Path("data"),
    as_json: Json = False,
) -> None:
    """List the benchmarks in a folder: which are ready, broken or missing, and where to get them."""
    from iava.benchmarks.sources.find import check as check_all
    from iava.files import reading

    with reading(folder):
        is_file = folder.exists() and not folder.is_dir()
    if is_file:
        raise IavaError(f"{folder} is a file: name the folder with one subfolder per data set")
    found = check_all(folder)
    if as_json:
        print(json.dumps([asdict(one) for one in found], indent=2, ensure_ascii=False))
    else:
        from iava.cli.console import terminal

        console = terminal()
        width = max(len(one.name) for one in found)
        for one in found:
            console.print(f"{one.name:<{width}} {one.state:<8} {one.detail}", markup=False)
    broken = [one.name for one in found if one.state == "broken"]
    if broken:
        raise IavaError(f"{', '.join(broken)} in {folder} cannot be used as it is")


@commands.command()
def get(
    name: Annotated[str, typer.Argument(help=f"Data set: {', '.join(BENCHMARKS)}.", show_default=False)],
    folder: Annotated[
        Path, typer.Option("--data", help="Folder with one subfolder per data set; gets another one.")
    ] = Path("data"),
) -> None:
    """Download a data set from the Hugging Face Hub. The same command continues a download that was stopped."""
    from iava.benchmarks.sources.download import download
    from iava.benchmarks.sources.find import find

    asked = benchmark(name)
    place = download(asked, folder)
    task = find(asked, folder, None)
    print(f"{len(task.questions)} questions about {len(task.images)} images: {place}")


@commands.command()
def build_pope(
    instances: Annotated[
        Path, typer.Option(help="Annotated objects in COCO's instances JSON format.", show_default=False)
    ],
    images: Annotated[Path, typer.Option(help="Folder of the images.", show_default=False)],
    out: Annotated[Path, typer.Option(help="JSON-lines file for the questions.", show_default=False)],
    per_image: Annotated[
        int, typer.Option(help="Number of yes questions, and of no questions, per image and category.")
    ] = 3,
    limit: Annotated[int | None, typer.Option(help="Draw only N images at random. Default: all images.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Random seed for images, objects and random negatives.")] = 0,
) -> None:
    """Build POPE questions (random, popular, adversarial) for any data set with annotated objects."""
    from iava.benchmarks.pope import pope_lines
    from iava.files import check_file, write_text

    check_file(out)
    lines = pope_lines(instances, images, per_image=per_image, limit=limit, seed=seed)
    write_text(out, lines)
    print(f"{lines.count(chr(10))} questions: {out}")


@commands.command()
def write_pocket(
    out: Annotated[Path, typer.Option(help="New folder for the data sets.", show_default=False)],
    split: Annotated[str, typer.Option(help="Split to write, such as test, test-heldout or test-blur.")] = "test",
    limit: Limit = None,
) -> None:
    """Write the pocket scenes in the published formats of POPE, MME and TextVQA."""
    from iava.benchmarks.sources.pocket_files import write_pocket as write

    print(f"{', '.join(write(out, split, limit))}: {out}")
