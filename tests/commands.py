"""Runs command lines in this process, as `iava ...` runs them in a shell."""

import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO

from iava.cli.app import main


@dataclass
class Result:
    """Exit code and output of a command."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        return self.stdout + self.stderr


def run(*arguments) -> Result:
    """Runs a command; an exception that is not bad input is a bug, and propagates."""
    out, err, before = StringIO(), StringIO(), sys.argv
    sys.argv = ["iava", *map(str, arguments)]
    try:
        with redirect_stdout(out), redirect_stderr(err):
            main()
    except SystemExit as ended:
        return Result(ended.code or 0, out.getvalue(), err.getvalue())
    finally:
        sys.argv = before


def refused(*arguments) -> str:
    """Returns what a command says on standard error if it ends with exit code 2, one line and no output."""
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("iava: error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr
