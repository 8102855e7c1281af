"""Runs commands as a user does, without a process of their own."""

from typer.testing import CliRunner

from iava.cli import app as cli


def run(*arguments):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def refused(*arguments):
    """What is said on standard error by a command that must end with exit code 2 and one line."""
    result = run(*arguments)
    assert result.exit_code == 2, result.output + str(result.exception)
    assert result.stdout == ""
    assert result.stderr.startswith("iava: error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr
