"""The web page at `/`: its files, and pictures to try it with."""

import io
from functools import cache
from importlib import resources

from iava.benchmarks.sources.pocket import open_scene

FILES = {"site.js": "text/javascript", "site.css": "text/css"}
"""The page's files by name, with their media types."""
SCENES = 8
"""Pictures of the shipped world's test split to pick from."""


@cache
def asset(name: str) -> bytes:
    """Returns a file of the page."""
    return (resources.files("iava.serve.page") / "site" / name).read_bytes()


@cache
def scene(number: int) -> bytes:
    """Returns a picture as a PNG file; `number` is at least 0 and below `SCENES`."""
    file = io.BytesIO()
    open_scene(f"test-{number:05d}").save(file, "PNG")
    return file.getvalue()
