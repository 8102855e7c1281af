"""Shared fixtures; a full run of the family tests is compared with docs/families.md."""

from typing import Any

import pytest

from tests import tiny
from tools.families import PAGE, Outcomes


def pytest_addoption(parser: Any) -> None:
    parser.addoption("--no-page", action="store_true", help="do not compare docs/families.md with the outcomes")


def pytest_configure(config: Any) -> None:
    if not config.getoption("--no-page"):
        config.pluginmanager.register(Outcomes(), "families")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: Any) -> None:
    outcomes = session.config.pluginmanager.get_plugin("families")
    page = outcomes and outcomes.page()
    if page and (not PAGE.exists() or PAGE.read_text(encoding="utf-8") != page):
        print(f"\n{PAGE.name} differs from the outcomes of this run: python -m tools.families")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A saved tiny model, for `--model`."""
    return tiny.save(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def picture(tmp_path) -> str:
    """A picture in a file of its own."""
    path = tmp_path / "picture.png"
    tiny.image().save(path)
    return str(path)
