"""The settings of methods on the command line: IAVA's as options of their own, any setting of any method by --set."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import typer

from iava.errors import IavaError
from iava.methods.registry import names

# What the parameter `settings` of a command becomes.
OPTIONS: dict[str, Any] = {
    "top_i": Annotated[
        str | None, typer.Option(help="Tokens that may be selected: a count (40), a share (0.2) or auto.")
    ],
    "lam": Annotated[str | None, typer.Option(help="Attention must lie above mean + lam * std; auto finds lam.")],
    "alpha": Annotated[float | None, typer.Option(help="Strength of the contrast, at least 0.")],
    "beta": Annotated[float | None, typer.Option(help="Plausibility, 0 to 1.")],
    "general": Annotated[str | None, typer.Option(help="The general instruction.")],
    "negative": Annotated[
        str | None, typer.Option(help="How the other image tokens are masked: zeros, drop, hide or pixels.")
    ],
    "qformer": Annotated[
        str | None, typer.Option(help="What InstructBLIP's Q-Former reads in the general pass: own or query.")
    ],
    "layers": Annotated[str | None, typer.Option(help="Whose attention counts: all, or indices such as 0,1,-1.")],
    "more": Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Any setting of any method, or of one alone as METHOD.NAME=VALUE; as often as needed. "
            "`iava methods` lists them.",
        ),
    ],
}

Settings = dict[str, Any]


def method_names() -> list[str]:
    """The names of all methods."""
    return names()


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Puts `OPTIONS` in the place of the command's parameter `settings`, which gets those that were given."""
    signature = inspect.signature(command)
    parameters: list[inspect.Parameter] = []
    for name, parameter in signature.parameters.items():
        if name == "settings":
            parameters += [
                inspect.Parameter(option, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)
                for option, kind in OPTIONS.items()
            ]
        else:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))

    @wraps(command)
    def run(**given: Any) -> None:
        values = {name: given.pop(name) for name in OPTIONS}
        more = read_pairs("--set", values.pop("more") or [])
        command(**given, settings={name: value for name, value in values.items() if value is not None} | more)

    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def read_pairs(option: str, pairs: Sequence[str]) -> dict[str, str]:
    """The texts NAME=VALUE as a dict; hyphens in a setting's name are underscores."""
    found = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.strip() or not value.strip():
            raise IavaError(f"{option} is {pair!r}: write NAME=VALUE, such as alpha=0.5 or iava.alpha=0.5")
        method, dot, setting = key.strip().rpartition(".")
        found[f"{method}{dot}{setting.replace('-', '_')}"] = value.strip()
    return found


def settings_of(names: Sequence[str], *given: Mapping[str, Any]) -> dict[str, Settings]:
    """For each method those of the settings that it has; bad ones are refused before a model is loaded.

    Args:
        names: of methods.
        given: setting, or method.setting -> value, a text to be read or what the method takes. What is said of one
            method counts more than what is said of all, and later ones count more than earlier ones.

    Raises:
        IavaError: if a method or setting is unknown, or a value out of range.
    """
    from iava.methods import METHODS, check_settings

    for name in names:
        check_settings(name)
    known = {name: METHODS[name]().settings() for name in names}
    chosen: dict[str, Settings] = {name: {} for name in names}
    for key, value in (pair for some in given for pair in sorted(some.items(), key=lambda pair: "." in pair[0])):
        method, _, setting = key.rpartition(".")
        option = "--" + key.replace("_", "-") if key in OPTIONS else f"--set {key}"
        if method and method not in names:
            raise IavaError(f"{option} was given, but {method!r} is not among the methods: {', '.join(names)}")
        having = [name for name in ([method] if method else names) if setting in known[name]]
        if not having:
            there = dict.fromkeys(setting for name in ([method] if method else names) for setting in known[name])
            use = f"use one of {', '.join(there)}" if there else "there is none"
            raise IavaError(f"{option} was given, but {method or ', '.join(names)} has no such setting: {use}")
        for name in having:
            hint = hints_of(METHODS[name])[setting]
            chosen[name][setting] = read_value(value, hint) if isinstance(value, str) else value
    for name in names:
        METHODS[name](**chosen[name])
    return chosen


def hints_of(method: type) -> dict[str, Any]:
    """The types of a method's settings; those that its constructor passes on are its parent's."""
    hints: dict[str, Any] = {}
    for home in reversed(method.__mro__):
        hints |= get_type_hints(vars(home).get("__init__", object.__init__))
    return hints


def read_value(text: str, hint: Any) -> Any:
    """A text as what a parameter's type hint asks for; unchanged if it is nothing of the kind: the method refuses it.

    Knows None ("none"), bool ("true", "false"), int, float, sequences of int ("0,1,-1") and their unions.
    """
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    words = {"none": None, "true": True, "false": False}
    if text.lower() in words and type(words[text.lower()]) in kinds:
        return words[text.lower()]
    readers: list[Callable[[str], Any]] = [kind for kind in (int, float) if kind in kinds]
    if any(int in get_args(kind) for kind in kinds):
        readers.append(lambda listed: [int(part) for part in listed.split(",")])
    for read in readers:
        try:
            return read(text)
        except ValueError:
            continue
    return text
