"""Every command in the documentation has arguments and options that exist."""

import re
import shlex

import pytest
import typer

from iava.cli.app import app
from tests.docs.pages import PAGES

COMMAND = typer.main.get_command(app)


def commands(text: str) -> list[str]:
    """The lines of code, and the code within lines, that call `iava` with arguments."""
    blocks = re.findall(r"```\w*\n(.*?)```", text, flags=re.DOTALL)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    inline = re.findall(r"`(iava [^`]*)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    # Shorter code within a line, such as `iava eval mme`, names a command and does not call it.
    calls = [line for line in lines if line.startswith("iava ")] + [code for code in inline if len(code.split()) > 4]
    return [call for call in calls if "|" not in call]


FOUND = sorted({command for page in PAGES for command in commands(page.read_text(encoding="utf-8"))})


@pytest.mark.parametrize("command", FOUND)
def test_a_documented_command_is_understood(command: str) -> None:
    words = shlex.split(command, comments=True)[1:]
    parser = COMMAND
    while hasattr(parser, "commands"):
        parser = parser.commands[words.pop(0)]
    parser.make_context("iava", words)


def test_a_wrong_option_is_not_understood() -> None:
    with pytest.raises(Exception, match="--no-such"):
        test_a_documented_command_is_understood("iava ask a.jpg b --no-such 1")
