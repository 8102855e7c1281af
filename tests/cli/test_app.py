"""Exit codes and error messages of the command line, and what `--help` says and imports."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from rich.text import Text

from iava.cli.app import app
from iava.cli.console import progress
from tests.commands import refused, run

IAVA = [sys.executable, "-m", "iava"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["ask"], "Missing argument"),
        (["ask", "x.png", "q", "--beta", "much"], "--beta"),
        (["ask", "x.png", "q", "--gamma", "1"], "--gamma"),
        (["eval", "pope"], "--out"),
        (["fly"], "No such command 'fly'"),
        (["ask", "x.png", "caf\udce9?"], r"the argument 'caf\udce9?' is not valid UTF-8"),
    ],
)
def test_a_wrong_command_line_is_one_line(arguments, words):
    assert words in refused(*arguments)


@pytest.mark.slow
def test_in_a_shell_bad_input_leaves_no_traceback_unless_debug_is_given(tmp_path):
    arguments = ["ask", str(tmp_path / "no.png"), "Who?"]
    ended = subprocess.run([*IAVA, *arguments], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("iava: error: ")
    assert ended.stderr.count("\n") == 1
    ended = subprocess.run([*IAVA, "--debug", *arguments], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "Traceback (most recent call last)" in ended.stderr
    assert "IavaError: there is no image at" in ended.stderr


BUGGY = """
from iava.methods.vcd import VCD

class Buggy(VCD):
    name = "buggy"
    def combine(self, *_):
        raise ValueError("operands could not be broadcast")
"""


@pytest.mark.slow
def test_a_bug_keeps_its_traceback(picture, tiny_folder, tmp_path):
    (tmp_path / "planted.py").write_text(BUGGY)
    command = [*IAVA, "ask", picture, "Is there a dog ?", "--model", tiny_folder, "--method", "planted:Buggy"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    ended = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "Traceback (most recent call last)" in ended.stderr
    assert ended.stderr.endswith("ValueError: operands could not be broadcast\n")


@pytest.mark.slow
def test_an_interrupt_ends_with_130(tmp_path):
    records = tmp_path / "run" / "records.jsonl"
    command = [*IAVA, "eval", "pope", "--methods", "greedy", "--limit", "1000", "--out", str(records.parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not records.exists():
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()
    assert process.returncode == 130
    assert err.splitlines()[-1] == "iava: interrupted"
    assert "Traceback" not in err


@pytest.mark.slow
def test_a_closed_pipe_is_silent():
    read, write = os.pipe()
    os.close(read)
    ended = subprocess.run([*IAVA, "methods", "--json"], stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (ended.returncode, ended.stderr) == (1, "")


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no /dev/full")
@pytest.mark.parametrize("arguments", [["methods"], ["methods", "--json"], ["--help"]])
def test_a_full_disk_is_one_line(arguments):
    with open("/dev/full", "w") as full:
        ended = subprocess.run([*IAVA, *arguments], stdout=full, stderr=subprocess.PIPE, text=True)
    assert ended.returncode == 2
    assert ended.stderr.startswith("iava: error: cannot write the output (No space left on device)")
    assert ended.stderr.count("\n") == 1


@pytest.mark.slow
def test_help_does_not_import_torch():
    script = (
        "import sys\n"
        "from iava.cli.app import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as ended:\n    assert ended.code == 0\n"
        "print('torch' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "demo" in ended.stdout
    assert ended.stdout.splitlines()[-1] == "False"


def commands(command: Any = None) -> Iterator[Any]:
    """All commands, subcommands included."""
    command = command or typer.main.get_command(app)
    yield command
    for nested in getattr(command, "commands", {}).values():
        yield from commands(nested)


def test_help_texts_survive_rich_and_describe_every_option():
    for command in commands():
        assert command.help.endswith("."), command.name
        for parameter in command.params:
            text = parameter.help
            assert text, f"{command.name} {parameter.name}"
            # Rich drops [words in brackets] that are not escaped.
            assert Text.from_markup(text).plain == text.replace("\\[", "["), f"{command.name} {parameter.name}"


def test_help_names_the_extra_that_ray_needs():
    assert "requires iava[ray]" in run("eval", "--help").stdout


def test_a_progress_bar_that_is_used_again_takes_the_new_total(capsys):
    with progress() as advance:
        for total in (6, 5):
            advance("pope test", total, total)
    assert "5/5" in capsys.readouterr().err
