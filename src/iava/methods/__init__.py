"""Decoding methods, one file each; `registry` knows their names."""

from typing import Any

from iava.methods import registry


def __getattr__(name: str) -> Any:
    if name == "METHODS":
        return {method: registry.resolve(method) for method in registry.names()}
    if name == "check_settings":
        return registry.check_settings
    raise AttributeError(f"module 'iava.methods' has no attribute {name!r}")
