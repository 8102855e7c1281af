"""`iava app`: the explorer as an app in the browser."""

from typing import Annotated

import typer

from iava.cli import app as cli
from iava.errors import IavaError


@cli.app.command("app")
@cli._one_line
def serve(
    model: cli.Model = "pocket",
    host: Annotated[str, typer.Option(help="Where to listen; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Where to listen, 1 to 65535.")] = 7860,
) -> None:
    """Opens the explorer as an app: pick or upload a picture, ask, compare methods, keep the page."""
    if not 1 <= port <= 65535:
        raise IavaError(f"port is {port}: it must be from 1 to 65535")
    try:
        import gradio  # noqa: F401
    except ImportError:
        raise IavaError("the app needs gradio: install it with pip install 'iava[app]'") from None
    lvlm = cli._load(model)
    from iava.explain.app import build

    try:
        build(lvlm, model).launch(server_name=host, server_port=port)
    except OSError as error:
        raise IavaError(f"cannot listen on {host}:{port}: {error}") from None
