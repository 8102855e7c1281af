"""The report paints its attention maps in a real browser, also after another question is chosen."""

import pytest

from tests.browser.test_explorer import browser, opened, written  # noqa: F401
from tests.reporting.test_report import html, run, section  # noqa: F401

pytestmark = pytest.mark.browser


def test_panes_are_painted_when_they_become_visible(browser, html, tmp_path_factory):  # noqa: F811
    with opened(browser, written(tmp_path_factory, html)) as page:
        page.locator(".ask").nth(1).click()
        page.wait_for_function(
            """() => [...document.querySelectorAll('[data-panes]:not([hidden]) canvas')].every(canvas => canvas.width
            && canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.some(value => value > 0))"""
        )
        assert page.locator("[data-panes]:not([hidden]) canvas").count() == 3
