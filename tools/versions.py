"""Runs the tests that depend on transformers on its oldest, its pinned and its newest release: `make test-versions`.

Each release is installed beside the environment, without its dependencies, and shadows the installed one.

    python -m tools.versions [oldest|pinned|newest|VERSION ...]
"""

import os
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
TESTS = [
    "engine",
    "methods",
    "test_families.py",
    "test_strategies.py",
    "test_matrix.py",
    "integrations/test_custom_generate.py",
]

MARKED = "families or not (slow or gpu or hub or browser or docs)"


def oldest() -> str:
    """The lower bound that the package asks for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    bounds = next(Requirement(one).specifier for one in project["dependencies"] if one.startswith("transformers"))
    return next(bound.version for bound in bounds if bound.operator == ">=")


def pinned() -> str:
    """The installed release."""
    return version("transformers")


def newest() -> str:
    """The last release, as pip finds it."""
    command = [sys.executable, "-m", "pip", "index", "versions", "transformers"]
    found = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    # The first line is "transformers (5.24.0)".
    return found.split("(")[1].split(")")[0]


def overlay(release: str) -> Path | None:
    """A folder with a release of transformers and of what it needs in another version; None for the installed one."""
    if release == pinned():
        return None
    folder = ROOT / "build" / "versions" / release
    if not folder.exists():
        install(folder, Requirement(f"transformers=={release}"))
    return folder


def install(folder: Path, wanted: Requirement) -> None:
    """Puts a package into a folder, and what it requires where the environment has not got it in that version."""
    command = ["pip", "install", "--quiet", "--no-deps", "--target", str(folder), str(wanted)]
    subprocess.run([sys.executable, "-m", *command], check=True)
    (found,) = (one for one in distributions(path=[str(folder)]) if normal(one.name) == normal(wanted.name))
    for need in map(Requirement, found.requires or ()):
        if need.marker is None or need.marker.evaluate({"extra": ""}):
            try:
                there = need.specifier.contains(version(need.name))
            except PackageNotFoundError:
                there = False
            if not there:
                install(folder, need)


def normal(name: str) -> str:
    return name.lower().replace("_", "-")


def run(release: str) -> int:
    """Runs the tests on a release; gives the exit code of pytest."""
    folder = overlay(release)
    path = [str(folder)] if folder else []
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*path, str(ROOT / "src")])}
    print(f"transformers {release}", flush=True)
    command = [
        "pytest",
        "--no-page",
        "-m",
        MARKED,
        "--numprocesses",
        "2",
        "--dist",
        "worksteal",
        *(f"tests/{one}" for one in TESTS),
    ]
    return subprocess.run([sys.executable, "-m", *command], cwd=ROOT, env=environment).returncode


def main() -> None:
    named = {"oldest": oldest, "pinned": pinned, "newest": newest}
    codes = [0]
    for name in sys.argv[1:] or named:
        release = named[name]() if name in named else name
        if name == "newest" and release == pinned():
            print(f"transformers {release}: the newest release is the installed one, on which `make test` runs")
        else:
            codes.append(run(release))
    sys.exit(max(codes))


if __name__ == "__main__":
    main()
