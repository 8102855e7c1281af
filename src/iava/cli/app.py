"""The command `iava`: registers all commands and turns errors into messages and exit codes.

Exit codes: 0 success, 1 a bug (with its traceback) or a closed pipe, 2 bad input (one line on standard error),
130 interrupted.
"""

import errno
import os
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from iava.cli.commands import (
    ablate,
    ask,
    bench,
    data,
    demo,
    evaluate,
    explain,
    export,
    frontier,
    merge,
    methods,
    report,
    reproduce,
    rescore,
    score,
    serve,
    study,
    sweep,
    tune,
)
from iava.errors import IavaError

# No module imported here may import torch: `iava --help` must answer at once.

_USAGE_ERROR: Any = typer.BadParameter.__mro__[1]
"""The base class of errors in options; the click module that defines it depends on typer's version."""
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


app: typer.Typer = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def options(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of errors that bad input caused.")] = False,
) -> None:
    """Instruction-aligned visual attention: decode with fewer hallucinations, and measure whether it worked."""
    context.obj["debug"] = debug


COMMANDS: dict[str, Callable[..., None]] = {
    "ask": ask.ask,
    "explain": explain.explain,
    "demo": demo.demo,
    "methods": methods.methods,
    "eval": evaluate.evaluate,
    "score": score.score,
    "merge": merge.merge,
    "rescore": rescore.rescore,
    "report": report.report,
    "reproduce": reproduce.reproduce,
    "tune": tune.tune,
    "ablate": ablate.ablate,
    "sweep": sweep.sweep,
    "frontier": frontier.frontier,
    "study": study.study,
    "bench": bench.bench,
    "serve": serve.serve,
    "app": serve.app,
    "export": export.export,
}
for name, command in COMMANDS.items():
    app.command(name)(command)
app.add_typer(data.commands, name="data")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command line and exits with its code.

    Args:
        arguments: command, options and values; None takes those of the process.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    state = {"debug": False}
    try:
        _check_text(given)
        code = app(given or ["--help"], prog_name="iava", obj=state, standalone_mode=False)
        # Errors of buffered output must show here, not when the interpreter ends.
        print(end="", flush=True)
    except _USAGE_ERROR as error:
        code = _refuse(error.format_message())
    except IavaError as error:
        if state["debug"]:
            raise
        code = _refuse(str(error))
    except (typer.Abort, KeyboardInterrupt):
        code = 130
    except BrokenPipeError:
        _discard_output()
        code = 1
    except OSError as error:
        if error.errno not in _DISK_FULL or state["debug"]:
            raise
        _discard_output()
        code = _refuse(f"cannot write the output ({error.strerror}): free some space, or choose another place")
    if code == 130:
        print("iava: interrupted", file=sys.stderr)
    sys.exit(code)


def _check_text(arguments: Sequence[str]) -> None:
    """Refuses arguments that are not UTF-8: they are written to manifests and pages."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise _USAGE_ERROR(f"the argument {argument!r} is not valid UTF-8") from None


def _refuse(message: str) -> int:
    print("iava: error: " + " ".join(message.split()), file=sys.stderr)
    return 2


def _discard_output() -> None:
    """Drops what standard output still holds, so that the interpreter does not fail to write it again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
