"""The questions that a method answers right and plain decoding wrong, or the other way round."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image

from iava.benchmarks.sources.pocket import open_scene
from iava.errors import IavaError
from iava.evaluation.runs import Run, questions_of
from iava.metrics.flips import REFERENCES, Flips, flips, shown
from iava.metrics.parts import Record
from iava.metrics.results import Row, is_control
from iava.reporting.overlay import data_uri
from iava.reporting.published import is_pocket
from iava.reporting.tables import Cell, Table, method_row
from iava.reporting.verdicts import title

THUMBNAILS = 8
"""The largest number of thumbnails for each method and direction of change."""
_THUMBNAIL_SIDE = 240  # pixels

OpenImage = Callable[[str], Image.Image]
"""Opens an image, given its id."""


@dataclass(frozen=True)
class Thumbnail:
    """A question whose answer changed.

    Args:
        picture: the scaled-down image as a data URI, or None if it cannot be opened.
        image: the image's id.
        question, truth: the question and its true answer.
        plain, other: the answers of plain decoding and of the method.
    """

    picture: str | None
    image: str
    question: str
    truth: str
    plain: str
    other: str


@dataclass(frozen=True)
class ThumbnailStrip:
    """Examples of the answers that a method changed.

    Args:
        method, reference: the titles of the method and of plain decoding.
        gained: True for answers that became right, False for those that became wrong.
        total: the number of such questions.
        thumbnails: some of them, one per image.
    """

    method: str
    reference: str
    gained: bool
    total: int
    thumbnails: list[Thumbnail]


def changed_answers(run: Run, rows: Sequence[Row]) -> list[Flips]:
    """The changes of each method against plain decoding in its mode, where both answered yes-no questions.

    Args:
        run: the run.
        rows: its results of one category.
    """
    references = {row["method"]: REFERENCES[row["draws"]] for row in rows}
    changes = [
        flips(method, run.of(method), run.of(reference))
        for method, reference in references.items()
        if method != reference
    ]
    return [change for change in changes if change.asked]


def changes_table(changes: Sequence[Flips], rows: Sequence[Row]) -> Table | None:
    """The number of answers gained and lost by each method. None if no method can be compared."""
    if not changes:
        return None
    by_method = {row["method"]: row for row in rows}
    table_rows = []
    for change in changes:
        row = by_method[change.method]
        gained, lost = len(change.gained), len(change.lost)
        counts = [Cell(str(count), "", count) for count in (change.asked, gained, lost)]
        net = Cell(f"{gained - lost:+d}", "", gained - lost)
        table_rows.append(method_row(row, [Cell(title(REFERENCES[row["draws"]])), *counts, net]))
    note = "Distinct questions that exactly one of the two answers correctly. Gained: only the method is right."
    headings = ["Against", "Questions", "Gained", "Lost", "Net"]
    return Table("Answers changed against plain decoding", headings, table_rows, note)


def thumbnail_strips(run: Run, changes: Sequence[Flips], rows: Sequence[Row]) -> list[ThumbnailStrip]:
    """Examples of changed answers, for methods that are not controls."""
    drawing = {row["method"]: row["draws"] for row in rows}
    tested = [change for change in changes if not is_control(change.method)]
    open_image = _image_opener(run) if tested else None
    strips = [
        ThumbnailStrip(
            title(change.method),
            title(REFERENCES[drawing[change.method]]),
            gained,
            len(pairs),
            [_thumbnail(pair, open_image) for pair in shown(pairs, THUMBNAILS)],
        )
        for change in tested
        for gained, pairs in ((True, change.gained), (False, change.lost))
    ]
    return [strip for strip in strips if strip.thumbnails]


def _thumbnail(records: tuple[Record, Record], open_image: OpenImage | None) -> Thumbnail:
    plain, other = records
    return Thumbnail(
        _scaled_down(other["image"], open_image),
        other["image"],
        other["question"],
        other["truth"],
        plain["text"],
        other["text"],
    )


def _scaled_down(image: str, open_image: OpenImage | None) -> str | None:
    if open_image is None:
        return None
    try:
        picture = open_image(image).convert("RGB")
    except (OSError, ValueError):
        return None
    picture.thumbnail((_THUMBNAIL_SIDE, _THUMBNAIL_SIDE))
    return data_uri(picture)


def _image_opener(run: Run) -> OpenImage | None:
    """Opens the images of a run. None if its data are gone or their questions have changed since."""
    if is_pocket(run.records):
        return open_scene
    try:
        task = questions_of(run)
    except IavaError:
        return None
    return task.open_image if task else None
