"""iava: instruction-aligned visual attention for vision-language models."""

from iava.engine.probe import probe
from iava.lvlm import LVLM, Answer, load
from iava.methods.base import contrast
from iava.methods.controls import APC, ConstantBias, Greedy, Sample
from iava.methods.iava import IAVA
from iava.methods.select import select_irrelevant

__all__ = [
    "APC",
    "IAVA",
    "LVLM",
    "Answer",
    "ConstantBias",
    "Greedy",
    "Sample",
    "contrast",
    "load",
    "probe",
    "select_irrelevant",
]
