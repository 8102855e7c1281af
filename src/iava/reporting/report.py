"""Reports about runs: one self-contained page, and its tables in Markdown and LaTeX."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from PIL import Image

from iava.benchmarks import parsers
from iava.evaluation.runs import Run
from iava.files import write_text
from iava.lvlm.answers import Answer
from iava.reporting import charts
from iava.reporting.differences import differing
from iava.reporting.overlay import data_uri, reading, shrunk
from iava.reporting.renderers import latex, latex_text, markdown, markdown_text
from iava.reporting.sections import Section, section
from iava.reporting.templating import template_environment
from iava.reporting.verdicts import title


@dataclass(frozen=True)
class Example:
    """A picture with what was asked about it.

    Args:
        name: the image's id.
        picture: the image that was asked about.
        questions: question, truth if known, and two answers: greedy's and the method's with an explanation.
    """

    name: str
    picture: Image.Image
    questions: Sequence[tuple[str, str | None, Answer, Answer]]


Groups = Sequence[tuple[str, str, Sequence[Example]]]
"""Examples under a heading, with a sentence that says how they were chosen."""


def write_report(page: Path, runs: Sequence[Run], groups: Groups = ()) -> tuple[Path, Path, Path]:
    """Writes a report as HTML, and beside it its tables as Markdown and LaTeX.

    Args:
        page: where the HTML goes; the others differ in the ending only.
        runs: see `iava.evaluation.runs.read_runs`.
        groups: examples that come before the tables.

    Returns:
        The three files.

    Raises:
        IavaError: if a file cannot be written.
    """
    sections = [section(run) for run in runs]
    files = page, page.with_suffix(".md"), page.with_suffix(".tex")
    texts = report_page(sections, groups), report_markdown(sections), report_latex(sections)
    for file, text in zip(files, texts, strict=True):
        write_text(file, text)
    return files


def report_page(sections: Sequence[Section], groups: Groups = ()) -> str:
    """The report as HTML that needs no network."""
    return (
        template_environment()
        .get_template("report.html.j2")
        .render(
            sections=sections,
            groups=[(heading, note, [_example(e) for e in examples]) for heading, note, examples in groups if examples],
            canvas=charts,
            version=version("iava"),
        )
    )


def report_markdown(sections: Sequence[Section]) -> str:
    """The tables as Markdown."""
    parts = []
    for one in sections:
        name = markdown_text(f"{one.name} · {one.model}")
        sentences = [markdown_text(sentence) for sentence in (*one.verdicts, *one.gaps)]
        made = "\n".join(f"- {term}: {markdown_text('; '.join(values))}" for term, values in one.made)
        tables = [markdown(table) for table in one.tables]
        parts += [
            f"## {name}\n",
            *(sentence + "\n" for sentence in sentences),
            *tables,
            f"### How it was made\n\n{made}\n",
        ]
    return "\n".join(["# iava: report\n", *parts])


def report_latex(sections: Sequence[Section]) -> str:
    """The tables for \\input in a document that uses booktabs."""
    parts = [r"% Needs \usepackage{booktabs} and UTF-8; made by iava " + version("iava") + "\n"]
    for one in sections:
        name = latex_text(f"{one.name}, {one.model}")
        parts += [f"% {' '.join(f'{one.name}, {one.model}'.split())}\n"]
        parts += [latex(table).replace(r"\caption{", rf"\caption{{{name}: ", 1) for table in one.tables]
    return "\n".join(parts)


def _example(example: Example) -> dict[str, Any]:
    small = shrunk(example.picture)
    return {
        "name": example.name,
        "picture": data_uri(small),
        "ratio": f"{small.width} / {small.height}",
        "questions": [
            {
                "question": question,
                "truth": truth,
                "greedy": differing(greedy.text, ours.text)[0],
                "ours": differing(greedy.text, ours.text)[1],
                "greedy_right": None if truth is None else parsers.word(greedy.text) == truth,
                "ours_right": None if truth is None else parsers.word(ours.text) == truth,
                "title": title(ours.method),
                "reading": reading(ours, example.picture.size, each_layer=False),
            }
            for question, truth, greedy, ours in example.questions
        ],
    }
