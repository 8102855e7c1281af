"""The command `iava ask`."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from iava.cli.options import (
    Json,
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
def ask(
    image: Annotated[Path, typer.Argument(help="Image file to ask about.", show_default=False)],
    questions: Annotated[list[str], typer.Argument(help="One or more questions about the image.", show_default=False)],
    model: Model = "pocket",
    method: Annotated[str, typer.Option(help=f"Decoding method: {METHOD_NAMES}.")] = "iava",
    compare: Annotated[
        str | None,
        typer.Option(help="Methods to show side by side, separated by commas, such as greedy,iava; replaces --method."),
    ] = None,
    *,
    settings: dict[str, Any],
    loading: dict[str, Any],
    max_new_tokens: MaxNewTokens = 32,
    seed: Seed = 42,
    explain: Annotated[
        Path | None, typer.Option(help="HTML file to write, which shows the attention behind the answers.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Answer questions about an image."""
    names = method_list("compare", compare) if compare is not None else [method]
    check_positive("max_new_tokens", max_new_tokens)
    check_questions(questions)
    if explain is not None:
        from iava.files import check_file

        check_file(explain)
    from iava.lvlm.images import read_image

    picture = read_image(image)
    methods = settings_of(names, settings)
    lvlm = load_model(model, **loading)
    answers = [
        lvlm.ask_many(
            picture,
            questions,
            method=lvlm.method(name, **methods[name]),
            max_new_tokens=max_new_tokens,
            explain=explain is not None,
            seed=seed,
        )
        for name in names
    ]
    by_question = list(zip(questions, zip(*answers, strict=True), strict=True))
    if explain is not None:
        from iava.explain.page import explain_page
        from iava.files import write_text

        write_text(explain, explain_page(picture, by_question, model=model))
    if as_json:
        found = [
            {"image": str(image), "question": question, "model": model, "method": answer.method, "text": answer.text}
            | {"tokens": answer.tokens, "settings": answer.settings, "seconds": round(answer.seconds, 4), "seed": seed}
            for question, row in by_question
            for answer in row
        ]
        print(json.dumps(found[0] if len(found) == 1 else found, indent=2, ensure_ascii=False))
        return
    if len(names) == len(questions) == 1:
        print(answers[0][0].text)
    else:
        from iava.cli.console import side_by_side, terminal

        console = terminal()
        rows = [(question, None, [answer.text for answer in row]) for question, row in by_question]
        console.print(side_by_side(names, rows, plain=console.color_system is None))
    if explain is not None:
        print(f"explanation: {explain}", file=sys.stderr)
