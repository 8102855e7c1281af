"""Measures the 7B shapes on a GPU, unattended: `python tools/gpu_cost.py OUT [options of iava bench]`.

Writes cost.json, cost.png and table.md into OUT/<shape>. A failure of one shape does not stop the others. The methods
of the package mitigv are included if it is installed.
"""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from iava.cost.baselines import MITIGV

SHAPES = ("llava-1.5-7b", "instructblip-7b")
IAVA = [sys.executable, "-m", "iava", "bench"]


def main(out: Path, options: list[str], shapes: tuple[str, ...] = SHAPES) -> int:
    """Measures all shapes and returns the number of failures."""
    failed = 0
    for shape in shapes:
        baselines = ["--baseline", "naive"]
        if shape.startswith("llava"):
            if find_spec("mitigv"):
                baselines += [word for name in MITIGV for word in ("--baseline", f"mitigv:{name}")]
            else:
                print("mitigv is not installed: measuring without its methods", file=sys.stderr)
        folder = out / shape
        failed += subprocess.run([*IAVA, "--shape", shape, "--out", str(folder), *baselines, *options]).returncode != 0
        results = folder / "cost.json"
        if results.exists():
            table = subprocess.run([*IAVA, "--table", str(results)], capture_output=True, text=True)
            (folder / "table.md").write_text(table.stdout, encoding="utf-8")
    return failed


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
