"""Decoding methods by name. Importing this does not import torch."""

from collections.abc import Iterable
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from iava.errors import IavaError

if TYPE_CHECKING:
    from iava.methods.base import Method

GROUP = "iava.methods"
"""The entry points by which another package adds methods: name = "package.module:Class"."""

BUILT_IN = {
    "greedy": "iava.methods.controls:Greedy",
    "sample": "iava.methods.controls:Sample",
    "apc": "iava.methods.controls:APC",
    "bias": "iava.methods.controls:ConstantBias",
    "prompt-bias": "iava.methods.controls_prompt:PromptBias",
    "end-bias": "iava.methods.controls_length:EndBias",
    "token-limit": "iava.methods.controls_length:TokenLimit",
    "brief": "iava.methods.controls_prompt:Brief",
    "verify": "iava.methods.verify:Verify",
    "best-of": "iava.methods.verify:BestOf",
    "iava": "iava.methods.iava:IAVA",
    "iava+": "iava.methods.iava_plus:IAVAPlus",
    "vcd": "iava.methods.vcd:VCD",
    "icd": "iava.methods.icd:ICD",
    "m3id": "iava.methods.m3id:M3ID",
    "avisc": "iava.methods.avisc:AvisC",
    "pai": "iava.methods.pai:PAI",
    "sid": "iava.methods.sid:SID",
    "only": "iava.methods.only:ONLY",
    "iava-random": "iava.methods.controls_vstar:RandomTokens",
    "iava-relevant": "iava.methods.controls_vstar:RelevantTokens",
    "no-image": "iava.methods.controls_vstar:NoImage",
    "noise": "iava.methods.controls_vstar:Noise",
    "restore": "iava.methods.controls_restore:Restore",
    "oracle": "iava.methods.oracle:Oracle",
}


def names() -> list[str]:
    """The names of all methods: the built-in ones, then those of other packages."""
    return list(_places())


def resolve(name: str) -> "type[Method]":
    """The class of a method.

    Args:
        name: one of `names()`, or "package.module:Class" for a class of one's own.

    Raises:
        IavaError: if there is no such method.
    """
    place = _places().get(name, name)
    module, _, attribute = place.partition(":")
    if not attribute:
        raise IavaError(f"unknown method {name!r}: use one of {', '.join(names())}")
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise IavaError(f"method {name!r} cannot be imported: {error}") from None
    from iava.methods.base import Method

    if not (isinstance(found, type) and issubclass(found, Method)):
        raise IavaError(f"method {name!r} is no subclass of iava.methods.base.Method: derive it from that")
    return found


def check_settings(name: str, settings: Iterable[str] = ()) -> None:
    """Refuses an unknown method, and names of settings that it does not have.

    Raises:
        IavaError: names what would be right.
    """
    known = resolve(name).setting_names()
    for setting in settings:
        if setting not in known:
            wanted = f"use one of {', '.join(known)}" if known else "it has none"
            raise IavaError(f"method {name} has no setting {setting!r}: {wanted}")


@cache
def _places() -> dict[str, str]:
    return BUILT_IN | {point.name: point.value for point in entry_points(group=GROUP) if point.name not in BUILT_IN}
