"""The command `iava bench`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from iava.cli.options import method_list, number_list
from iava.errors import IavaError


def bench(
    out: Annotated[Path | None, typer.Option(help="New folder for cost.json and cost.png.")] = None,
    shape: Annotated[
        str,
        typer.Option(help="Model shape, built with random weights: small, pocket, llava-1.5-7b or instructblip-7b."),
    ] = "small",
    methods: Annotated[
        str,
        typer.Option(
            help="Methods to time, separated by commas; METHOD:NEGATIVE chooses the negative image, such as iava:hide; "
            "METHOD:NEGATIVE:lazy leaves the contrast branch out where it cannot change the step."
        ),
    ] = "greedy,apc,iava:zeros,iava:drop,iava:hide",
    baseline: Annotated[
        list[str] | None, typer.Option(help="Another implementation to time: naive, or mitigv:METHOD. Repeatable.")
    ] = None,
    peer: Annotated[list[str] | None, typer.Option(hidden=True, help="Deprecated name of --baseline.")] = None,
    tokens: Annotated[str, typer.Option(help="Numbers of new tokens, separated by commas.")] = "1,32,128",
    questions: Annotated[
        str, typer.Option(help="Numbers of questions per image, 1 to 6, separated by commas.")
    ] = "1,6",
    batch: Annotated[str, typer.Option(help="Numbers of images per batch, separated by commas.")] = "1,8",
    repeats: Annotated[int, typer.Option(help="Number of times that each workload is timed.")] = 5,
    device: Annotated[str | None, typer.Option(help="cpu or cuda. Default: cuda if there is a GPU, else cpu.")] = None,
    dtype: Annotated[
        str | None, typer.Option(help="float32, float16 or bfloat16. Default: float16 on a GPU, float32 on a CPU.")
    ] = None,
    count: Annotated[
        bool,
        typer.Option(
            help="Also count kernels, synchronisations, decoder passes and new keys and values, for each token. "
            "With --repeats 0, only count."
        ),
    ] = False,
    compile: Annotated[
        bool, typer.Option(help="Run decoding steps compiled, with a static cache: plain generate and the methods.")
    ] = False,
    table: Annotated[
        Path | None, typer.Option(help="Print an existing cost.json as a Markdown table; measure nothing.")
    ] = None,
) -> None:
    """Measure time, peak memory and work of methods relative to plain greedy `generate`."""
    if (out is None) == (table is None):
        raise IavaError("name either a new folder to measure into (--out), or a cost.json to print (--table)")
    if table is not None:
        from iava.cost.report import cost_markdown, read_results

        print(cost_markdown(read_results(table)), end="")
        return
    assert out is not None
    from transformers.utils import logging

    from iava.cli.console import progress
    from iava.cost.bench import RESULTS, measure
    from iava.cost.plan import CostPlan
    from iava.cost.report import cost_markdown, plot_costs

    plan = CostPlan(
        shape=shape,
        methods=method_list("methods", methods) if methods else [],
        baselines=[*(baseline or []), *(peer or [])],
        tokens=number_list("tokens", tokens),
        questions=number_list("questions", questions),
        batch=number_list("batch", batch),
        repeats=repeats,
        device=device,
        dtype=dtype,
        count=count,
        compile=compile,
    )
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    last = ""
    with progress() as advance:

        def report(workload: str, done: int, total: int) -> None:
            nonlocal last
            advance("runs", done, total)
            # Without a terminal the progress bar shows nothing until the end.
            if workload != last and not sys.stderr.isatty():
                print(f"iava: {workload}, from run {done} of {total}", file=sys.stderr, flush=True)
            last = workload

        results = measure(plan, out, report)
    print(cost_markdown(results))
    print(f"results: {out / RESULTS}")
    if results["cells"]:
        plot_costs(results, out / "cost.png")
        print(f"plot: {out / 'cost.png'}")
