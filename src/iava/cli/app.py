"""The command line: ask, demo, methods, eval, reproduce, tune, ablate, study, bench, merge, report, score, data."""

import json
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from iava.cli import ablate, bench, report, reproduce, study, tune
from iava.cli import data as data_commands
from iava.cli import methods as methods_command
from iava.cli.settings import method_names, settings_of, with_settings
from iava.errors import IavaError

# Nothing here imports torch before it is needed: `iava --help` must not wait for it.

app: typer.Typer = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Instruction-aligned visual attention: fewer hallucinations, measured honestly.",
)

# The base of typer's complaints about options; which click it comes from depends on typer's version.
_USAGE_ERROR: Any = typer.BadParameter.__mro__[1]

METHOD_NAMES = method_names()

Model = Annotated[str, typer.Option(help="pocket, a folder, or a model id on the Hugging Face Hub.")]
Seed = Annotated[int, typer.Option(help="Of methods that draw tokens, and of the intervals.")]


def _one_line(command: Callable[..., None]) -> Callable[..., None]:
    """Turns bad input into one line on standard error and exit code 2."""

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except ValueError as error:
            _refuse(str(error))
            raise typer.Exit(2) from None

    return run


def _refuse(message: str) -> None:
    print("iava: error: " + " ".join(message.split()), file=sys.stderr)


def main() -> None:
    """Runs the command line."""
    try:
        code = app(sys.argv[1:] or ["--help"], standalone_mode=False)
    except _USAGE_ERROR as error:
        _refuse(error.format_message())
        code = 2
    except (typer.Abort, KeyboardInterrupt):
        print("iava: stopped", file=sys.stderr)
        code = 130
    sys.exit(code)


@app.command()
@_one_line
@with_settings
def ask(
    image: Annotated[Path, typer.Argument(help="An image file.", show_default=False)],
    questions: Annotated[list[str], typer.Argument(help="One or more questions about it.", show_default=False)],
    model: Model = "pocket",
    method: Annotated[str, typer.Option(help=f"How to answer: {', '.join(METHOD_NAMES)}.")] = "iava",
    compare: Annotated[str | None, typer.Option(help="Several methods side by side, such as greedy,iava.")] = None,
    *,
    settings: dict[str, Any],
    max_new_tokens: Annotated[int, typer.Option(help="The longest answer.")] = 32,
    seed: Seed = 42,
    explain: Annotated[Path | None, typer.Option(help="Write a page here that shows why.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Asks questions about an image."""
    names = _names("compare", compare) if compare is not None else [method]
    _check("max_new_tokens", max_new_tokens)
    _check_questions(questions)
    if explain is not None:
        from iava.files import check_file

        check_file(explain)
    from iava.lvlm.images import read_image

    picture = read_image(image)
    methods = settings_of(names, settings)
    lvlm = _load(model)
    answers = [
        lvlm.ask_many(
            picture,
            questions,
            method=lvlm.method(name, **methods[name]),
            max_new_tokens=max_new_tokens,
            explain=explain is not None,
            seed=seed,
        )
        for name in names
    ]
    by_question = list(zip(questions, zip(*answers, strict=True), strict=True))
    if explain is not None:
        from iava.explain.page import explain_page
        from iava.files import write_text

        write_text(explain, explain_page(picture, by_question, model=model))
    if as_json:
        found = [
            {"image": str(image), "question": question, "model": model, "method": answer.method, "text": answer.text}
            | {"tokens": answer.tokens, "settings": answer.settings, "seconds": round(answer.seconds, 4), "seed": seed}
            for question, row in by_question
            for answer in row
        ]
        print(json.dumps(found[0] if len(found) == 1 else found, indent=2, ensure_ascii=False))
        return
    if len(names) == len(questions) == 1:
        print(answers[0][0].text)
    else:
        from iava.cli.console import side_by_side, terminal

        console = terminal()
        rows = [(question, None, [answer.text for answer in row]) for question, row in by_question]
        console.print(side_by_side(names, rows, plain=console.color_system is None))
    if explain is not None:
        print(f"why: {explain}", file=sys.stderr)


@app.command("eval")
@_one_line
@with_settings
def evaluate(
    bench: Annotated[
        str,
        typer.Argument(help="pope, pope-aokvqa, pope-gqa, mme, textvqa, chair or amber.", show_default=False),
    ],
    out: Annotated[Path, typer.Option(help="The run's folder; the same again goes on with it.", show_default=False)],
    model: Model = "pocket",
    data: Annotated[
        Path | None,
        typer.Option(
            help="Holds a folder for each benchmark (iava data check says which), or pocket: the scenes that the "
            "model pocket is asked about by default (pope, mme, chair)."
        ),
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(
            help=f"A list of {', '.join(METHOD_NAMES)}; by default greedy,apc,bias,iava, for textvqa and chair no bias."
        ),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Of the pocket scenes: tune, tune-heldout, test (default) or test-heldout.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first so many images.")] = None,
    shard: Annotated[
        str | None, typer.Option(help="Only a part of the images, such as 1/4; iava merge joins the parts.")
    ] = None,
    seed: Seed = 42,
    max_new_tokens: Annotated[
        int | None, typer.Option(help="The longest answer; 16 by default, for chair 64, for amber 512.")
    ] = None,
    parser: Annotated[
        str | None,
        typer.Option(help="How yes and no are read: word (default), substring or exact; mme: official (default) too."),
    ] = None,
    tune_images: Annotated[
        int, typer.Option(help="Images on which the constant bias is fitted: of pocket's tune, or the data's first.")
    ] = 100,
    tuned: Annotated[
        str | None, typer.Option("--settings", help="What `iava tune` found best: one or more of its tune.json.")
    ] = None,
    engine: Annotated[str, typer.Option(help="local, or ray: many GPUs or machines (needs iava[ray]).")] = "local",
    workers: Annotated[
        int | None, typer.Option(help="ray: models at once; by default one for each GPU, or CPU core without any.")
    ] = None,
    *,
    settings: dict[str, Any],
) -> None:
    """Measures methods against their controls; can be stopped and called again."""
    from iava.benchmarks.registry import benchmark

    controls = "greedy,apc,bias" if benchmark(bench).asks_yes_no else "greedy,apc"
    names = _names("methods", methods if methods is not None else controls + ",iava")
    from iava.cli.console import progress
    from iava.evaluation.plan import Plan
    from iava.evaluation.runner import evaluate as run
    from iava.evaluation.runs import read_runs
    from iava.evaluation.tune import read_tuned
    from iava.files import check_folder
    from iava.reporting.report import write_report

    if engine not in ("local", "ray"):
        raise IavaError(f"unknown engine {engine!r}: use local or ray")
    if workers is not None and engine != "ray":
        raise IavaError("--workers was given, but only --engine ray has any")
    data = pocket_scenes(bench, data, model)
    given = read_tuned([Path(path) for path in tuned.split(",")] if tuned else [], names, split or "test")
    plan = Plan(
        model,
        settings_of(names, given, settings),
        split,
        limit,
        seed,
        max_new_tokens,
        parser,
        tune_images,
        bench,
        data,
        None if shard is None else _shard(shard),
    )
    plan.task  # noqa: B018 - what is missing or broken is said before a model is loaded
    check_folder(out)
    if engine == "ray":
        from iava.evaluation.ray_engine import evaluate_with_ray

        with progress() as advance:
            results = evaluate_with_ray(plan, out, advance, workers=workers, loaded=_load)
    else:
        lvlm = _load(model)
        with progress() as advance:
            results = run(lvlm, plan, out, advance)
    page, _, _ = write_report(out / "report.html", read_runs([out]))
    data_commands.print_results(results, out)
    print(f"report: {page}")


@app.command()
@_one_line
def demo(
    out: Annotated[Path, typer.Option(help="Where the report goes.")] = Path("runs/demo"),
    limit: Annotated[int, typer.Option(help="Images to measure on.")] = 30,
) -> None:
    """Asks, measures and writes a report, on the model that ships with the package."""
    _check("limit", limit)
    from iava.files import check_folder

    check_folder(out)
    from iava.cli.demo import run

    run(_load("pocket"), out, limit)


app.command()(_one_line(methods_command.methods))
app.command()(_one_line(tune.tune))
app.command()(_one_line(ablate.ablate))
app.command()(_one_line(study.study))
app.command()(_one_line(data_commands.score))
app.command()(_one_line(bench.bench))
app.command()(_one_line(data_commands.merge))
app.command()(_one_line(report.report))
app.command()(_one_line(reproduce.reproduce))
data = typer.Typer(help="Benchmarks' questions and images: what is there, and building more.")
data.command("check")(_one_line(data_commands.check))
data.command("build-pope")(_one_line(data_commands.build_pope))
data.command("write-pocket")(_one_line(data_commands.write_pocket))
app.add_typer(data, name="data")


def pocket_scenes(bench: str, data: Path | None, model: str) -> Path | None:
    """The folder of the data; None: the pocket scenes, which the pocket model is asked about unless told otherwise."""
    if data is None and model != "pocket":
        raise IavaError(
            f"--data is missing: name the folder that holds {bench} (iava data check says what is there), or pocket "
            "for the pocket scenes"
        )
    return None if data is None or str(data) == "pocket" else data


def _names(option: str, text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if not all(names) or len(set(names)) < len(names):
        raise IavaError(f"{option} is {text!r}: it must be a list of different methods such as greedy,iava")
    return names


def _check_questions(questions: Sequence[str]) -> None:
    from iava.methods.checks import check_question

    for question in questions:
        check_question(question)


def _check(option: str, value: int) -> None:
    if value < 1:
        raise IavaError(f"{option} is {value}: it must be at least 1")


def _shard(text: str) -> tuple[int, int]:
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal()):
        raise IavaError(f"shard is {text!r}: it must be a number and how many there are, such as 1/4")
    return int(number), int(count)


def _load(model: str) -> Any:
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging

    from iava.lvlm.loading import load

    if model == "pocket":
        import torch

        # A model this small gains nothing from more threads, and loses much where something else wants the cores.
        torch.set_num_threads(1)
    logging.set_verbosity_error()
    hub_logging.set_verbosity_error()
    logging.disable_progress_bar()
    return load(model)


# At the end, because they take their options from here.
from iava.cli import explain as _explain  # noqa: E402, F401
