"""The package that users install is complete."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_no_file_of_the_package_is_ignored() -> None:
    """The build leaves out what .gitignore names, even if git tracks it."""
    command = ["git", "ls-files", "--cached", "--ignored", "--exclude-standard", "src"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout == ""
