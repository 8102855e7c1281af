"""The web page in headless Chromium: pick a picture, compare methods, show and save the explorer page."""

import json

import pytest

from iava.lvlm.model import LVLM
from iava.serve.limits import Limits
from tests import tiny
from tests.serve.serving import running

pytest.importorskip("playwright", reason="make test-browser installs it")

pytestmark = pytest.mark.browser

QUESTION = "Is there a dog ?"


@pytest.fixture(scope="module")
def served():
    with running(LVLM(tiny.model(), tiny.processor()), method="iava", limits=Limits(body=200_000)) as server:
        yield server


@pytest.fixture
def page(served):
    from tests.browser.driver import chromium

    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.set_default_timeout(30_000)
        outside, errors, missing = [], [], []
        page.on("request", lambda r: outside.append(r.url) if not r.url.startswith((served.url, "data:")) else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("response", lambda answer: missing.append(answer.url) if answer.status == 404 else None)
        page.goto(served.url)
        page.get_by_label("pai alpha").wait_for(state="attached")
        yield page
        assert missing == []
        assert outside == []
        assert errors == []


def answers(page):
    page.locator("#result").wait_for()
    rows = page.locator("#answers tr").all()
    return [[cell.inner_text() for cell in row.locator("th, td").all()] for row in rows]


def test_pick_a_picture_ask_and_save_the_page(page, tmp_path):
    picture = page.get_by_alt_text("The picture that is asked about")
    first = picture.get_attribute("src")
    page.get_by_role("button", name="Picture 2").click()
    page.wait_for_function("before => document.getElementById('picture').src !== before", arg=first)
    page.get_by_label("Questions, one per line").fill(f"{QUESTION}\n\nWhere ?")
    page.get_by_role("button", name="Ask").click()
    table = answers(page)
    assert table[0] == ["Question", "greedy", "iava"]
    assert [row[0] for row in table[1:]] == [QUESTION, "Where ?"]
    frame = page.frame_locator("iframe[title='The explorer']")
    frame.locator("h1", has_text=QUESTION).wait_for()
    assert frame.locator(".answer").count() == 2
    fits = "frame => frame.clientHeight >= frame.contentDocument.documentElement.scrollHeight"
    page.set_viewport_size({"width": 390, "height": 844})
    page.wait_for_function(f"({fits})(document.querySelector('iframe'))")
    frame.get_by_text("Where ?").first.click()
    assert frame.locator("h1").inner_text() == "Where ?"
    with page.expect_download() as kept:
        page.get_by_text("Save it").click()
    kept.value.save_as(tmp_path / "kept.html")
    text = (tmp_path / "kept.html").read_text()
    assert text.startswith("<!doctype html>")
    assert QUESTION in text


def test_each_method_shows_and_uses_its_own_defaults(page):
    lvlm = LVLM(tiny.model(), tiny.processor())
    for name in ("pai", "avisc"):
        page.get_by_role("checkbox", name=name, exact=True).check()
        for setting, value in lvlm.method(name).settings().items():
            shown = page.get_by_label(f"{name} {setting}", exact=True).input_value()
            # A setting is shown as JSON, in which JavaScript writes 1.0 as 1.
            assert shown == (value if isinstance(value, str) else json.dumps(value).removesuffix(".0"))
    page.get_by_role("button", name="Ask").click()
    assert answers(page)[0] == ["Question", "greedy", "iava", "avisc", "pai"]
    frame = page.frame_locator("iframe[title='The explorer']")
    frame.get_by_text("pai: alpha=0.2, gamma=1.1, beta=0.1, start=2").first.wait_for(state="attached")


def test_settings_are_sent_as_typed(page):
    # Chosen methods stand first, and greedy has no settings.
    page.get_by_text("settings").first.click()
    page.get_by_label("iava top_i", exact=True).fill("3")
    page.get_by_label("iava negative", exact=True).fill("hide")
    page.get_by_role("button", name="Ask").click()
    answers(page)
    frame = page.frame_locator("iframe[title='The explorer']")
    frame.get_by_text("top_i=3").first.wait_for(state="attached")
    frame.get_by_text("negative=hide").first.wait_for(state="attached")
    page.get_by_label("iava lam", exact=True).fill("much")
    page.get_by_role("button", name="Ask").click()
    page.get_by_text("lam is 'much': it must be a finite number").wait_for()


def test_an_uploaded_picture_is_asked_about(page, tmp_path):
    tiny.image(size=(48, 32)).save(tmp_path / "mine.png")
    page.get_by_label("Upload").set_input_files(tmp_path / "mine.png")
    page.wait_for_function("document.getElementById('picture').naturalWidth === 48")
    page.get_by_role("button", name="Ask").click()
    page.frame_locator("iframe[title='The explorer']").get_by_text("48 × 32 pixels").wait_for(state="attached")


def test_errors_are_shown(page, tmp_path):
    alert = page.get_by_role("alert")
    for name in ("greedy", "iava"):
        page.get_by_role("checkbox", name=name, exact=True).uncheck()
    page.get_by_role("button", name="Ask").click()
    alert.get_by_text("No method is chosen").wait_for()
    page.get_by_role("checkbox", name="greedy", exact=True).check()
    page.get_by_label("Questions, one per line").fill(" \n ")
    page.get_by_role("button", name="Ask").click()
    alert.get_by_text("There is no question").wait_for()
    page.get_by_label("Questions, one per line").fill(QUESTION)
    (tmp_path / "text.png").write_text("no picture")
    page.get_by_label("Upload").set_input_files(tmp_path / "text.png")
    page.get_by_role("button", name="Ask").click()
    alert.get_by_text("not in a format that is read here").wait_for()
    (tmp_path / "large.png").write_bytes(b"x" * 300_000)
    page.get_by_label("Upload").set_input_files(tmp_path / "large.png")
    page.get_by_role("button", name="Ask").click()
    alert.get_by_text("more than 200,000 bytes").wait_for()
    (tmp_path / "larger.png").write_bytes(b"x" * 12_000_001)
    page.get_by_label("Upload").set_input_files(tmp_path / "larger.png")
    alert.get_by_text("more than 12 MB").wait_for()


def test_a_locked_server_asks_for_the_key(tmp_path):
    from iava.serve.api.access import read_keys
    from tests.browser.driver import chromium

    (tmp_path / "keys").write_text("secret\n")
    lvlm = LVLM(tiny.model(), tiny.processor())
    with running(lvlm, keys=read_keys(tmp_path / "keys")) as locked, chromium() as browser:
        page = browser.new_page()
        page.set_default_timeout(30_000)
        page.goto(locked.url)
        page.get_by_role("alert").get_by_text("API key").wait_for()
        page.get_by_label("API key").fill("secret")
        page.get_by_label("API key").press("Tab")
        page.get_by_label("pai alpha").wait_for(state="attached")
        page.get_by_label("Questions, one per line").fill(QUESTION)
        page.get_by_role("button", name="Ask").click()
        page.frame_locator("iframe[title='The explorer']").locator("h1", has_text=QUESTION).wait_for()
