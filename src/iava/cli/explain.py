"""`iava explain`: a page on which to explore what a model looked at, and why it answered so."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from iava.cli import app as cli
from iava.cli.settings import settings_of, with_settings


@cli.app.command()
@cli._one_line
@with_settings
def explain(
    image: Annotated[Path, typer.Argument(help="An image file.", show_default=False)],
    questions: Annotated[list[str], typer.Argument(help="One or more questions about it.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="The page, an HTML file.", show_default=False)],
    model: cli.Model = "pocket",
    methods: Annotated[str, typer.Option(help="How to answer; iava is what reads attention.")] = "greedy,iava",
    *,
    settings: dict[str, Any],
    max_new_tokens: Annotated[int, typer.Option(help="The longest answer.")] = 32,
    seed: cli.Seed = 42,
) -> None:
    """Writes a page on which to explore what a model looked at, and why it answered so."""
    cli._check("max_new_tokens", max_new_tokens)
    cli._check_questions(questions)
    chosen = settings_of(cli._names("methods", methods), settings)
    from iava.files import check_file, write_text
    from iava.lvlm.images import read_image

    check_file(out)
    picture = read_image(image)
    lvlm = cli._load(model)
    from iava.explain.page import circumstances, compare, explain_page

    asked = compare(lvlm, picture, questions, chosen, max_new_tokens=max_new_tokens, seed=seed)
    about = {"Command": shlex.join(["iava", *sys.argv[1:]])}
    about |= circumstances(lvlm, max_new_tokens=max_new_tokens, seed=seed)
    write_text(out, explain_page(picture, asked, model=model, about=about))
    print(f"page: {out}")
