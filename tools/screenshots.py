"""Screenshots of the explorer for the documentation: `python -m tools.screenshots`. Needs a browser.

Run it from the repository's root. It writes to docs/images.
"""

import tempfile
from pathlib import Path

import torch

import iava
from iava.benchmarks.sources.pocket import open_scene
from iava.explain.page import answer_by_methods, decoding_facts, explain_page
from tests.browser.driver import chromium

OUT = Path("docs/images")
SCENE = "test-00002"
QUESTIONS = ["Is there a dog in the image?", "Describe this image."]
TOKEN = "79"
SHOTS = {
    "explorer-light": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "light"},
    "explorer-dark": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"},
    "explorer-phone": {"viewport": {"width": 390, "height": 844}, "color_scheme": "light", "device_scale_factor": 2},
}
SCROLL_TOP = {"explorer-phone": "document.getElementById('lab').offsetTop"}
OVERLAYS = {"explorer-light": "general", "explorer-dark": "drop", "explorer-phone": "negative"}


def main() -> None:
    torch.set_num_threads(1)
    lvlm = iava.load("pocket")
    image = open_scene(SCENE)
    answers = answer_by_methods(lvlm, image, QUESTIONS, {"greedy": {}, "iava": {}}, max_new_tokens=32, seed=42)
    facts = decoding_facts(lvlm, max_new_tokens=32, seed=42)
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        path = Path(folder) / "page.html"
        path.write_text(explain_page(image, answers, model="pocket", facts=facts))
        for name, settings in SHOTS.items():
            page = browser.new_page(**settings)
            page.goto(path.as_uri())
            page.locator(f"#overlays input[value={OVERLAYS[name]}]").check()
            page.locator("#number").fill(TOKEN)
            # The answers' seconds are hidden, because readers would take them for a measurement.
            page.add_style_tag(content=".answer .number { visibility: hidden }")
            page.evaluate("document.activeElement.blur()")
            # Filling in the token number has scrolled the page.
            page.evaluate(f"window.scrollTo(0, {SCROLL_TOP.get(name, 0)})")
            page.screenshot(path=OUT / f"{name}.png", full_page=name == "explorer-light")
            page.close()


if __name__ == "__main__":
    main()
