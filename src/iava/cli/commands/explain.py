"""The command `iava explain`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from iava.cli.options import (
    MaxNewTokens,
    Model,
    Seed,
    check_positive,
    check_questions,
    load_model,
    method_list,
    with_options,
)
from iava.cli.settings import METHOD_NAMES, settings_of


@with_options
def explain(
    image: Annotated[Path, typer.Argument(help="Image file to ask about.", show_default=False)],
    questions: Annotated[list[str], typer.Argument(help="One or more questions about the image.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="HTML file to write.", show_default=False)],
    model: Model = "pocket",
    methods: Annotated[
        str,
        typer.Option(help=f"Methods to compare, separated by commas: {METHOD_NAMES}."),
    ] = "greedy,iava",
    *,
    settings: dict[str, Any],
    loading: dict[str, Any],
    max_new_tokens: MaxNewTokens = 32,
    seed: Seed = 42,
) -> None:
    """Write an interactive HTML page that shows the attention behind the answers."""
    check_positive("max_new_tokens", max_new_tokens)
    check_questions(questions)
    chosen = settings_of(method_list("methods", methods), settings)
    from iava.files import check_file, write_text
    from iava.lvlm.images import read_image

    check_file(out)
    picture = read_image(image)
    lvlm = load_model(model, **loading)
    from iava.evaluation.environment import command
    from iava.explain.page import answer_by_methods, decoding_facts, explain_page

    answers = answer_by_methods(lvlm, picture, questions, chosen, max_new_tokens=max_new_tokens, seed=seed)
    facts = {"Command": command()}
    facts |= decoding_facts(lvlm, max_new_tokens=max_new_tokens, seed=seed)
    write_text(out, explain_page(picture, answers, model=model, facts=facts))
    print(f"page: {out}")
