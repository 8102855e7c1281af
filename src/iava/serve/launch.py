"""Builds the application from a configuration, for one process and for the replicas of a cluster."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI

from iava.lvlm.model import LVLM
from iava.serve.api.app import build_app
from iava.serve.images.fetch import Fetcher
from iava.serve.limits import Limits
from iava.serve.page.store import Pages
from iava.serve.service import Service


@dataclass(frozen=True)
class ServerConfig:
    """Configuration of a server.

    Args:
        load: loads the model.
        name: name of the model in requests and answers.
        method: default decoding method.
        settings: settings of the default method that replace its own defaults.
        limits: limits of the server.
        image_hosts: hosts from which images may be fetched, see `Fetcher`.
        keys: SHA-256 digests of API keys. None: no key is needed.
        origins: origins whose pages may send requests (CORS).
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
        config: configuration of the server.
        pages: store of explorer pages. None: a store in this process.

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
    return build_app(service, keys=config.keys, origins=config.origins)
