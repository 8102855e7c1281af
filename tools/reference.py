"""Writes the generated pages of the documentation site: `python -m tools.reference`.

The command line comes from Typer's command tree, and the Python API from `iava.__all__`.
The model card, the changelog and the quickstart notebook are copied as pages.
"""

import html
import json
import re
import subprocess
import sys
from pathlib import Path

import iava
from iava.methods.base import Method

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


def command_line() -> str:
    """Every command with its arguments and options, as Typer describes them."""
    typer = f"{sys.executable} -m typer iava.cli.app utils docs --name iava".split()
    text = html.unescape(subprocess.run(typer, check=True, capture_output=True, text=True).stdout)
    text = text.replace("# `iava`", "# Command line", 1)
    # The lists of commands cut their help off; the headings list the commands as well.
    return re.sub(r"\*\*Commands\*\*:\n\n(\* .*\n)+\n?", "", text)


def python_api() -> str:
    """A directive of mkdocstrings for each public name, grouped by what it is."""
    groups: dict[str, list[str]] = {"Models and answers": [], "Methods": [], "Controls": [], "Functions": []}
    for name in iava.__all__:
        value = getattr(iava, name)
        if isinstance(value, type) and issubclass(value, Method):
            groups["Controls" if value.control else "Methods"].append(name)
        else:
            groups["Models and answers" if value.__module__.startswith("iava.lvlm") else "Functions"].append(name)
    text = (
        "# Python API\n\nEvery name on this page is importable from `iava`.\n"
        "The examples run on the pocket model; the names that they use come from the same few lines:\n\n"
        f"```python\n{SETUP}```\n"
    )
    for group, names in groups.items():
        members = "" if group == "Models and answers" else "    options:\n      members: false\n"
        text += f"\n## {group}\n\n" + "\n".join(f"::: iava.{name}\n{members}" for name in names)
    return text + "\n## For authors of methods\n\n::: iava.methods.base.Method\n"


SETUP = """\
import torch

import iava
from iava.pocket.scenes import load_scene

lvlm = iava.load("pocket")
model, processor = lvlm.model, lvlm.processor
image = load_scene("test", 0).render()  # a kitchen with a pizza, a banana, a fork and a cup
content = [{"type": "image", "image": image}, {"type": "text", "text": "Is there a fork in the image?"}]
chat = [{"role": "user", "content": content}]
options = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, "return_tensors": "pt"}
inputs = processor.apply_chat_template(chat, **options)
"""
"""The names that the examples of the public docstrings use; tests/docs/test_examples.py runs them."""


def notebook(path: Path) -> str:
    """A notebook's cells and outputs as Markdown."""
    parts = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", []):
            data = output.get("data", {"text/plain": output.get("text", "")})
            if "image/png" in data:
                image = data["image/png"].strip()
                parts.append(f'<img alt="Output of the cell above" src="data:image/png;base64,{image}">')
            else:
                parts.append(f"```text\n{''.join(data['text/plain']).rstrip()}\n```")
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Writes all generated pages."""
    card = (ROOT / "src" / "iava" / "pocket" / "README.md").read_text(encoding="utf-8")
    card = card.replace("[LICENSES.md](LICENSES.md)", "`src/iava/pocket/LICENSES.md`")
    pages = {
        "reference/cli.md": command_line(),
        "reference/python.md": python_api(),
        "reference/pocket.md": card.replace("../../../docs/images/", "../images/"),
        "reference/changelog.md": (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"),
        "quickstart.md": notebook(DOCS / "quickstart.ipynb"),
    }
    for name, text in pages.items():
        page = DOCS / name
        page.parent.mkdir(exist_ok=True)
        page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
