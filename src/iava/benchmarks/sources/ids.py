"""Lists of ids: which images or questions of a benchmark are asked."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from iava.benchmarks.task import Question, Task
from iava.errors import IavaError
from iava.jsonfiles import read_text

_COCO = re.compile(r"(?:.*/)?(?:COCO_(?:train|val|test)\d{4}_)?0*(\d+)(?:\.\w+)?")


def plain_id(name: str) -> str:
    """An id without what COCO's file names put around it: "COCO_val2014_000000310196.jpg" -> "310196"."""
    match = _COCO.fullmatch(name.strip())
    return match[1] if match else name.strip()


def read_ids(path: Path) -> list[str]:
    """The ids of a file: one a line, or a JSON list of strings and integers.

    Raises:
        IavaError: if the file cannot be read or holds none.
    """
    text = read_text(path)
    ids = [line.strip() for line in text.splitlines() if line.strip()]
    if text.lstrip().startswith("["):
        try:
            ids = [str(one) for one in json.loads(text)]
        except ValueError:
            raise IavaError(f"{path}: this is no JSON list of ids") from None
    if not ids:
        raise IavaError(f"{path} is empty: it must hold one id a line")
    return ids


def with_ids(task: Task, ids: Sequence[str], path: Path) -> Task:
    """The questions whose image, group or own id is listed.

    Raises:
        IavaError: if a listed id is none of the task's.
    """
    wanted = {plain_id(one) for one in ids}
    names = {question.id: _plain_ids(question) for question in task.questions}
    known = set().union(*names.values())
    unknown = [one for one in ids if plain_id(one) not in known]
    if unknown:
        more = f" ({len(unknown)} of {len(ids)} ids are)" if len(unknown) > 1 else ""
        raise IavaError(f"{path}: {unknown[0]!r} is no image or question of {task.benchmark}{more}")
    return replace(task, questions=[question for question in task.questions if names[question.id] & wanted])


def _plain_ids(question: Question) -> set[str]:
    return {plain_id(name) for name in (question.id, question.group, *question.images)}
