"""`iava methods`: a table, or JSON."""

import json

from iava.methods import METHODS
from tests.commands import run


def test_lists_every_method_with_its_settings():
    listed = json.loads(run("methods", "--json").stdout)
    assert [one["name"] for one in listed] == list(METHODS)
    by_name = {one["name"]: one for one in listed}
    assert by_name["iava"]["settings"] == METHODS["iava"]().settings()
    assert (by_name["iava"]["paper"], by_name["iava"]["title"], by_name["iava"]["control"]) == (
        "2503.18556",
        "IAVA",
        False,
    )
    assert (by_name["greedy"]["cost"], by_name["no-image"]["cost"]) == ("1", "2 in one batch")
    shown = run("methods").stdout
    for one in listed:
        assert one["name"] in shown
        assert one["paper"] is None or one["paper"] in shown
