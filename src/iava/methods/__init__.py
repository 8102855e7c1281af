"""Decoding methods by their command-line names."""

from collections.abc import Iterable

from iava.errors import IavaError
from iava.methods.avisc import AvisC
from iava.methods.base import Method
from iava.methods.controls import APC, ConstantBias, Greedy, Sample
from iava.methods.controls_prompt import PromptBias
from iava.methods.controls_vstar import NoImage, Noise, RandomTokens, RelevantTokens
from iava.methods.iava import IAVA
from iava.methods.iava_plus import IAVAPlus
from iava.methods.icd import ICD
from iava.methods.m3id import M3ID
from iava.methods.only import ONLY
from iava.methods.oracle import Oracle
from iava.methods.pai import PAI
from iava.methods.sid import SID
from iava.methods.vcd import VCD

METHODS: dict[str, type[Method]] = {
    "greedy": Greedy,
    "sample": Sample,
    "apc": APC,
    "bias": ConstantBias,
    "prompt-bias": PromptBias,
    "iava": IAVA,
    "iava+": IAVAPlus,
    "vcd": VCD,
    "icd": ICD,
    "m3id": M3ID,
    "avisc": AvisC,
    "pai": PAI,
    "sid": SID,
    "only": ONLY,
    "iava-random": RandomTokens,
    "iava-relevant": RelevantTokens,
    "no-image": NoImage,
    "noise": Noise,
    "oracle": Oracle,
}


def check_settings(name: str, settings: Iterable[str] = ()) -> None:
    """Refuses a method that there is not, and names of settings that it does not have."""
    if name not in METHODS:
        raise IavaError(f"unknown method {name!r}: use one of {', '.join(METHODS)}")
    known = METHODS[name]().settings()
    for setting in settings:
        if setting not in known:
            wanted = f"use one of {', '.join(known)}" if known else "it has none"
            raise IavaError(f"method {name} has no setting {setting!r}: {wanted}")
