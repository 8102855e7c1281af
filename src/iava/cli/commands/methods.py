"""The command `iava methods`."""

import json
from typing import Any

from iava.cli.options import Json
from iava.methods.registry import names, resolve


def methods(as_json: Json = False) -> None:
    """List the decoding methods: paper, forward passes per token, and settings with their defaults."""
    classes = {name: resolve(name) for name in names()}
    listed: list[dict[str, Any]] = [
        {
            "name": name,
            "title": method.title or method.__name__,
            "control": method.control,
            "paper": method.paper,
            "cost": method.cost or ("2 in one batch" if method.has_branches() else "1"),
            "settings": method().settings(),
        }
        for name, method in classes.items()
    ]
    if as_json:
        print(json.dumps(listed, indent=2, ensure_ascii=False))
        return
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    from iava.cli.console import terminal

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("method", no_wrap=True)
    for heading in ("title", "paper", "passes per token", "settings"):
        table.add_column(heading)
    for one in listed:
        paper = ", ".join(part for part in ("control" if one["control"] else None, one["paper"]) if part) or "–"
        settings = ", ".join(f"{key}={_quoted(value)}" for key, value in one["settings"].items()) or "–"
        table.add_row(one["name"], one["title"], paper, one["cost"], escape(settings))
    terminal().print(table)
    print("Every method but greedy also takes sampling, temperature, top_p and top_k.")


def _quoted(value: Any) -> str:
    return repr(value) if isinstance(value, str) and " " in value else str(value)
