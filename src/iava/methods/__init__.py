"""Decoding methods by their command-line names."""

from iava.methods.avisc import AvisC
from iava.methods.base import Method
from iava.methods.controls import APC, ConstantBias, Greedy, Sample
from iava.methods.iava import IAVA
from iava.methods.icd import ICD
from iava.methods.m3id import M3ID
from iava.methods.vcd import VCD

METHODS: dict[str, type[Method]] = {
    "greedy": Greedy,
    "sample": Sample,
    "apc": APC,
    "bias": ConstantBias,
    "vcd": VCD,
    "icd": ICD,
    "m3id": M3ID,
    "avisc": AvisC,
    "iava": IAVA,
}
