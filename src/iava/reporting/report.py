"""Reports about runs: a self-contained HTML page, and the same tables in Markdown and LaTeX."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from iava.benchmarks import parsers
from iava.evaluation.environment import package_version
from iava.evaluation.frontier import Frontier, frontier, sweeps
from iava.evaluation.runs import Run
from iava.files import write_text
from iava.lvlm.answers import Answer
from iava.reporting import charts
from iava.reporting.differences import word_differences
from iava.reporting.frontier import frontier_data, frontier_latex, frontier_markdown
from iava.reporting.overlay import attention_data, data_uri, scaled_down
from iava.reporting.renderers import escape_latex, escape_markdown, latex, markdown
from iava.reporting.sections import Section, report_section
from iava.reporting.templating import template_environment
from iava.reporting.verdicts import title


@dataclass(frozen=True)
class Example:
    """An image with questions that were answered by greedy decoding and by another method.

    Args:
        name: the image's id.
        image: the image.
        questions: question, truth or None, the answer of greedy decoding, and the other method's answer with an
            explanation.
    """

    name: str
    image: Image.Image
    questions: Sequence[tuple[str, str | None, Answer, Answer]]


ExampleGroups = Sequence[tuple[str, str, Sequence[Example]]]
"""Groups of examples, each with a heading and a sentence that says how they were chosen."""


def write_report(page: Path, runs: Sequence[Run], groups: ExampleGroups = ()) -> tuple[Path, Path, Path]:
    """Writes a report as HTML, and its tables beside it as Markdown and LaTeX.

    Args:
        page: the HTML file. The other two files differ in the extension only.
        runs: see `iava.evaluation.runs.read_runs`. Those of a sweep of captions are shown together, as a frontier.
        groups: examples, shown above the tables.

    Returns:
        The paths of the three files.

    Raises:
        IavaError: if a file cannot be written, or a sweep has no image with a caption by every method.
    """
    swept = sweeps(runs)
    sections = [report_section(run) for run in runs if not any(run in some for some in swept)]
    frontiers = [frontier(some) for some in swept]
    files = page, page.with_suffix(".md"), page.with_suffix(".tex")
    texts = (
        report_html(sections, groups, frontiers),
        report_markdown(sections, frontiers),
        report_latex(sections, frontiers),
    )
    for file, text in zip(files, texts, strict=True):
        write_text(file, text)
    return files


def report_html(sections: Sequence[Section], groups: ExampleGroups = (), frontiers: Sequence[Frontier] = ()) -> str:
    """The report as an HTML page that loads nothing from the network."""
    template = template_environment().get_template("report.html.j2")
    return template.render(
        sections=sections,
        frontiers=[frontier_data(found) for found in frontiers],
        groups=[
            (heading, note, [_example_data(example) for example in examples])
            for heading, note, examples in groups
            if examples
        ],
        canvas=charts,
        version=package_version("iava"),
    )


def report_markdown(sections: Sequence[Section], frontiers: Sequence[Frontier] = ()) -> str:
    """The tables and the provenance of each run and frontier as Markdown."""
    parts = ["# iava: report\n"]
    for section in sections:
        name = escape_markdown(f"{section.name} · {section.model}")
        sentences = [escape_markdown(sentence) for sentence in (*section.verdicts, *section.gaps)]
        terms = [f"- {term}: {escape_markdown('; '.join(values))}" for term, values in section.provenance]
        parts += [
            f"## {name}\n",
            *(sentence + "\n" for sentence in sentences),
            *(markdown(table) for table in section.tables),
            "### How this was measured\n\n" + "\n".join(terms) + "\n",
        ]
    return "\n".join([*parts, *(frontier_markdown(found, 2) for found in frontiers)])


def report_latex(sections: Sequence[Section], frontiers: Sequence[Frontier] = ()) -> str:
    """The tables as LaTeX, for \\input in a document that loads booktabs."""
    parts = [r"% Needs \usepackage{booktabs} and UTF-8; made by iava " + package_version("iava") + "\n"]
    for section in sections:
        name = f"{section.name}, {section.model}"
        caption = rf"\caption{{{escape_latex(name)}: "
        parts.append(f"% {' '.join(name.split())}\n")
        parts += [latex(table).replace(r"\caption{", caption, 1) for table in section.tables]
    return "\n".join([*parts, *map(frontier_latex, frontiers)])


def _example_data(example: Example) -> dict[str, Any]:
    small = scaled_down(example.image)
    return {
        "name": example.name,
        "picture": data_uri(small),
        "ratio": f"{small.width} / {small.height}",
        "questions": [_example_question(*question, example.image.size) for question in example.questions],
    }


def _example_question(
    question: str, truth: str | None, greedy: Answer, other: Answer, size: tuple[int, int]
) -> dict[str, Any]:
    greedy_words, other_words = word_differences(greedy.text, other.text)
    return {
        "question": question,
        "truth": truth,
        "title": title(other.method),
        "greedy": greedy_words,
        "greedy_correct": None if truth is None else parsers.word(greedy.text) == truth,
        "other": other_words,
        "other_correct": None if truth is None else parsers.word(other.text) == truth,
        "attention": attention_data(other, size, each_layer=False),
    }
