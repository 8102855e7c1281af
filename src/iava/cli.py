"""The command line: `iava demo`, `iava ask`, `iava eval`, `iava bench`, `iava score`, `iava data`."""

import json
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from iava import cli_bench, cli_data

# Nothing here imports torch before it is needed: `iava --help` must not wait for it.

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Instruction-aligned visual attention: fewer hallucinations, measured honestly.",
)

# The base of typer's complaints about options; which click it comes from depends on typer's version.
_USAGE_ERROR: Any = typer.BadParameter.__mro__[1]

Model = Annotated[str, typer.Option(help="pocket, a folder, or a model id on the Hugging Face Hub.")]
TopI = Annotated[str | None, typer.Option(help="Tokens that may be selected: a count (40) or a share (0.2).")]
Lam = Annotated[float | None, typer.Option(help="Attention must lie above mean + lam * std.")]
Alpha = Annotated[float | None, typer.Option(help="Strength of the contrast, at least 0.")]
Beta = Annotated[float | None, typer.Option(help="Plausibility, 0 to 1.")]
General = Annotated[str | None, typer.Option(help="The general instruction.")]
Negative = Annotated[
    str | None, typer.Option(help="How the other image tokens are masked: zeros, drop, hide or pixels.")
]
Qformer = Annotated[
    str | None, typer.Option(help="What InstructBLIP's Q-Former reads in the general pass: own or query.")
]
Layers = Annotated[str | None, typer.Option(help="Whose attention counts: all, or indices such as 0,1,-1.")]
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
def ask(
    image: Annotated[Path, typer.Argument(help="An image file.", show_default=False)],
    questions: Annotated[list[str], typer.Argument(help="One or more questions about it.", show_default=False)],
    model: Model = "pocket",
    method: Annotated[str, typer.Option(help="How to answer: greedy, sample, apc, bias or iava.")] = "iava",
    compare: Annotated[str | None, typer.Option(help="Several methods side by side, such as greedy,iava.")] = None,
    top_i: TopI = None,
    lam: Lam = None,
    alpha: Alpha = None,
    beta: Beta = None,
    general: General = None,
    negative: Negative = None,
    qformer: Qformer = None,
    layers: Layers = None,
    max_new_tokens: Annotated[int, typer.Option(help="The longest answer.")] = 32,
    seed: Seed = 42,
    explain: Annotated[Path | None, typer.Option(help="Write a page here that shows why.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Asks questions about an image."""
    names = _names("compare", compare) if compare is not None else [method]
    _check("max_new_tokens", max_new_tokens)
    for question in questions:
        if not question.strip():
            raise ValueError(f"the question is {question!r}: ask something, such as 'Is there a dog in the image?'")
    settings = _settings(
        top_i=top_i,
        lam=lam,
        alpha=alpha,
        beta=beta,
        general=general,
        negative=negative,
        qformer=qformer,
        layers=layers,
    )
    if explain is not None:
        from iava.files import check_file

        check_file(explain)
    from iava.images import read_image

    picture = read_image(image)
    methods = _methods(names, settings)
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
        from iava.console import side_by_side, terminal

        console = terminal()
        rows = [(question, None, [answer.text for answer in row]) for question, row in by_question]
        console.print(side_by_side(names, rows, plain=console.color_system is None))
    if explain is not None:
        print(f"why: {explain}", file=sys.stderr)


@app.command("eval")
@_one_line
def evaluate(
    bench: Annotated[str, typer.Argument(help="What to measure: pope.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The run's folder; the same again goes on with it.", show_default=False)],
    model: Model = "pocket",
    methods: Annotated[str, typer.Option(help="A list of methods.")] = "greedy,apc,bias,iava",
    split: Annotated[str, typer.Option(help="tune, tune-heldout, test or test-heldout.")] = "test",
    limit: Annotated[int | None, typer.Option(help="Only the first so many images.")] = None,
    seed: Seed = 42,
    max_new_tokens: Annotated[int, typer.Option(help="The longest answer.")] = 16,
    parser: Annotated[str, typer.Option(help="How answers are read: word, substring or exact.")] = "word",
    tune_images: Annotated[int, typer.Option(help="Images of tune on which the constant bias is fitted.")] = 100,
    top_i: TopI = None,
    lam: Lam = None,
    alpha: Alpha = None,
    beta: Beta = None,
    general: General = None,
    negative: Negative = None,
    qformer: Qformer = None,
    layers: Layers = None,
) -> None:
    """Measures methods against their controls; can be stopped and called again."""
    if bench != "pope":
        raise ValueError(f"unknown benchmark {bench!r}: use pope")
    names = _names("methods", methods)
    settings = _settings(
        top_i=top_i,
        lam=lam,
        alpha=alpha,
        beta=beta,
        general=general,
        negative=negative,
        qformer=qformer,
        layers=layers,
    )
    from iava.bench.pope import pocket
    from iava.bench.results import console_table, verdicts
    from iava.bench.runner import Plan
    from iava.bench.runner import evaluate as run
    from iava.console import progress, terminal
    from iava.files import check_folder

    plan = Plan(model, _methods(names, settings), split, limit, seed, max_new_tokens, parser, tune_images)
    pocket(split, limit)
    check_folder(out)
    lvlm = _load(model)
    with progress() as advance:
        results = run(lvlm, plan, out, advance)
    console = terminal()
    console.print(console_table(results["rows"]))
    for sentence in verdicts(results["rows"]):
        console.print(sentence, style="bold", markup=False)
    console.print(f"records and results: {out}", markup=False)


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
    from iava.demo import run

    run(_load("pocket"), out, limit)


app.command()(_one_line(cli_data.score))
app.command()(_one_line(cli_bench.bench))
data = typer.Typer(help="Benchmarks' questions and images: what is there, and building more.")
data.command("check")(_one_line(cli_data.check))
data.command("build-pope")(_one_line(cli_data.build_pope))
app.add_typer(data, name="data")


def _names(option: str, text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if not all(names) or len(set(names)) < len(names):
        raise ValueError(f"{option} is {text!r}: it must be a list of different methods such as greedy,iava")
    return names


def _check(option: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{option} is {value}: it must be at least 1")


def _settings(*, top_i: str | None, layers: str | None, **others: Any) -> dict[str, Any]:
    """What was given on the command line, as the methods take it."""
    given = {"top_i": _top_i(top_i), "layers": _layers(layers), **others}
    return {name: value for name, value in given.items() if value is not None}


def _top_i(text: str | None) -> int | float | None:
    if text is None:
        return None
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    raise ValueError(f"top_i is {text!r}: it must be a count such as 40 or a share such as 0.2")


def _layers(text: str | None) -> str | list[int] | None:
    if text is None or text == "all":
        return text
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"layers is {text!r}: it must be all, or layer indices such as 0,1,-1") from None


def _methods(names: Sequence[str], settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """For each method those of the settings that it has; bad ones are refused before a model is loaded."""
    from iava.methods import METHODS

    for name in names:
        if name not in METHODS:
            raise ValueError(f"unknown method {name!r}: use one of {', '.join(METHODS)}")
    known = {name: METHODS[name]().settings() for name in names}
    for setting in settings:
        if not any(setting in known[name] for name in names):
            option = "--" + setting.replace("_", "-")
            raise ValueError(f"{option} was given, but {', '.join(names)} has no such setting")
    chosen = {name: {key: value for key, value in settings.items() if key in known[name]} for name in names}
    for name in names:
        METHODS[name](**chosen[name])
    return chosen


def _load(model: str) -> Any:
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging

    from iava.lvlm import load

    logging.set_verbosity_error()
    hub_logging.set_verbosity_error()
    logging.disable_progress_bar()
    return load(model)
