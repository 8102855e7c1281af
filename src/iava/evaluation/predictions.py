"""Scores files of answers that something else may have produced: JSON lines, one answer a line."""

from pathlib import Path
from typing import Any

from iava.benchmarks import amber, chair, mme, pope, registry, textvqa
from iava.benchmarks.coco import chair_objects, read_instances
from iava.benchmarks.registry import Parse
from iava.benchmarks.task import Question
from iava.errors import IavaError
from iava.jsonfiles import Unique, id_of, read_lines, text_of, texts_of, yes_or_no

BENCHMARKS = ("pope", "mme", "textvqa", "chair", "amber")


def score_file(
    benchmark: str,
    path: Path,
    *,
    parser: str | None = None,
    instances: Path | None = None,
    captions: Path | None = None,
    annotations: Path | None = None,
) -> tuple[dict[str, Any], str | None]:
    """Scores a file of predictions, wholly or not at all.

    Args:
        benchmark: pope: lines {question_id, category, answer, prediction}; mme: the same and question; textvqa:
            {question_id, answers, prediction}; chair: {image_id, caption}; amber: {id, response}.
        path: the JSON lines.
        parser: how yes and no are read from predictions; None: the benchmark's default.
        instances: for chair, COCO's instances JSON.
        captions: for chair, COCO's captions JSON, whose objects count as being there too; or None.
        annotations: for amber, its annotations.json.

    Returns:
        What `score` of the benchmark's module returns, with "benchmark", and "parser" where there is one; and a
        remark if something is odd, such as empty predictions, which are scored as they are.

    Raises:
        IavaError: if something is missing or given in vain, or a file is broken; with file and line.
    """
    if benchmark not in BENCHMARKS:
        raise IavaError(f"unknown benchmark {benchmark!r}: use one of {', '.join(BENCHMARKS)}")
    for option, value, wanted_by in (
        ("instances", instances, "chair"),
        ("captions", captions, "chair"),
        ("annotations", annotations, "amber"),
    ):
        if value is not None and benchmark != wanted_by:
            raise IavaError(f"--{option} was given, but {benchmark} has no use for it: it belongs to {wanted_by}")
    name = registry.parser_of(benchmark, parser)
    parse = registry.BENCHMARKS[benchmark].parsers[name] if name else pope.parse_word
    blank: list[str] = []
    if benchmark == "pope":
        result = _pope(path, parse, blank)
    elif benchmark == "mme":
        result = _mme(path, parse, blank)
    elif benchmark == "textvqa":
        result = _textvqa(path, blank)
    elif benchmark == "chair":
        result = _chair(path, _needed(benchmark, "instances", instances), captions, blank)
    else:
        result = _amber(path, _needed(benchmark, "annotations", annotations), parse, blank)
    head = {"benchmark": benchmark} | ({"parser": name} if name else {})
    count = len(blank)
    remark = f"{count} empty prediction{'s' if count > 1 else ''}, the first at {blank[0]}" if blank else None
    return head | result, remark


def _needed(benchmark: str, option: str, value: Path | None) -> Path:
    if value is None:
        raise IavaError(f"{benchmark} needs --{option}: the file that says what is in the images")
    return value


def _said(where: str, row: dict[str, Any], key: str, blank: list[str]) -> str:
    text = text_of(where, row, key)
    if not text.strip():
        blank.append(where)
    return text


def _pope(path: Path, parse: Parse, blank: list[str]) -> dict[str, Any]:
    ids = Unique("question_id")
    categories, truths, parsed = [], [], []
    for where, row in read_lines(path):
        category = text_of(where, row, "category")
        # POPE numbers the questions of each category from one.
        ids.add(where, f"{id_of(where, row, 'question_id')} of category {category}")
        categories.append(category)
        truths.append(yes_or_no(where, row, "answer"))
        parsed.append(parse(_said(where, row, "prediction", blank)))
    return pope.score(categories, truths, parsed)


def _mme(path: Path, parse: Parse, blank: list[str]) -> dict[str, Any]:
    located, parsed = [], []
    for where, row in read_lines(path):
        subtask = mme.check_subtask(where, text_of(where, row, "category"))
        image, asked = id_of(where, row, "question_id"), text_of(where, row, "question")
        located.append((where, Question(image, image, subtask, asked, yes_or_no(where, row, "answer"))))
        parsed.append(parse(_said(where, row, "prediction", blank)))
    return mme.score([question for _, question in mme.paired(located)], parsed)


def _textvqa(path: Path, blank: list[str]) -> dict[str, Any]:
    ids = Unique("question_id")
    scores = []
    for where, row in read_lines(path):
        ids.add(where, id_of(where, row, "question_id"))
        answers = textvqa.ten_answers(where, texts_of(where, row, "answers"))
        scores.append(textvqa.accuracy(_said(where, row, "prediction", blank), answers))
    return {"n": len(scores), "accuracy": sum(scores) / len(scores)}


def _chair(path: Path, instances: Path, captions: Path | None, blank: list[str]) -> dict[str, Any]:
    objects = chair_objects(read_instances(instances), captions)
    ids = Unique("image_id")
    said = []
    for where, row in read_lines(path):
        image = id_of(where, row, "image_id")
        ids.add(where, image)
        if image not in objects:
            raise IavaError(f"{where}: {instances} has no image {image}")
        said.append((image, _said(where, row, "caption", blank)))
    return dict(chair.score(said, objects))


def _amber(path: Path, annotations: Path, parse: Parse, blank: list[str]) -> dict[str, Any]:
    known = amber.read_annotations(annotations)
    ids = Unique("id")
    responses = {}
    for where, row in read_lines(path):
        name = id_of(where, row, "id")
        ids.add(where, name)
        if name not in known.by_id:
            raise IavaError(f"{where}: {annotations} has no question {name}")
        responses[name] = _said(where, row, "response", blank)
    return amber.score(responses, known, parse)
