"""Terminal output: tables, progress bars and results."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from iava.reporting.differences import MarkedWords, word_differences

_WIDTH = 150
"""Characters per line where standard output is a file or a pipe."""


def terminal() -> Console:
    """Returns a console on standard output."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_WIDTH)


class _Speed(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:.1f}/s", style="dim")


@contextmanager
def progress() -> Iterator[Callable[[str, int, int], None]]:
    """Shows progress bars on standard error, with speed and remaining time.

    Yields:
        A function `advance(what, done, total)`, which creates or updates the bar of `what`.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Speed(), TimeRemainingColumn())
    bars = Progress(*columns, console=Console(stderr=True))
    known: dict[str, TaskID] = {}

    def advance(what: str, done: int, total: int) -> None:
        # Started at the first call: a command that ends in an error before it prints no empty line.
        if not known:
            bars.start()
        if what not in known:
            # Work that an earlier run finished must not count as speed.
            known[what] = bars.add_task(what, total=total, completed=done)
        bars.update(known[what], completed=done, total=total)

    try:
        yield advance
    finally:
        if known:
            bars.stop()


def print_results(results: dict[str, Any], folder: Path) -> None:
    """Prints a run's table and verdicts, and warnings about its answers on standard error.

    Args:
        results: content of the run's results.json.
        folder: the run's folder.
    """
    from iava.evaluation.records import Records
    from iava.reporting.renderers import console_table
    from iava.reporting.verdicts import remarks, verdicts

    console = terminal()
    console.print(console_table(results["rows"]))
    for sentence in verdicts(results["rows"]):
        console.print(sentence, style="bold", markup=False)
    console.print(f"records and results: {folder}", markup=False)
    for remark in remarks(Records(folder / "records.jsonl").rows):
        print(f"iava: {remark}", file=sys.stderr)


def side_by_side(methods: Sequence[str], asked: Sequence[tuple[str, str | None, Sequence[str]]], plain: bool) -> Table:
    """Returns a table of answers in which the words that differ from the first method's answer are marked.

    Args:
        methods: column headings; the other methods are compared with the first.
        asked: (question, truth or None, one answer per method).
        plain: mark with asterisks instead of colours.
    """
    known = any(truth is not None for _, truth, _ in asked)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("question", *(["truth"] if known else []), *methods):
        table.add_column(heading)
    table.add_column("")
    for question, truth, answers in asked:
        pairs = [word_differences(answers[0], answer) for answer in answers]
        # Two methods: each is marked against the other. More: the first stays unmarked.
        first = pairs[1][0] if len(pairs) == 2 else pairs[0][1]
        marked = [_marked(words, plain) for words in (first, *(pair[1] for pair in pairs[1:]))]
        differ = Text("≠" if len(set(answers)) > 1 else "", style="bold yellow")
        table.add_row(escape(question), *([truth or ""] if known else []), *marked, differ)
    return table


def _marked(words: MarkedWords, plain: bool) -> Text:
    text = Text()
    for number, (word, differs) in enumerate(words):
        text.append(" " if number else "")
        text.append(f"*{word}*" if differs and plain else word, style="black on yellow" if differs else "")
    return text
