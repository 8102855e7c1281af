"""A decoding method of iava that `model.generate(custom_generate=..., trust_remote_code=True)` finds in a folder."""

from iava.integrations.custom_generate import generate

__all__ = ["generate"]
