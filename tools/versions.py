"""Runs the tests that depend on transformers on its oldest, its pinned and its newest release: `make test-versions`.

Each release is installed beside the environment, without its dependencies, and shadows the installed one.

    python -m tools.versions [oldest|pinned|newest|VERSION ...]
"""

import os
import subprocess
import sys
import tomllib
from importlib.metadata import distributions, version
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
TESTS = ["engine", "methods", "test_families.py", "test_strategies.py", "test_matrix.py"]
SHADOWED = ("huggingface-hub", "tokenizers", "safetensors")
"""Dependencies of transformers that a release may need in another version than the installed one."""


def oldest() -> str:
    """The lower bound that the package asks for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    bounds = next(Requirement(one).specifier for one in project["dependencies"] if one.startswith("transformers"))
    return next(bound.version for bound in bounds if bound.operator == ">=")


def overlay(release: str) -> Path | None:
    """A folder with a release of transformers and of what it needs in another version; None for the installed one."""
    if release == version("transformers"):
        return None
    folder = ROOT / "build" / "versions" / release
    if not folder.exists():
        install(folder, "transformers" if release == "newest" else f"transformers=={release}", "--no-deps")
        (found,) = (one for one in distributions(path=[str(folder)]) if one.name == "transformers")
        needs = [need for need in map(Requirement, found.requires or ()) if need.name in SHADOWED]
        for need in needs:
            if need.marker is None and not need.specifier.contains(version(need.name)):
                install(folder, str(need))
    return folder


def install(folder: Path, requirement: str, *options: str) -> None:
    command = ["pip", "install", "--quiet", "--upgrade", "--target", str(folder), *options, requirement]
    subprocess.run([sys.executable, "-m", *command], check=True)


def run(release: str) -> int:
    """Runs the tests on a release; gives the exit code of pytest."""
    folder = overlay(release)
    path = [str(folder)] if folder else []
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*path, str(ROOT / "src")])}
    print(f"transformers {release}", flush=True)
    command = [
        "pytest",
        "-q",
        "--no-page",
        "--numprocesses",
        "2",
        "--dist",
        "loadfile",
        *(f"tests/{name}" for name in TESTS),
    ]
    return subprocess.run([sys.executable, "-m", *command], cwd=ROOT, env=environment).returncode


def main() -> None:
    named = {"oldest": oldest(), "pinned": version("transformers")}
    asked = sys.argv[1:] or ["oldest", "pinned", "newest"]
    codes = [run(named.get(one, one)) for one in asked]
    sys.exit(max(codes))


if __name__ == "__main__":
    main()
