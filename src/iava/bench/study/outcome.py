"""What a study leaves in its folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from iava.bench.plots import save
from iava.bench.records import write_json
from iava.files import write_text


def leave(folder: Path, found: Mapping[str, Any], told: str, figure: Figure) -> dict[str, Any]:
    """Writes study.json, study.md (ending with the command that made it) and study.svg, and gives back what was found.

    Args:
        found: ready for JSON, with the run's "manifest".
    """
    write_json(folder / "study.json", dict(found))
    write_text(folder / "study.md", f"{told}\n`{found['manifest']['command']}`\n")
    save(figure, folder / "study.svg")
    return dict(found)
