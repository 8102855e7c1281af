"""The command `iava app`."""

from typing import Annotated, Any

import typer

from iava.cli.options import Model, load_model, with_options
from iava.errors import IavaError


@with_options
def serve(
    model: Model = "pocket",
    host: Annotated[
        str, typer.Option(help="Address to listen on. 0.0.0.0 accepts connections from other machines.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on, 1 to 65535.")] = 7860,
    *,
    loading: dict[str, Any],
) -> None:
    """Open the explorer as an app in the browser."""
    if not 1 <= port <= 65535:
        raise IavaError(f"port is {port}: it must be from 1 to 65535")
    try:
        import gradio  # noqa: F401
    except ImportError:
        raise IavaError("the app needs gradio: install it with pip install 'iava[app]'") from None
    lvlm = load_model(model, **loading)
    from iava.explain.app import build_app

    try:
        build_app(lvlm, model).launch(server_name=host, server_port=port)
    except OSError as error:
        raise IavaError(f"cannot listen on {host}:{port}: {error}") from None
