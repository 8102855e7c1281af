"""Measure the 7B shapes on a GPU, unattended: `python tools/gpu_cost.py OUT [options of iava bench]`.

Writes OUT/<shape>/cost.json and cost.png, and the table as OUT/<shape>/table.md. A shape that ends badly does not keep
the next from being measured. VCD of the package mitigv takes part where it is installed.
"""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

SHAPES = ("llava-1.5-7b", "instructblip-7b")
IAVA = [sys.executable, "-m", "iava", "bench"]


def main(out: Path, options: list[str], shapes: tuple[str, ...] = SHAPES) -> int:
    """Returns the number of shapes that could not be measured."""
    failed = 0
    for shape in shapes:
        peers = ["--peer", "naive"]
        if shape.startswith("llava"):
            if find_spec("mitigv"):
                peers += ["--peer", "mitigv"]
            else:
                print("mitigv is not installed: its VCD is left out", file=sys.stderr)
        folder = out / shape
        failed += subprocess.run([*IAVA, "--shape", shape, "--out", str(folder), *peers, *options]).returncode != 0
        results = folder / "cost.json"
        if results.exists():
            table = subprocess.run([*IAVA, "--table", str(results)], capture_output=True, text=True)
            (folder / "table.md").write_text(table.stdout, encoding="utf-8")
    return failed


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
