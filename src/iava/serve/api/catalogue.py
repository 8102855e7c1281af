"""The entries of `GET /v1/methods`: each method with its paper, its settings and their ranges."""

import inspect
import re
from collections.abc import Mapping
from typing import Any

from iava.methods import METHODS
from iava.methods.base import Method
from iava.serve.api.schema import MethodCard, SettingCard

_ENTRY = re.compile(r"^    (?P<name>\w+): (?P<text>.*(?:\n {5,}.*)*)", re.MULTILINE)


def card(name: str, settings: Mapping[str, Any]) -> MethodCard:
    """Describes a method.

    Args:
        name: command-line name.
        settings: its settings on this server.
    """
    method = METHODS[name]
    described = _descriptions(method)
    return MethodCard(
        name=name,
        title=method.title or method.__name__,
        summary=(inspect.getdoc(method) or name).splitlines()[0],
        paper=method.paper,
        control=method.control,
        cost=method.cost or ("2 in one batch" if method.has_branches() else "1"),
        settings={key: SettingCard(default=value, description=described[key]) for key, value in settings.items()},
    )


def _descriptions(method: type[Method]) -> dict[str, str]:
    """Finds the description of each parameter in the docstrings of a method and its parents."""
    found: dict[str, str] = {}
    for home in reversed(method.__mro__):
        documentation = inspect.cleandoc(vars(home).get("__doc__") or "")
        arguments = documentation.partition("Args:\n")[2].partition("\n\n")[0]
        found |= {entry["name"]: " ".join(entry["text"].split()) for entry in _ENTRY.finditer(arguments)}
    return found
