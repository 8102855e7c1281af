"""Settings of methods on the command line: common ones as options, all of them through `--set`."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin, get_type_hints

import typer

from iava.errors import IavaError
from iava.methods.registry import names, resolve

if TYPE_CHECKING:
    from iava.methods.base import Method

_option = partial(typer.Option, rich_help_panel="Method settings")

SETTINGS: dict[str, Any] = {
    "top_i": Annotated[
        str | None,
        _option(
            help="Maximum number of selected image tokens: a count (40), a share in (0, 1] (0.2), or auto. "
            "Default: the method's own; `iava methods` lists all defaults."
        ),
    ],
    "lam": Annotated[
        str | None,
        _option(help="Selection threshold on attention, mean + lam * std: a number, or auto."),
    ],
    "alpha": Annotated[float | None, _option(help="Contrast strength, at least 0.")],
    "beta": Annotated[
        float | None,
        _option(help="Plausibility cutoff, 0 to 1, as a share of the highest probability."),
    ],
    "general": Annotated[str | None, _option(help="General instruction, whose attention is the baseline.")],
    "negative": Annotated[
        str | None,
        _option(help="How the negative image hides the other image tokens: zeros, drop, hide or pixels."),
    ],
    "qformer": Annotated[
        str | None,
        _option(help="Text that InstructBLIP's Q-Former reads in the general pass: own or query."),
    ],
    "sampling": Annotated[
        bool | None,
        _option("--sampling", help="Draw each token, in every method but greedy. Default: the most probable token."),
    ],
    "temperature": Annotated[float | None, _option(help="With --sampling: temperature, above 0. Default: 1.")],
    "top_p": Annotated[
        float | None, _option(help="With --sampling: draw from the fewest tokens with this much probability.")
    ],
    "top_k": Annotated[int | None, _option(help="With --sampling: draw from the so many most probable tokens.")],
    "layers": Annotated[
        str | None, _option(help="Decoder layers whose attention is averaged: all, or indices such as 0,1,-1.")
    ],
    "more": Annotated[
        list[str] | None,
        _option(
            "--set",
            metavar="NAME=VALUE",
            help="Any setting of the methods, or METHOD.NAME=VALUE for one of them. Repeatable. "
            "`iava methods` lists the settings.",
        ),
    ],
}
"""The options that replace a command's parameter `settings`; see `iava.cli.options.with_options`."""

MethodSettings = dict[str, Any]

METHOD_NAMES = f"{', '.join(names())}, or package.module:Class for a class of your own"
"""For help texts."""


def find_method(name: str) -> "type[Method]":
    """Returns the class of a method; package.module:Class may lie in the working directory.

    Raises:
        IavaError: if there is no such method.
    """
    if ":" in name and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    return resolve(name)


def read_pairs(option: str, pairs: Sequence[str]) -> dict[str, str]:
    """Reads texts NAME=VALUE into a dict; hyphens in a setting's name become underscores.

    Raises:
        IavaError: if a text has another form.
    """
    found = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.strip() or not value.strip():
            raise IavaError(f"{option} is {pair!r}: write NAME=VALUE, such as alpha=0.5 or iava.alpha=0.5")
        method, dot, setting = key.strip().rpartition(".")
        found[f"{method}{dot}{setting.replace('-', '_')}"] = value.strip()
    return found


def settings_of(methods: Sequence[str], *given: Mapping[str, Any]) -> dict[str, MethodSettings]:
    """Returns for each method those of the given settings that it has, and validates them by building the method.

    Args:
        methods: names, or package.module:Class.
        given: mappings from setting or method.setting to a value, as text or as the method takes it. A value for one
            method takes precedence over a value for all, and a later mapping over an earlier one. Of a temperature,
            top_p or top_k for all, only the methods that draw take notice.

    Raises:
        IavaError: if a method or setting is unknown, or a value is out of range.
    """
    classes = {name: find_method(name) for name in methods}
    known = {name: made.setting_names() for name, made in classes.items()}
    chosen: dict[str, MethodSettings] = {name: {} for name in methods}
    shared: set[tuple[str, str]] = set()
    for key, value in (pair for some in given for pair in sorted(some.items(), key=lambda pair: "." in pair[0])):
        method, _, setting = key.rpartition(".")
        option = "--" + key.replace("_", "-") if key in SETTINGS else f"--set {key}"
        if method and method not in methods:
            raise IavaError(f"{option} was given, but {method!r} is not among the methods: {', '.join(methods)}")
        having = [name for name in ([method] if method else methods) if setting in known[name]]
        if not having:
            there = dict.fromkeys(setting for name in ([method] if method else methods) for setting in known[name])
            use = f"use one of {', '.join(there)}" if there else "it has no settings"
            raise IavaError(f"{option} was given, but {method or ', '.join(methods)} has no such setting: {use}")
        for name in having:
            hint = hints_of(classes[name])[setting]
            chosen[name][setting] = read_value(value, hint) if isinstance(value, str) else value
            if method:
                shared.discard((name, setting))
            else:
                shared.add((name, setting))
    drawing = {name for name in methods if chosen[name].get("sampling", classes[name].sampling)}
    for setting in sorted({setting for _, setting in shared} & {"temperature", "top_p", "top_k"}):
        if not drawing:
            option = "--" + setting.replace("_", "-")
            raise IavaError(f"{option} was given, but none of {', '.join(methods)} draws its tokens: add --sampling")
        for name in methods:
            if (name, setting) in shared and name not in drawing:
                del chosen[name][setting]
    for name in methods:
        classes[name](**chosen[name])
    return chosen


def hints_of(method: type) -> dict[str, Any]:
    """Returns the type of each of a method's settings, inherited ones included."""
    hints: dict[str, Any] = {}
    for home in reversed(method.__mro__):
        hints |= get_type_hints(vars(home).get("__init__", object.__init__))
    return hints


def read_value(text: str, hint: Any) -> Any:
    """Converts a text to the type that a parameter's hint asks for.

    Knows None ("none"), bool ("true", "false"), int, float, sequences of int ("0,1,-1") and unions of them. A text
    that fits none of these is returned unchanged, and the method refuses it.
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
