"""Files of the web page at `/`, and its example pictures."""

import io
from functools import cache
from importlib import resources

from iava.benchmarks.sources.pocket import open_scene

FILES = {"site.js": "text/javascript", "site.css": "text/css"}
"""Names of the files, with their media types."""
SCENES = 8
"""Number of example pictures, from the test split of the pocket world."""


@cache
def asset(name: str) -> bytes:
    """Returns the content of a file."""
    return (resources.files("iava.serve.page") / "site" / name).read_bytes()


@cache
def scene(number: int) -> bytes:
    """Returns an example picture as a PNG file; `number` is from 0 to `SCENES` - 1."""
    file = io.BytesIO()
    open_scene(f"test-{number:05d}").save(file, "PNG")
    return file.getvalue()
