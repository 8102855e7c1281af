"""The explorer as a web app: choose an image, ask, compare methods, save the page. Needs gradio."""

import html
import tempfile
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from iava.benchmarks.sources.pocket import example_images
from iava.engine.negatives import NEGATIVES
from iava.errors import IavaError
from iava.explain.page import answer_by_methods, decoding_facts, explain_page
from iava.lvlm.images import read_image
from iava.lvlm.model import LVLM
from iava.methods import METHODS

EXAMPLES = 12
"""The number of pocket scenes to choose from."""
SEED = 42
OFFERED_METHODS = [name for name in METHODS if name != "oracle"]
"""The oracle needs the region that answers the question, which is unknown here."""


def build_app(lvlm: LVLM, model: str) -> gr.Blocks:
    """The app, ready to launch.

    Args:
        lvlm: the model.
        model: its name.
    """
    examples = example_images(EXAMPLES)
    defaults = METHODS["iava"]().settings()
    folder = tempfile.TemporaryDirectory(prefix="iava-app-")

    def explore(
        image: Image.Image | None,
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
        settings = dict(
            top_i=float(top_i), lam=parse_lam(lam), alpha=alpha, beta=beta, negative=negative, general=general
        )
        try:
            frame, path = page_in_frame(
                lvlm, model, image, questions, methods, settings, int(max_new_tokens), Path(folder.name)
            )
        except IavaError as error:
            raise gr.Error(str(error)) from None
        return frame, gr.DownloadButton(value=path, interactive=True)

    def choose(event: gr.SelectData) -> Image.Image:
        return examples[event.index]

    with gr.Blocks(title="iava", analytics_enabled=False) as app:
        # The app owns the folder of the pages, so that they can be downloaded while it runs.
        app.iava_folder = folder
        gr.Markdown("# iava\nChoose or upload an image, ask questions, and see the attention behind each answer.")
        with gr.Row():
            with gr.Column():
                image = gr.Image(type="pil", label="Image", value=examples[0], height=320)
                gallery = gr.Gallery(
                    examples, show_label=False, columns=4, height="auto", allow_preview=False, buttons=[]
                )
            with gr.Column():
                questions = gr.Textbox("Is there a dog in the image?", label="Questions, one per line", lines=2)
                methods = gr.CheckboxGroup(OFFERED_METHODS, value=["greedy", "iava"], label="Methods")
                with gr.Accordion("Settings", open=False):
                    top_i = gr.Slider(0.01, 1, defaults["top_i"], label="top_i, fraction of the image tokens")
                    # A text box, because gradio reads an empty number box as 0.
                    lam = gr.Textbox("", label="lambda: a number or auto; empty uses the model's default")
                    alpha = gr.Slider(0, 3, defaults["alpha"], label="alpha")
                    beta = gr.Slider(0, 1, defaults["beta"], label="beta")
                    negative = gr.Dropdown(list(NEGATIVES), value=defaults["negative"], label="negative image")
                    general = gr.Textbox(defaults["general"], label="general instruction")
                    max_new_tokens = gr.Slider(1, 256, 32, step=1, label="max_new_tokens")
                ask = gr.Button("Ask", variant="primary")
                save = gr.DownloadButton("Save the page", interactive=False)
        frame = gr.HTML()
        gallery.select(choose, None, image)
        inputs = [image, questions, methods, top_i, lam, alpha, beta, negative, general, max_new_tokens]
        gr.on([ask.click, questions.submit], explore, inputs, [frame, save])
    return app


def parse_lam(text: str) -> float | str | None:
    """The lambda that was typed: None for an empty text, a number, or the text itself, which the method checks."""
    try:
        return float(text) if text.strip() else None
    except ValueError:
        return text.strip()


def page_in_frame(
    lvlm: LVLM,
    model: str,
    image: Image.Image | None,
    questions: str,
    methods: list[str],
    settings: dict[str, Any],
    max_new_tokens: int,
    folder: Path,
) -> tuple[str, str]:
    """Answers the questions and writes the explorer's page.

    Args:
        model: the model's name.
        questions: one per line.
        methods: command-line names.
        settings: of IAVA. Each method uses those that it has.
        folder: where the page is written.

    Returns:
        An HTML frame that shows the page, and the path of the page.

    Raises:
        IavaError: if there is no image, question or method, or a setting is out of range.
    """
    if image is None:
        raise IavaError("there is no image: choose or upload one")
    if not methods:
        raise IavaError("no method is selected: select at least one")
    lines = [line.strip() for line in questions.splitlines() if line.strip()]
    if not lines:
        raise IavaError("there is no question: type one, such as 'Is there a dog in the image?'")
    chosen = {
        name: {key: value for key, value in settings.items() if key in METHODS[name]().settings()} for name in methods
    }
    picture = read_image(image)
    answers = answer_by_methods(lvlm, picture, lines, chosen, max_new_tokens=max_new_tokens, seed=SEED)
    facts = decoding_facts(lvlm, max_new_tokens=max_new_tokens, seed=SEED)
    page = explain_page(picture, answers, model=model, facts=facts)
    path = Path(tempfile.mkdtemp(dir=folder)) / "iava.html"
    path.write_text(page, encoding="utf-8")
    resize = (
        "const page = this.contentDocument; new ResizeObserver(() => "
        "{ this.style.height = page.documentElement.scrollHeight + 'px'; }).observe(page.body)"
    )
    return (
        f'<iframe title="The explorer" srcdoc="{html.escape(page)}" onload="{resize}" '
        'style="width:100%;height:1400px;border:0;border-radius:12px"></iframe>',
        str(path),
    )
