"""The command `iava export`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from iava.cli.options import with_options
from iava.cli.settings import settings_of


@with_options
def export(
    model: Annotated[str, typer.Argument(help="pocket, a local folder, or a Hugging Face Hub id.", show_default=False)],
    folder: Annotated[Path, typer.Argument(help="Folder to write; it must not hold anything.", show_default=False)],
    method: Annotated[str, typer.Option(help="Decoding method that `generate` then uses.")] = "iava",
    *,
    settings: dict[str, Any],
    copy: Annotated[bool, typer.Option("--copy", help="Copy the weights instead of linking them.")] = False,
) -> None:
    """Write a folder with a model and its method, for `from_pretrained`, `pipeline` and `transformers serve`."""
    from iava.serve.export import export as write

    write(model, folder, method, settings_of([method], settings)[method], copy=copy)
    print(f"from_pretrained({str(folder)!r}, trust_remote_code=True) now decodes with {method}")
