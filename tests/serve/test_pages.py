"""Explorer pages are kept for a limited time and number of bytes; `/v1/compare` shows several methods on one."""

import re
import time

import pytest

from iava.methods import METHODS
from iava.serve.limits import Limits
from iava.serve.page.store import PageStore
from tests import tiny
from tests.serve.serving import data_uri, running

QUESTION = "Is there a dog ?"


class TestStore:
    def test_each_page_has_its_own_name(self):
        store = PageStore(60, 1000)
        names = [store.put("é" * 10), store.put("b")]
        assert [store.get(name) for name in names] == ["é".encode() * 10, b"b"]
        assert store.size() == 21
        assert len(set(names)) == 2
        assert min(map(len, names)) >= 20
        assert store.get("other") is None

    def test_the_oldest_pages_are_removed_first(self):
        store = PageStore(60, 25)
        names = [store.put("x" * 10) for _ in range(4)]
        assert [store.get(name) is None for name in names] == [True, True, False, False]
        assert store.size() == 20

    def test_old_pages_are_removed(self):
        store = PageStore(0.05, 1000)
        name = store.put("x")
        time.sleep(0.06)
        store.clean()
        assert store.size() == 0
        assert store.get(name) is None


def compare(served, **more):
    asked = {"image": data_uri(tiny.image()), "questions": [QUESTION, "Where ?"], "methods": {"greedy": {}}}
    with served.http() as http:
        return http.post("/v1/compare", json={**asked, **more})


def test_each_method_has_its_own_defaults(served, lvlm):
    methods = {"greedy": {}, "iava": {"top_i": 0.5}, "pai": {}, "avisc": {}, "vcd": {}}
    found = compare(served, methods=methods, max_tokens=5).json()
    expected = [
        (question, name, lvlm.ask(tiny.image(), question, method=name, max_new_tokens=5, **settings))
        for question in (QUESTION, "Where ?")
        for name, settings in methods.items()
    ]
    assert [(one["question"], one["method"], one["text"]) for one in found["answers"]] == [
        (question, name, answer.text) for question, name, answer in expected
    ]
    assert [one["settings"] for one in found["answers"]] == [answer.settings for _, _, answer in expected]
    assert found["answers"][2]["settings"]["alpha"] == 0.2
    with served.http() as http:
        page = http.get(found["page"])
        assert "script-src 'unsafe-inline'" in page.headers["content-security-policy"]
        assert page.headers["content-security-policy"].startswith("default-src 'none'")
    for word in (QUESTION, "Where ?", "pai", "avisc"):
        assert word in page.text


@pytest.mark.parametrize(
    ("changed", "param"),
    [
        ({"image": "x"}, "image"),
        ({"questions": []}, "questions"),
        ({"questions": [""]}, "questions.0"),
        ({"questions": ["x" * 2001]}, "questions.0"),
        ({"questions": ["x"] * 9}, "questions"),
        ({"questions": ["<image> ?"]}, "questions.0"),
        ({"methods": {}}, "methods"),
        ({"methods": {"beam": {}}}, "methods.beam.method"),
        ({"methods": {"oracle": {}}}, "methods.oracle.method"),
        ({"methods": {"iava": {"alpha": "much"}}}, "methods.iava"),
        ({"methods": {"greedy": {}, "pai": {"negative": "zeros"}}}, "methods.pai"),
        ({"max_tokens": 257}, "max_tokens"),
        ({"temperature": 1}, "temperature"),
    ],
)
def test_a_wrong_field_is_refused_by_its_name(served, changed, param):
    answer = compare(served, **changed)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


def test_a_removed_page_is_not_found(lvlm):
    with running(lvlm, limits=Limits(page_bytes=0)) as served:
        page = compare(served, max_tokens=1).json()["page"]
        with served.http() as http:
            assert http.get(page).status_code == 404
            assert http.get("/pages/..%2f..%2fetc%2fpasswd").status_code == 404


def test_methods_are_listed_with_settings_ranges_and_papers(lvlm):
    with running(lvlm, method="iava", settings={"alpha": 0.5}) as served, served.http() as http:
        found = http.get("/v1/methods").json()
    assert found["default"] == "iava"
    cards = {card["name"]: card for card in found["data"]}
    assert set(cards) == set(METHODS) - {"oracle", "verify", "best-of"}
    assert cards["vcd"]["paper"] == "2311.16922"
    assert cards["greedy"]["control"] is True
    assert cards["iava"]["settings"]["alpha"]["default"] == 0.5
    assert cards["vcd"]["settings"]["alpha"] == {"default": 1.0, "description": "strength of the contrast, at least 0."}
    assert cards["sid"]["settings"]["keep"]["description"].startswith("how many tokens")
    for name, card in cards.items():
        assert set(card["settings"]) == set(METHODS[name]().settings())
        assert all(setting["description"] for setting in card["settings"].values())
        assert card["summary"]


RANGE = re.compile(r"any finite number|at least -?\d|above \d|\d to \d|in \(0, 1\]|a count|above `start`|from 0")


def test_every_number_and_every_choice_is_listed_with_its_range(served):
    with served.http() as http:
        cards = http.get("/v1/methods").json()["data"]
    numbers = choices = 0
    for card in cards:
        for name, setting in card["settings"].items():
            described = setting["description"]
            if isinstance(setting["default"], int | float) and not isinstance(setting["default"], bool):
                assert RANGE.search(described), (card["name"], name)
                numbers += 1
            elif name in ("negative", "kind", "noise_per", "place", "layers", "qformer"):
                assert f'"{setting["default"]}"' in described, (card["name"], name)
                choices += 1
    assert (numbers > 50, choices > 10) == (True, True)
