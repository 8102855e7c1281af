"""Options that several commands share, and the helpers that read them."""

import inspect
import warnings
from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from iava.benchmarks.parsers import NOTES
from iava.cli.settings import SETTINGS, read_pairs
from iava.errors import IavaError
from iava.methods.checks import MAX_SEED

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
    typer.Option(
        help="Split of the pocket scenes: tune or test, or one of their variants such as test-heldout and test-blur. "
        "Default: test."
    ),
]
TuneSplit = Annotated[
    str | None,
    typer.Option(
        help="Split of the pocket scenes: tune or test, or one of their variants such as tune-heldout and tune-blur. "
        "Default: tune."
    ),
]
Limit = Annotated[int | None, typer.Option(help="Use only the first N images. Default: all images.")]
Seed = Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Random seed for sampling and for bootstrap intervals.")]
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
ParserName = Annotated[
    str | None,
    typer.Option(
        help=f"How answers are read. {'; '.join(f'{name}: {note}' for name, note in NOTES.items())}. "
        "Default: word; for mme official."
    ),
]


_loading = partial(typer.Option, rich_help_panel="Loading the model")
LOADING: dict[str, Any] = {
    "revision": Annotated[str | None, _loading(help="Branch, tag or commit on the Hugging Face Hub.")],
    "dtype": Annotated[
        str | None,
        _loading(help="float32, bfloat16, float16 or auto. Default: the checkpoint's on a GPU, float32 on a CPU."),
    ],
    "device": Annotated[str | None, _loading(help="Device of torch, such as cuda:1. Default: a GPU if there is one.")],
    "device_map": Annotated[
        str | None, _loading(help="auto places parts of the model on all devices and on disk; requires accelerate.")
    ],
    "quantization": Annotated[str | None, _loading(help="4bit or 8bit; requires bitsandbytes.")],
    "attn_implementation": Annotated[
        str | None, _loading(help="Attention kernel, such as sdpa or flash_attention_2. Default: the model's own.")
    ],
    "token": Annotated[str | None, _loading(help="Access token for private repositories on the Hub.")],
    "cache_dir": Annotated[Path | None, _loading(help="Folder for downloads. Default: the cache of huggingface_hub.")],
    "local_files_only": Annotated[
        bool | None, _loading("--local-files-only", help="Use downloaded files and never contact the Hub.")
    ],
    "trust_remote_code": Annotated[
        bool | None, _loading("--trust-remote-code", help="Run code that the checkpoint brings. Read it first.")
    ],
}
"""The options that replace a command's parameter `loading`: keyword arguments of `iava.load`."""
PromptStyle = Annotated[
    str | None,
    typer.Option(
        help="Prompt style: plain, llava, vcd or lmms-eval, with the ending that these projects put behind a question; "
        "pai asks chair as PAI does. Default: plain; for textvqa llava."
    ),
]
Suffix = Annotated[str | None, typer.Option(help="Text to put behind every question.")]
SystemPromptOption = Annotated[
    str | None,
    typer.Option(help="System prompt before every question, such as LLaVA-1.5's own. Default: none."),
]
PresetOption = Annotated[
    str | None,
    typer.Option(
        help="published: what the authors' commands set for each method, model family and benchmark, with their prompt "
        "endings, system prompts, token limits and parsers. Other options take precedence."
    ),
]
Category = Annotated[
    str | None,
    typer.Option(help="Ask only one part of the benchmark, such as random (pope) or generative (amber)."),
]
SampleSize = Annotated[
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


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Replaces the command's parameters `settings` and `loading` with the options in `SETTINGS` and `LOADING`.

    The command receives the settings that were given as a dict, by setting or method.setting, and the loading options
    that were given as a dict by name.
    """
    signature = inspect.signature(command)
    groups = {name: group for name, group in _GROUPS.items() if name in signature.parameters}
    parameters: list[inspect.Parameter] = []
    for name, parameter in signature.parameters.items():
        if name in groups:
            parameters += [
                inspect.Parameter(option, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)
                for option, kind in groups[name].items()
            ]
        else:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))

    @wraps(command)
    def run(**given: Any) -> None:
        chosen = {
            name: {option: value for option in group if (value := given.pop(option)) is not None}
            for name, group in groups.items()
        }
        if "settings" in chosen:
            chosen["settings"] |= read_pairs("--set", chosen["settings"].pop("more", []))
        command(**given, **chosen)

    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


_GROUPS = {"settings": SETTINGS, "loading": LOADING}


def load_model(name: str, **loading: Any) -> Any:
    """Loads a model without the progress bars and warnings of transformers.

    Args:
        name: pocket, a folder, or a model id on the Hub.
        loading: options of `iava.load`.

    Raises:
        IavaError: as `iava.load`.
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
    with warnings.catch_warnings():
        # Such as torch's about the pickle protocol of weights that it then refuses.
        warnings.simplefilter("ignore")
        return load(name, **loading)


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
    return [] if text is None else [Path(path) for path in text.split(",")]


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
