"""The explorer as an app: pick or upload a picture, ask, compare methods, keep the page. Needs gradio."""

import html
import tempfile
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from iava.engine.negatives import NEGATIVES
from iava.errors import IavaError
from iava.explain.page import circumstances, compare, explain_page
from iava.lvlm.images import read_image
from iava.lvlm.model import LVLM
from iava.methods import METHODS
from iava.pocket.scenes import load_scene

SCENES = 12
"""Pictures of the shipped world's test split to pick from."""
SEED = 42
OFFERED = [name for name in METHODS if name != "oracle"]
"""The oracle must be told which region answers; here nobody knows."""


def build(lvlm: LVLM, model: str) -> gr.Blocks:
    """The app, ready to be launched.

    Args:
        lvlm: the model.
        model: its name.
    """
    scenes = [load_scene("test", index).render() for index in range(SCENES)]
    iava = METHODS["iava"]().settings()
    folder = tempfile.TemporaryDirectory(prefix="iava-app-")

    def explore(
        picture: Image.Image | None,
        questions: str,
        methods: list[str],
        top_i: float,
        lam: str,
        alpha: float,
        beta: float,
        negative: str,
        general: str,
        max_new_tokens: int,
    ) -> tuple[str, gr.DownloadButton]:
        given = dict(top_i=float(top_i), lam=read_lam(lam), alpha=alpha, beta=beta, negative=negative, general=general)
        try:
            shown, path = _explored(
                lvlm, model, picture, questions, methods, given, int(max_new_tokens), Path(folder.name)
            )
        except ValueError as error:
            raise gr.Error(str(error)) from None
        return shown, gr.DownloadButton(value=path, interactive=True)

    def pick(event: gr.SelectData) -> Image.Image:
        return scenes[event.index]

    with gr.Blocks(title="iava", analytics_enabled=False) as app:
        # Lives as long as the app does: the pages are downloaded from there.
        app.iava_folder = folder
        gr.Markdown("# iava\nPick or upload a picture, ask, and see what the model looked at.")
        with gr.Row():
            with gr.Column():
                picture = gr.Image(type="pil", label="Picture", value=scenes[0], height=320)
                gallery = gr.Gallery(
                    scenes, show_label=False, columns=4, height="auto", allow_preview=False, buttons=[]
                )
            with gr.Column():
                questions = gr.Textbox("Is there a dog in the image?", label="Questions, one a line", lines=2)
                methods = gr.CheckboxGroup(OFFERED, value=["greedy", "iava"], label="Methods")
                with gr.Accordion("Settings", open=False):
                    top_i = gr.Slider(0.01, 1, iava["top_i"], label="top_i, share of the tokens")
                    # Text, because an empty field for numbers counts as 0.
                    lam = gr.Textbox("", label="lambda, a number or auto; empty takes the model's own")
                    alpha = gr.Slider(0, 3, iava["alpha"], label="alpha")
                    beta = gr.Slider(0, 1, iava["beta"], label="beta")
                    negative = gr.Dropdown(list(NEGATIVES), value=iava["negative"], label="negative image")
                    general = gr.Textbox(iava["general"], label="general instruction")
                    longest = gr.Slider(1, 256, 32, step=1, label="longest answer, tokens")
                ask = gr.Button("Ask", variant="primary")
                keep = gr.DownloadButton("Keep the page", interactive=False)
        shown = gr.HTML()
        gallery.select(pick, None, picture)
        asked = [picture, questions, methods, top_i, lam, alpha, beta, negative, general, longest]
        gr.on([ask.click, questions.submit], explore, asked, [shown, keep])
    return app


def read_lam(text: str) -> float | str | None:
    """What is typed for lambda: nothing is None; what is no number is left to be refused, unless it is "auto"."""
    try:
        return float(text) if text.strip() else None
    except ValueError:
        return text.strip()


def _explored(
    lvlm: LVLM,
    model: str,
    picture: Image.Image | None,
    questions: str,
    methods: list[str],
    given: dict[str, Any],
    max_new_tokens: int,
    folder: Path,
) -> tuple[str, str]:
    """The page in a frame, and its path for keeping it."""
    if picture is None:
        raise IavaError("there is no picture: pick or upload one")
    if not methods:
        raise IavaError("no method is chosen: choose at least one")
    lines = [line.strip() for line in questions.splitlines() if line.strip()]
    if not lines:
        raise IavaError("there is no question: ask something, such as 'Is there a dog in the image?'")
    chosen = {
        name: {key: value for key, value in given.items() if key in METHODS[name]().settings()} for name in methods
    }
    image = read_image(picture)
    asked = compare(lvlm, image, lines, chosen, max_new_tokens=max_new_tokens, seed=SEED)
    about = circumstances(lvlm, max_new_tokens=max_new_tokens, seed=SEED)
    page = explain_page(image, asked, model=model, about=about)
    path = Path(tempfile.mkdtemp(dir=folder)) / "iava.html"
    path.write_text(page, encoding="utf-8")
    grow = (
        "const inside = this.contentDocument; new ResizeObserver(() => "
        "{ this.style.height = inside.documentElement.scrollHeight + 'px'; }).observe(inside.body)"
    )
    return (
        f'<iframe title="The explorer" srcdoc="{html.escape(page)}" onload="{grow}" '
        'style="width:100%;height:1400px;border:0;border-radius:12px"></iframe>',
        str(path),
    )
