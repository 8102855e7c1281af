"""Decoding methods by their command-line names."""

from iava.methods.base import Method
from iava.methods.controls import APC, ConstantBias, Greedy, Sample
from iava.methods.iava import IAVA

METHODS: dict[str, type[Method]] = {
    "greedy": Greedy,
    "sample": Sample,
    "apc": APC,
    "bias": ConstantBias,
    "iava": IAVA,
}
