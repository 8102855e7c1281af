"""The web page at `/`: its files, and pictures to try it with."""

import io
from functools import cache
from importlib import resources

from iava.pocket.scenes import load_scene

FILES = {"site.js": "text/javascript", "site.css": "text/css"}
"""The page's files by name, with their media types."""
SCENES = 8
"""Pictures of the shipped world's test split to pick from."""


@cache
def asset(name: str) -> bytes:
    """Returns a file of the page."""
    return (resources.files("iava.serve") / "site" / name).read_bytes()


@cache
def scene(number: int) -> bytes:
    """Returns a picture as a PNG file; `number` is at least 0 and below `SCENES`."""
    file = io.BytesIO()
    load_scene("test", number).render().save(file, "PNG")
    return file.getvalue()
