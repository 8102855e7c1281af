"""Instruction-aligned visual attention: training-free decoding against hallucination, and its measurement."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from iava.deprecated import install

if TYPE_CHECKING:
    from iava.engine.probe import probe
    from iava.lvlm.answers import Answer
    from iava.lvlm.loading import load
    from iava.lvlm.model import LVLM
    from iava.methods.avisc import AvisC
    from iava.methods.controls import APC, ConstantBias, Greedy, Sample
    from iava.methods.controls_prompt import PromptBias
    from iava.methods.iava import IAVA
    from iava.methods.iava_plus import IAVAPlus
    from iava.methods.icd import ICD
    from iava.methods.m3id import M3ID
    from iava.methods.mixing import contrast
    from iava.methods.only import ONLY
    from iava.methods.pai import PAI
    from iava.methods.select import select_irrelevant
    from iava.methods.sid import SID
    from iava.methods.vcd import VCD

# Modules are imported on first use, so that `iava --help` does not import torch.
_HOMES = {
    "APC": "iava.methods.controls",
    "IAVA": "iava.methods.iava",
    "IAVAPlus": "iava.methods.iava_plus",
    "ICD": "iava.methods.icd",
    "LVLM": "iava.lvlm.model",
    "M3ID": "iava.methods.m3id",
    "VCD": "iava.methods.vcd",
    "ONLY": "iava.methods.only",
    "PAI": "iava.methods.pai",
    "SID": "iava.methods.sid",
    "Answer": "iava.lvlm.answers",
    "AvisC": "iava.methods.avisc",
    "ConstantBias": "iava.methods.controls",
    "Greedy": "iava.methods.controls",
    "PromptBias": "iava.methods.controls_prompt",
    "Sample": "iava.methods.controls",
    "contrast": "iava.methods.mixing",
    "load": "iava.lvlm.loading",
    "probe": "iava.engine.probe",
    "select_irrelevant": "iava.methods.select",
}

__all__ = [
    "APC",
    "IAVA",
    "ICD",
    "LVLM",
    "M3ID",
    "ONLY",
    "PAI",
    "SID",
    "VCD",
    "Answer",
    "AvisC",
    "ConstantBias",
    "Greedy",
    "IAVAPlus",
    "PromptBias",
    "Sample",
    "contrast",
    "load",
    "probe",
    "select_irrelevant",
]

install()


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'iava' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
