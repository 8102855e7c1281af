"""Measures the costs of docs/cost.md on a quiet CPU, in under ten minutes: `python -m tools.cpu_cost OUT`.

Writes a folder for each part and all tables into OUT/tables.md. The methods of the package mitigv are included if it is
installed.
"""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from iava.cost.baselines import MITIGV

IAVA = [sys.executable, "-m", "iava", "bench", "--device", "cpu"]
PARTS = {
    "small": [
        *("--shape", "small", "--methods", "greedy,vcd,iava:hide,iava:drop,iava:zeros,iava:hide:lazy"),
        *("--tokens", "1,32", "--questions", "1", "--batch", "1", "--repeats", "3", "--count"),
    ],
    "long": [
        *("--shape", "small", "--methods", "greedy,iava:hide,iava:drop"),
        *("--tokens", "128", "--questions", "1", "--batch", "1", "--repeats", "3"),
    ],
    "mitigv": [
        *("--shape", "small", "--methods", "vcd,icd,pai,m3id,only"),
        *("--tokens", "1,32", "--questions", "1", "--batch", "1", "--repeats", "3"),
        *(word for name in MITIGV for word in ("--baseline", f"mitigv:{name}")),
    ],
    "six-questions": [
        *("--shape", "small", "--methods", "greedy,iava:hide,iava:drop,iava:zeros"),
        *("--tokens", "1", "--questions", "6", "--batch", "1", "--repeats", "3"),
    ],
    "lazy": [
        *("--shape", "pocket", "--methods", "iava:hide,iava:hide:lazy"),
        *("--tokens", "32", "--questions", "1", "--batch", "1,8,32", "--repeats", "3"),
    ],
    "compiled": [
        *("--shape", "small", "--methods", "iava:hide,iava:drop", "--compile"),
        *("--tokens", "32", "--questions", "1", "--batch", "1", "--repeats", "3"),
    ],
}


def main(out: Path, parts: dict[str, list[str]] = PARTS) -> int:
    """Measures all parts and returns the number of failures."""
    failed, tables = 0, []
    for name, options in parts.items():
        if name == "mitigv" and not find_spec("mitigv"):
            print("mitigv is not installed: measuring without its methods", file=sys.stderr)
            continue
        failed += subprocess.run([*IAVA, *options, "--out", str(out / name)]).returncode != 0
        results = out / name / "cost.json"
        if results.exists():
            table = subprocess.run([*IAVA, "--table", str(results)], capture_output=True, text=True)
            tables.append(f"## {name}\n\n{table.stdout}")
    (out / "tables.md").write_text("\n".join(tables), encoding="utf-8")
    return failed


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    sys.exit(main(Path(sys.argv[1])))
