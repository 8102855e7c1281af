"""The command that measures what methods cost: `iava bench`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from iava.errors import IavaError


def bench(
    out: Annotated[Path | None, typer.Option(help="A new folder for cost.json and cost.png.")] = None,
    shape: Annotated[
        str, typer.Option(help="small, pocket, llava-1.5-7b or instructblip-7b; random weights.")
    ] = "small",
    methods: Annotated[
        str, typer.Option(help="A list of methods; a negative image is named behind a colon.")
    ] = "greedy,apc,iava:zeros,iava:drop,iava:hide",
    peer: Annotated[list[str] | None, typer.Option(help="Another's way: naive or mitigv; can be repeated.")] = None,
    tokens: Annotated[str, typer.Option(help="Numbers of new tokens.")] = "1,32,128",
    questions: Annotated[str, typer.Option(help="Numbers of questions an image, up to 6.")] = "1,6",
    batch: Annotated[str, typer.Option(help="Numbers of images.")] = "1,8",
    repeats: Annotated[int, typer.Option(help="How often each is timed.")] = 5,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; a GPU, if there is one.")] = None,
    dtype: Annotated[
        str | None, typer.Option(help="float32, float16 or bfloat16; float16 on a GPU, float32 elsewhere.")
    ] = None,
    table: Annotated[Path | None, typer.Option(help="Measure nothing: print this cost.json as Markdown.")] = None,
) -> None:
    """Measures time, peak memory and work of methods over plain greedy generate, taking turns in one process."""
    if (out is None) == (table is None):
        raise IavaError("name either a new folder to measure into (--out), or a cost.json to print (--table)")
    if table is not None:
        from iava.cost.report import markdown, read_results

        print(markdown(read_results(table)), end="")
        return
    assert out is not None
    names = [name.strip() for name in methods.split(",") if name.strip()]
    if len(set(names)) < len(names):
        raise IavaError(f"methods is {methods!r}: it must be a list of different methods such as greedy,iava:hide")

    from transformers.utils import logging

    from iava.cli.console import progress
    from iava.cost.bench import RESULTS, Plan, measure
    from iava.cost.report import markdown, plot

    plan = Plan(
        shape=shape,
        methods=names,
        peers=peer or [],
        tokens=_numbers("tokens", tokens),
        questions=_numbers("questions", questions),
        batch=_numbers("batch", batch),
        repeats=repeats,
        device=device,
        dtype=dtype,
    )
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    told = ""
    with progress() as advance:

        def report(load: str, done: int, total: int) -> None:
            nonlocal told
            advance("runs", done, total)
            # Where there is no terminal the bar is silent until the end.
            if load != told and not sys.stderr.isatty():
                print(f"iava: {load}, from run {done} of {total}", file=sys.stderr, flush=True)
            told = load

        results = measure(plan, out, report)
    plot(results, out / "cost.png")
    print(markdown(results))
    print(f"results and plot: {out / RESULTS}, {out / 'cost.png'}")


def _numbers(option: str, text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise IavaError(f"{option} is {text!r}: it must be a list of whole numbers such as 1,32") from None
