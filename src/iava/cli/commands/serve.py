"""The commands `iava serve` and `iava app`."""

import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from iava.cli.options import Model, load_model, with_options
from iava.cli.settings import settings_of
from iava.errors import IavaError

_MEGA = 1_000_000
Host = Annotated[str, typer.Option(help="Address to listen on. 0.0.0.0 accepts connections from other machines.")]
Port = Annotated[int, typer.Option(help="Port to listen on, 1 to 65535. 0 takes a free one.")]


def _limit(text: str) -> Any:
    return typer.Option(help=text, rich_help_panel="Limits")


@with_options
def serve(
    model: Annotated[
        str, typer.Argument(help="pocket (ships with iava), a local folder, or a Hugging Face Hub id.")
    ] = "pocket",
    method: Annotated[str, typer.Option(help="Decoding method of requests that name none.")] = "iava",
    host: Host = "127.0.0.1",
    port: Port = 8000,
    *,
    settings: dict[str, Any],
    loading: dict[str, Any],
    api_key_file: Annotated[
        Path | None, typer.Option(help="File with API keys, one a line. Default: no key is needed.")
    ] = None,
    allow_image_host: Annotated[
        list[str] | None,
        typer.Option(help="Host (or host:port) from which images may be fetched. Repeatable. Default: none."),
    ] = None,
    cors: Annotated[
        list[str] | None,
        typer.Option(help="Origin whose pages may send requests, such as https://app.example.org. Repeatable."),
    ] = None,
    batch_window: Annotated[float, typer.Option(help="Milliseconds that a request waits for others.")] = 10,
    max_batch: Annotated[int, _limit("Most answers that are decoded together.")] = 16,
    max_queue: Annotated[int, _limit("Most requests that wait or run; others get 429.")] = 128,
    max_body: Annotated[float, _limit("Largest request, in megabytes; larger ones get 413.")] = 20,
    max_pixels: Annotated[float, _limit("Most megapixels of a request's images together.")] = 50,
    max_images: Annotated[int, _limit("Most images of a request.")] = 8,
    max_prompt_tokens: Annotated[
        int | None, _limit("Most tokens of a prompt, image tokens included. Default: what the model takes.")
    ] = None,
    max_new_tokens: Annotated[int, _limit("Most tokens of an answer, and the default.")] = 1024,
    timeout: Annotated[float, _limit("Seconds that a request may take; later it gets 504.")] = 120,
    image_memory: Annotated[float, _limit("Megabytes of images that are kept encoded.")] = 1000,
    page_minutes: Annotated[float, _limit("Minutes that an explorer page is kept.")] = 30,
    engine: Annotated[str, typer.Option(help="local, or ray: replicas on many GPUs or machines.")] = "local",
    replicas: Annotated[str, typer.Option(help="ray: number of replicas, or a range such as 1-4.")] = "1",
) -> None:
    """Serve a model: an OpenAI-compatible API in which each request can name its decoding method, and a web page."""
    if engine not in ("local", "ray"):
        raise IavaError(f"unknown engine {engine!r}: use local or ray")
    if replicas != "1" and engine != "ray":
        raise IavaError("--replicas was given, but only --engine ray has replicas")
    _check_installed()
    from iava.serve.api.access import read_keys
    from iava.serve.launch import ServerConfig
    from iava.serve.limits import Limits

    limits = Limits(
        body=round(max_body * _MEGA),
        pixels=round(max_pixels * _MEGA),
        images=max_images,
        prompt_tokens=max_prompt_tokens,
        new_tokens=max_new_tokens,
        queue=max_queue,
        seconds=timeout,
        batch=max_batch,
        window=batch_window / 1000,
        image_bytes=round(image_memory * _MEGA),
        page_seconds=page_minutes * 60,
    )
    config = ServerConfig(
        load=partial(load_model, model, **loading),
        name=_name(model),
        method=method,
        settings=settings_of([method], settings)[method],
        limits=limits,
        image_hosts=tuple(allow_image_host or ()),
        keys=None if api_key_file is None else tuple(read_keys(api_key_file)),
        origins=tuple(cors or ()),
    )
    if engine == "ray":
        _run_with_ray(config, host, port, _range(replicas))
    else:
        _run(config, host, port)


def app(model: Model = "pocket", host: Host = "127.0.0.1", port: Port = 7860) -> None:
    """Open the explorer as a page in the browser: pick or upload a picture, ask, and compare methods."""
    _check_installed()
    from iava.serve.launch import ServerConfig

    _run(ServerConfig(load=partial(load_model, model), name=_name(model)), host, port)


def _name(model: str) -> str:
    return Path(model).name if Path(model).is_dir() else model


def _check_installed() -> None:
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError:
        raise IavaError("the server needs more packages: install them with pip install 'iava[serve]'") from None


def _run(config: Any, host: str, port: int) -> None:
    from iava.serve.launch import application
    from iava.serve.server import listen, server

    # An address in use is reported before the model is loaded.
    listening = listen(host, port)
    made = application(config)
    # From here on connections wait for the server.
    listening.listen()
    # Standard output holds the access log.
    print(f"iava: {config.name} at {_address(*listening.getsockname()[:2])}", file=sys.stderr, flush=True)
    server(made, config.limits.seconds).run(sockets=[listening])


def _run_with_ray(config: Any, host: str, port: int, replicas: tuple[int, int]) -> None:
    from iava.serve.ray_engine import run_until_stopped, start

    start(config, host=host, port=port, replicas=replicas)
    print(f"iava: {config.name} at {_address(host, port)}", file=sys.stderr, flush=True)
    run_until_stopped()


def _address(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _range(text: str) -> tuple[int, int]:
    low, _, high = text.partition("-")
    high = high or low
    if not (low.isdecimal() and high.isdecimal() and 1 <= int(low) <= int(high)):
        raise IavaError(f"replicas is {text!r}: it must be a number such as 2, or a range such as 1-4")
    return int(low), int(high)
