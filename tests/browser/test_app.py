"""The app in a real browser: choose an image, compare methods, show and save the page. Needs gradio."""

import pytest

from iava.lvlm.model import LVLM
from tests import tiny

pytest.importorskip("gradio", reason="make test-browser installs it")
pytest.importorskip("playwright", reason="make test-browser installs it")

pytestmark = pytest.mark.browser

QUESTION = "Is there a dog ?"


@pytest.fixture(scope="module")
def url():
    from iava.explain.app import build_app

    app = build_app(LVLM(tiny.model(), tiny.processor()), "tiny")
    _, url, _ = app.launch(server_name="127.0.0.1", prevent_thread_lock=True, quiet=True)
    yield url
    app.close()


@pytest.fixture
def page(url):
    from tests.browser.driver import chromium

    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.set_default_timeout(60_000)
        outside = []
        page.on("request", lambda r: outside.append(r.url) if r.url.startswith("http") and url not in r.url else None)
        page.goto(url)
        page.get_by_role("button", name="Ask").wait_for()
        yield page
        assert outside == []


def test_an_example_is_chosen_asked_about_and_the_page_saved(page, tmp_path):
    shown = page.locator(".image-frame img")
    first = shown.get_attribute("src")
    page.locator(".grid-container button").nth(1).click()
    page.wait_for_function("before => document.querySelector('.image-frame img')?.src != before", arg=first)
    page.get_by_label("Questions, one per line").fill(f"{QUESTION}\nWhere ?")
    assert page.get_by_role("button", name="Save the page").is_disabled()
    page.get_by_role("button", name="Ask").click()
    frame = page.frame_locator("iframe[title='The explorer']")
    frame.locator("h1", has_text=QUESTION).wait_for()
    assert frame.locator(".answer").count() == 2
    fits = "frame => frame.clientHeight >= frame.contentDocument.documentElement.scrollHeight"
    page.set_viewport_size({"width": 390, "height": 844})
    page.wait_for_function(f"({fits})(document.querySelector('iframe'))")
    frame.get_by_text("Where ?").first.click()
    assert frame.locator("h1").inner_text() == "Where ?"
    with page.expect_download() as download:
        page.get_by_text("Save the page").click()
    download.value.save_as(tmp_path / "saved.html")
    text = (tmp_path / "saved.html").read_text()
    assert text.startswith("<!doctype html>")
    assert QUESTION in text


def test_an_uploaded_image_is_asked_about(page, tmp_path):
    tiny.image(size=(48, 32)).save(tmp_path / "mine.png")
    page.get_by_label("Remove Image").or_(page.get_by_label("Clear")).first.click()
    page.locator("input[type=file]").first.set_input_files(tmp_path / "mine.png")
    page.locator(".image-frame img").wait_for()
    page.get_by_role("button", name="Ask").click()
    frame = page.frame_locator("iframe[title='The explorer']")
    frame.get_by_text("48 × 32 pixels").wait_for()


def test_lambda_is_the_models_default_unless_typed(page):
    page.get_by_role("button", name="Settings").first.click()
    lam = page.get_by_label("lambda")
    assert lam.input_value() == ""
    lam.fill("much")
    page.get_by_role("button", name="Ask").click()
    page.get_by_text("lam is 'much': it must be a finite number").wait_for()


def test_missing_methods_are_refused(page):
    for name in ("greedy", "iava"):
        page.get_by_label(name, exact=True).uncheck()
    page.get_by_role("button", name="Ask").click()
    page.get_by_text("no method is selected").wait_for()
