import pytest

from iava.lvlm.model import LVLM
from tests import tiny
from tests.serve.serving import running


@pytest.fixture(scope="package")
def lvlm():
    return LVLM(tiny.model(), tiny.processor())


@pytest.fixture(scope="package")
def served(lvlm):
    """The tiny model, served with default limits and greedy decoding."""
    with running(lvlm, method="greedy") as server:
        yield server
