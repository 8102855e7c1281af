"""Pictures of the explorer for the documentation: `python -m tools.screenshots`, from the root, with a browser."""

import tempfile
from pathlib import Path

import torch

import iava
from iava.explain.page import circumstances, compare, explain_page
from iava.pocket.scenes import load_scene
from tests.browser.driver import chromium

OUT = Path("docs/images")
SCENE = 2
QUESTIONS = ["Is there a dog in the image?", "Describe this image."]
TOKEN = "79"
SHOTS = {
    "explorer-light": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "light"},
    "explorer-dark": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"},
    "explorer-phone": {"viewport": {"width": 390, "height": 844}, "color_scheme": "light", "device_scale_factor": 2},
}
TOP = {"explorer-phone": "document.getElementById('lab').offsetTop"}
WHAT = {"explorer-light": "general", "explorer-dark": "drop", "explorer-phone": "negative"}


def main() -> None:
    torch.set_num_threads(1)
    lvlm = iava.load("pocket")
    picture = load_scene("test", SCENE).render()
    asked = compare(lvlm, picture, QUESTIONS, {"greedy": {}, "iava": {}}, max_new_tokens=32, seed=42)
    about = circumstances(lvlm, max_new_tokens=32, seed=42)
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        path = Path(folder) / "page.html"
        path.write_text(explain_page(picture, asked, model="pocket", about=about))
        for name, settings in SHOTS.items():
            page = browser.new_page(**settings)
            page.goto(path.as_uri())
            page.locator(f"#what input[value={WHAT[name]}]").check()
            page.locator("#number").fill(TOKEN)
            # Seconds of whatever else this machine was doing would read as a measurement.
            page.add_style_tag(content=".answer .number { visibility: hidden }")
            page.evaluate("document.activeElement.blur()")
            # What was filled in last has been scrolled to.
            page.evaluate(f"window.scrollTo(0, {TOP.get(name, 0)})")
            page.screenshot(path=OUT / f"{name}.png", full_page=name == "explorer-light")
            page.close()


if __name__ == "__main__":
    main()
