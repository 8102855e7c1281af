"""What is written to the terminal."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

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

from iava.reporting.differences import Words, differing

_WIDTH = 150  # characters, where output goes into a file or a pipe


def terminal() -> Console:
    """Standard output, wide enough for the tables where it is no terminal."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_WIDTH)


class _Speed(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:.1f}/s", style="dim")


@contextmanager
def progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each thing that is being done, with speed and time left, on standard error.

    Yields:
        A function of what is being done, how much of it is done, and how much there is.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Speed(), TimeRemainingColumn())
    bars = Progress(*columns, console=Console(stderr=True))
    known: dict[str, TaskID] = {}

    def advance(what: str, done: int, total: int) -> None:
        # Started late, so that a run that is refused leaves no empty line above the reason.
        if not known:
            bars.start()
        if what not in known:
            # What an earlier run had done must not count as speed.
            known[what] = bars.add_task(what, total=total, completed=done)
        bars.update(known[what], completed=done)

    try:
        yield advance
    finally:
        if known:
            bars.stop()


def side_by_side(methods: Sequence[str], asked: Sequence[tuple[str, str | None, Sequence[str]]], plain: bool) -> Table:
    """Answers as a table, the words in which one differs from the first method's marked.

    Args:
        methods: headings, the first being what the others are compared with.
        asked: a question, its truth if known, and an answer a method.
        plain: mark with asterisks, for where there are no colours.
    """
    known = any(truth is not None for _, truth, _ in asked)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("question", *(["truth"] if known else []), *methods):
        table.add_column(heading)
    table.add_column("")
    for question, truth, answers in asked:
        pairs = [differing(answers[0], answer) for answer in answers]
        # With two methods each is compared with the other; with more, the first stays as it is.
        first = pairs[1][0] if len(pairs) == 2 else pairs[0][1]
        marked = [_marked(words, plain) for words in (first, *(pair[1] for pair in pairs[1:]))]
        differ = Text("≠" if len(set(answers)) > 1 else "", style="bold yellow")
        table.add_row(escape(question), *([truth or ""] if known else []), *marked, differ)
    return table


def _marked(words: Words, plain: bool) -> Text:
    text = Text()
    for number, (word, differs) in enumerate(words):
        text.append(" " if number else "")
        text.append(f"*{word}*" if differs and plain else word, style="black on yellow" if differs else "")
    return text
