"""Measures the costs of docs/cost.md, unattended and with nothing else running: `python -m tools.cost cpu|gpu OUT`.

Writes a folder for each part and all tables into OUT/tables.md. A failure of one part does not stop the others.
Optional: `--parts NAME,NAME` measures these parts only, and `--shape SHAPE` measures all of them on another model. The
methods of the package mitigv are included if it is installed.
"""

import argparse
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from iava.cost.baselines import MITIGV

IAVA = [sys.executable, "-m", "iava", "bench"]
DEVICES = {"cpu": ["--device", "cpu"], "gpu": ["--device", "cuda"]}
LLAVA = ["--shape", "llava-1.5-7b"]
INSTRUCTBLIP = ["--shape", "instructblip-7b"]
NEEDS_MITIGV = "mitigv"


def sizes(tokens: str, *, questions: str = "1", batch: str = "1", repeats: str = "3") -> list[str]:
    return ["--tokens", tokens, "--questions", questions, "--batch", batch, "--repeats", repeats]


OURS = "greedy,vcd,iava:hide,iava:drop,iava:zeros"
LONG = [*sizes("128"), "--methods", "greedy,iava:hide,iava:drop"]
PEERS = [*sizes("1,32"), "--methods", ",".join(MITIGV)]
PEERS += [word for name in MITIGV for word in ("--baseline", f"mitigv:{name}")]
SIX = [*sizes("1", questions="6"), "--methods", "greedy,iava:hide,iava:drop,iava:zeros"]
LAZY = ["--shape", "pocket", *sizes("32", batch="1,8,32"), "--methods", "iava:hide,iava:hide:lazy"]
COMPILED = [*sizes("32"), "--methods", "iava:hide,iava:drop", "--compile"]
PARTS = {
    "cpu": {
        "small": [*sizes("1,32"), "--methods", f"{OURS},iava:hide:lazy", "--count"],
        "long": LONG,
        NEEDS_MITIGV: PEERS,
        "six-questions": SIX,
        "lazy": LAZY,
        "compiled": COMPILED,
    },
    "gpu": {
        "one": [*LLAVA, *sizes("1,32"), "--methods", f"{OURS},iava+:hide", "--baseline", "naive", "--count"],
        "compiled": [*LLAVA, *COMPILED],
        "lazy": LAZY,
        "eight": [*LLAVA, *sizes("1,32", batch="8"), "--methods", OURS, "--baseline", "naive"],
        "six-questions": [*LLAVA, *SIX],
        NEEDS_MITIGV: [*LLAVA, *PEERS],
        "instructblip": [*INSTRUCTBLIP, *sizes("1,32"), "--methods", "greedy,iava:hide,iava:zeros"],
        "compiled-eight": [*LLAVA, *sizes("32", batch="8"), "--methods", "iava:hide", "--compile"],
        "long": [*LLAVA, *LONG],
    },
}
"""Options of `iava bench` for each part, the most important part first."""


def main(device: str, out: Path, names: list[str] | None = None, shape: str | None = None) -> int:
    """Measures the parts of a device and returns the number of failures."""
    failed, tables = 0, []
    for name in names or PARTS[device]:
        if name == NEEDS_MITIGV and not find_spec("mitigv"):
            print("mitigv is not installed: measuring without its methods", file=sys.stderr)
            continue
        options = [*DEVICES[device], *PARTS[device][name], *(["--shape", shape] if shape else [])]
        failed += subprocess.run([*IAVA, *options, "--out", str(out / name)]).returncode != 0
        results = out / name / "cost.json"
        if results.exists():
            table = subprocess.run([*IAVA, "--table", str(results)], capture_output=True, text=True)
            tables.append(f"## {name}\n\n{table.stdout}")
            (out / "tables.md").write_text("\n".join(tables), encoding="utf-8")
    return failed


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("device", choices=list(PARTS))
    parser.add_argument("out", type=Path)
    parser.add_argument("--parts", type=lambda text: text.split(","))
    parser.add_argument("--shape")
    given = parser.parse_args()
    sys.exit(main(given.device, given.out, given.parts, given.shape))
