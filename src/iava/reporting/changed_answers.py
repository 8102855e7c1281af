"""The questions that a method answers right and greedy decoding wrong, or the other way round."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image

from iava.benchmarks.sources.pocket import open_scene
from iava.errors import IavaError
from iava.evaluation.runs import Run, questions_of
from iava.metrics.flips import REFERENCE, Flips, flips, shown
from iava.metrics.parts import Record
from iava.metrics.results import is_control
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
        greedy, other: the answers of greedy decoding and of the method.
    """

    picture: str | None
    image: str
    question: str
    truth: str
    greedy: str
    other: str


@dataclass(frozen=True)
class ThumbnailStrip:
    """Examples of the answers that a method changed.

    Args:
        method: the method's title.
        gained: True for answers that became right, False for those that became wrong.
        total: the number of such questions.
        thumbnails: some of them, one per image.
    """

    method: str
    gained: bool
    total: int
    thumbnails: list[Thumbnail]


def changed_answers(run: Run, methods: Sequence[str]) -> list[Flips]:
    """The changes of each method against greedy decoding, for methods that share yes-no questions with it."""
    greedy = run.of(REFERENCE)
    changes = [flips(method, run.of(method), greedy) for method in methods if method != REFERENCE]
    return [change for change in changes if change.asked]


def changes_table(changes: Sequence[Flips]) -> Table | None:
    """The number of answers gained and lost by each method. None if no method can be compared with greedy."""
    if not changes:
        return None
    rows = []
    for change in changes:
        gained, lost = len(change.gained), len(change.lost)
        counts = [Cell(str(count), "", count) for count in (change.asked, gained, lost)]
        rows.append(method_row(change.method, [*counts, Cell(f"{gained - lost:+d}", "", gained - lost)]))
    note = "Distinct questions that exactly one of the two answers correctly. Gained: only the method is right."
    return Table("Answers changed against greedy", ["Questions", "Gained", "Lost", "Net"], rows, note)


def thumbnail_strips(run: Run, changes: Sequence[Flips]) -> list[ThumbnailStrip]:
    """Examples of changed answers, for methods that are not controls."""
    tested = [change for change in changes if not is_control(change.method)]
    open_image = _image_opener(run) if tested else None
    strips = [
        ThumbnailStrip(
            title(change.method),
            gained,
            len(pairs),
            [_thumbnail(pair, open_image) for pair in shown(pairs, THUMBNAILS)],
        )
        for change in tested
        for gained, pairs in ((True, change.gained), (False, change.lost))
    ]
    return [strip for strip in strips if strip.thumbnails]


def _thumbnail(records: tuple[Record, Record], open_image: OpenImage | None) -> Thumbnail:
    greedy, other = records
    return Thumbnail(
        _scaled_down(other["image"], open_image),
        other["image"],
        other["question"],
        other["truth"],
        greedy["text"],
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
