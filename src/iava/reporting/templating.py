"""The Jinja environment of all HTML pages, and text that several pages share."""

from collections.abc import Mapping
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined


def template_environment(*packages: str) -> Environment:
    """A Jinja environment with the templates of `iava.reporting` and of other packages.

    Args:
        packages: names of further packages with a folder `templates`.
    """
    loader = ChoiceLoader([PackageLoader(package) for package in ("iava.reporting", *packages)])
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def settings_text(settings: Mapping[str, Any]) -> str:
    """A method's settings on one line, without those that are None."""
    return ", ".join(f"{key}={value}" for key, value in settings.items() if value is not None)
