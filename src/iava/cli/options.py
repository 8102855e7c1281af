"""Options that several commands share, and the helpers that read them."""

import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from iava.cli.settings import SETTINGS, read_settings
from iava.errors import IavaError

Model = Annotated[
    str, typer.Option(help="Model to load: pocket (ships with iava), a local folder, or a Hugging Face Hub id.")
]
Data = Annotated[
    Path | None,
    typer.Option(
        help="Folder with one subfolder per data set (`iava data check` lists them), or the word pocket for the pocket "
        "scenes. Default with --model pocket: the pocket scenes. Required with any other model."
    ),
]
Split = Annotated[
    str | None,
    typer.Option(help="Split of the pocket scenes: tune, tune-heldout, test or test-heldout. Default: test."),
]
TuneSplit = Annotated[
    str | None,
    typer.Option(help="Split of the pocket scenes: tune, tune-heldout, test or test-heldout. Default: tune."),
]
Limit = Annotated[int | None, typer.Option(help="Use only the first N images. Default: all images.")]
Seed = Annotated[int, typer.Option(help="Random seed for sampling and for bootstrap intervals.")]
MaxNewTokens = Annotated[int, typer.Option(help="Maximum number of new tokens per answer, at least 1.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON only.")]
Tuned = Annotated[
    str | None,
    typer.Option(
        "--settings",
        help="tune.json files that `iava tune` wrote, separated by commas. Other options take precedence over them.",
    ),
]
RunFolder = Annotated[
    Path, typer.Option(help="Output folder. The same command resumes an interrupted run in it.", show_default=False)
]
Parser = Annotated[
    str | None,
    typer.Option(
        help="How yes and no are read from an answer: word, pope, opera, vcd or exact; for mme and amber also "
        "official. Default: word; for mme official."
    ),
]


PromptStyle = Annotated[
    str | None,
    typer.Option(
        help="Prompt style: plain, llava, vcd or lmms-eval, with the ending that these projects put behind a question. "
        "Default: plain; for textvqa llava."
    ),
]
Suffix = Annotated[str | None, typer.Option(help="Text to put behind every question.")]
Category = Annotated[
    str | None,
    typer.Option(help="Ask only one part of the benchmark, such as random (pope) or generative (amber)."),
]
Sample = Annotated[
    int | None,
    typer.Option(help="Draw N images at random with --seed. The run's folder gets their ids as ids.txt."),
]
Ids = Annotated[
    Path | None,
    typer.Option(help="File with the ids to ask, one a line: images or questions. COCO file names are ids, too."),
]
Ocr = Annotated[bool, typer.Option("--ocr", help="For textvqa: give the reference OCR tokens in the question.")]
Synonyms = Annotated[
    Path | None,
    typer.Option(help="For chair: list of synonyms, one class a line, or OPERA's chair.py, which holds one."),
]
Lemmatizer = Annotated[
    str | None, typer.Option(help=r"For chair: nltk takes the lemmas of the papers' script (requires iava\[chair]).")
]
Pipeline = Annotated[
    str | None,
    typer.Option(help=r"For amber: own, or official for the benchmark's pipeline (requires iava\[amber])."),
]
SpacyModel = Annotated[
    str | None, typer.Option(help="For amber: spaCy model of the official pipeline. Default: en_core_web_lg.")
]


def given_options(**options: Any) -> dict[str, Any]:
    """Returns the options that were given: those that are neither None nor False."""
    return {name: value for name, value in options.items() if value is not None and value is not False}


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Replaces the command's parameter `settings` with the options in `SETTINGS`.

    The command receives a dict of the settings that were given, by setting or method.setting.
    """
    signature = inspect.signature(command)
    parameters: list[inspect.Parameter] = []
    for name, parameter in signature.parameters.items():
        if name == "settings":
            parameters += [
                inspect.Parameter(option, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)
                for option, kind in SETTINGS.items()
            ]
        else:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))

    @wraps(command)
    def run(**given: Any) -> None:
        settings = read_settings({name: given.pop(name) for name in SETTINGS})
        command(**given, settings=settings)

    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def load_model(name: str) -> Any:
    """Loads a model without the progress bars and warnings of transformers.

    Raises:
        IavaError: if there is no such model, or it is not an image-text-to-text model.
    """
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging

    from iava.lvlm.loading import load

    if name == "pocket":
        import torch

        # More threads do not make a model of this size faster, and they slow down whatever else runs.
        torch.set_num_threads(1)
    logging.set_verbosity_error()
    hub_logging.set_verbosity_error()
    logging.disable_progress_bar()
    return load(name)


def data_folder(benchmark: str, data: Path | None, model: str) -> Path | None:
    """Returns the folder of `--data`, or None for the pocket scenes.

    Raises:
        IavaError: if a model other than pocket has no `--data`.
    """
    if data is None and model != "pocket":
        raise IavaError(
            f"--data is missing: name the folder that holds {benchmark} (`iava data check` lists what is there), or "
            "pocket for the pocket scenes"
        )
    return None if data is None or str(data) == "pocket" else data


def tuned_files(text: str | None) -> list[Path]:
    """Returns the files of `--settings`."""
    return [Path(path) for path in text.split(",")] if text else []


def method_list(option: str, text: str) -> list[str]:
    """Reads a comma-separated list of different methods.

    Raises:
        IavaError: if a name is empty or is given twice.
    """
    names = [name.strip() for name in text.split(",")]
    if not all(names) or len(set(names)) < len(names):
        raise IavaError(f"{option} is {text!r}: it must be a list of different methods such as greedy,iava")
    return names


def number_list(option: str, text: str) -> list[int]:
    """Reads a comma-separated list of integers.

    Raises:
        IavaError: if a part is not an integer.
    """
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise IavaError(f"{option} is {text!r}: it must be a list of whole numbers such as 1,32") from None


def check_positive(option: str, value: int) -> None:
    """Raises IavaError if the value is below 1."""
    if value < 1:
        raise IavaError(f"{option} is {value}: it must be at least 1")


def check_questions(questions: list[str]) -> None:
    """Raises IavaError if a question is blank."""
    from iava.methods.checks import check_question

    for question in questions:
        check_question(question)
