"""Decoding methods by their command-line names."""

from iava.methods.base import Method
from iava.methods.controls import APC, ConstantBias, Greedy, Sample
from iava.methods.iava import IAVA
from iava.methods.only import ONLY
from iava.methods.pai import PAI
from iava.methods.sid import SID

METHODS: dict[str, type[Method]] = {
    "greedy": Greedy,
    "sample": Sample,
    "apc": APC,
    "bias": ConstantBias,
    "iava": IAVA,
    "pai": PAI,
    "sid": SID,
    "only": ONLY,
}
