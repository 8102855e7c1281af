"""From a configuration to an application; the same for one process and for the replicas of a cluster."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI

from iava.lvlm.model import LVLM
from iava.serve.api.app import build
from iava.serve.images.fetch import Fetcher
from iava.serve.limits import Limits
from iava.serve.page.store import Pages
from iava.serve.service import Service


@dataclass(frozen=True)
class ServerConfig:
    """What is served, and how.

    Args:
        load: loads the model.
        name: how requests and answers call it.
        method: used where a request names none.
        settings: of that method, in place of its defaults.
        limits: on requests and on what is kept.
        image_hosts: hosts from which images may be fetched, see `Fetcher`.
        keys: SHA-256 digests of API keys; None asks for none.
        origins: pages of which other origins may ask (CORS).
    """

    load: Callable[[], LVLM]
    name: str
    method: str = "iava"
    settings: dict[str, Any] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    image_hosts: tuple[str, ...] = ()
    keys: tuple[bytes, ...] | None = None
    origins: tuple[str, ...] = ()


def application(config: ServerConfig, pages: Pages | None = None) -> FastAPI:
    """Loads the model, warms it up, and builds the application.

    Args:
        config: what is served.
        pages: keeps explorer pages; None: this process does.

    Raises:
        IavaError: if the model cannot be loaded, or its default method refuses it.
    """
    service = Service(
        config.load(),
        config.name,
        method=config.method,
        settings=config.settings,
        limits=config.limits,
        fetcher=Fetcher(config.image_hosts),
        pages=pages,
    )
    service.warm_up()
    return build(service, keys=config.keys, origins=config.origins)
