"""TextVQA: questions whose answer is written in the image, judged by ten people's answers.

Towards VQA Models That Can Read (arXiv 1904.08920). Answers are normalised as EvalAI's answer processor does it, its
peculiarities included, and scored as in VQA (arXiv 1505.00468).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from iava.benchmarks.benchmark import PROMPT_STYLES, Benchmark, Hub, Predictions, is_texts, unopened
from iava.benchmarks.sources.files import folder_task, found
from iava.benchmarks.sources.hub import parquet_files, parquet_task
from iava.benchmarks.task import Question, Task, with_unique_ids
from iava.errors import IavaError
from iava.jsonfiles import entries, id_of, read_json, read_lines, text_of, texts_of, words_of
from iava.metrics.parts import Part, Record

ANSWERS = 10
_ARTICLES = {"a", "an", "the"}
_NUMBERS = "zero one two three four five six seven eight nine ten"
_DIGITS = {"none": "0"} | {word: str(number) for number, word in enumerate(_NUMBERS.split())}
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
# A point before a digit stays, so that 3.5 and .5 do.
_POINT = re.compile(r"\.(?!\d)")
_CONTRACTED = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
    he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've
    o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's
    someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've
    there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's
    what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've
    wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""
# Written with one apostrophe too few, and the one word that EvalAI writes the wrong way round.
_CONTRACTIONS = {
    word[: mark.start()] + word[mark.end() :]: word for word in _CONTRACTED.split() for mark in re.finditer("'", word)
} | {"somebody'd": "somebodyd"}


class TextVQA(Benchmark):
    """TextVQA's validation split.

    Args:
        ocr: whether questions hold the reference OCR tokens, as in LLaVA-1.5's evaluation.
    """

    source = "TextVQA_0.5.1_val.json and train_images/ of textvqa.org"
    hub = Hub(
        ("lmms-lab/textvqa", "lmms-lab-encoder/textvqa"),
        "validation",
        ("question_id", "question", "answers", "image_id"),
    )
    style = "llava"
    score_files = ("questions",)

    def __init__(self, name: str, ocr: bool = False) -> None:
        super().__init__(name)
        self._ocr = ocr

    def settings(self) -> dict[str, Any]:
        """Whether questions hold OCR tokens."""
        return {"ocr": True} if self._ocr else {}

    def load(self, folder: Path) -> Task:
        """Reads parquet files, or the JSON: data {question_id, image_id, question, answers}.

        Images are named after their ids. The truth is the list of ten answers.
        """
        if parquets := parquet_files(folder, self.hub.split):
            columns = (*self.hub.columns, "ocr_tokens") if self._ocr else self.hub.columns
            ask = _with_own_tokens if self._ocr else _vqa_question
            return parquet_task(self.name, self.hub.split, parquets, columns, ask, with_unique_ids, _normal)
        file = found(folder, "TextVQA_0.5.1_val.json", "TextVQA_0*val*.json", "*val*.json")[0]
        located = [(where, _vqa_question(where, row, ".jpg")) for where, row in entries(file, read_json(file), "data")]
        if self._ocr:
            tokens = _tokens(found(folder, "TextVQA_Rosetta_OCR*val*.json")[0])
            located = [(where, _with_tokens(one, tokens.get(one.image, []))) for where, one in located]
        return folder_task(self.name, "validation", with_unique_ids(located), folder, _normal)

    def prompt(self, question: Question, style: str) -> str:
        """As LLaVA-1.5 asks by default, because whole sentences are never among the answers."""
        asked = question.question
        # lmms-eval capitalises the question and nothing else.
        return PROMPT_STYLES[style].format(asked.capitalize() if style == "lmms-eval" else asked)

    def is_answer(self, row: Record) -> bool:
        """The truth is a list of ten answers, the parsed answer a text."""
        return is_texts(row["truth"]) and len(row["truth"]) == ANSWERS and isinstance(row.get("parsed"), str)

    def parts(self, categories: Sequence[str]) -> list[Part]:
        """Overall: accuracy."""

        def tally(records: Sequence[Record]) -> np.ndarray:
            return np.array([(1.0, _accuracy(record)) for record in records]).reshape(-1, 2)

        rates = lambda sums: {"accuracy": sums[..., 1] / sums[..., 0]}  # noqa: E731
        return [Part("overall", lambda _: True, tally, rates, "accuracy")]

    def right(self, records: Sequence[Record]) -> float:
        """The mean accuracy of the answers."""
        return sum(map(_accuracy, records)) / len(records)

    def _joined(self, path: Path, file: Path) -> Predictions:
        known = [(where, _vqa_question(where, row)) for where, row in entries(file, read_json(file), "data")]
        by_id = {question.id: question for _, question in with_unique_ids(known)}
        by_text = {(question.image, question.question.lower()): question for question in by_id.values()}
        located, texts = [], []
        for where, row in read_lines(path):
            name = id_of(where, row, "question_id")
            asked = _asked_by(text_of(where, row, "prompt")) if "prompt" in row else None
            question = by_id.get(name) if asked is None else by_text.get((name, asked))
            if question is None:
                raise IavaError(f"{where}: {file} has no question {name}{'' if asked is None else f' {asked!r}'}")
            located.append((where, question))
            texts.append(text_of(where, row, "answer" if asked is None else "text"))
        questions = [question for _, question in with_unique_ids(located)]
        return Predictions(Task(self.name, "validation", questions, unopened, _normal), texts, [w for w, _ in located])

    def predictions(self, path: Path, files: Mapping[str, Path]) -> Predictions:
        """Reads {question_id, answers, prediction}.

        With the file "questions" (TextVQA's JSON) also {question_id, answer}, as submissions have it, and
        {question_id, prompt, text}, as LLaVA writes it; its question_id is the image's.
        """
        if "questions" in files:
            return self._joined(path, files["questions"])
        located, texts = [], []
        for where, row in read_lines(path):
            name, answers = id_of(where, row, "question_id"), ten_answers(where, texts_of(where, row, "answers"))
            located.append((where, Question(name, (), "textvqa", name, answers)))
            texts.append(text_of(where, row, "prediction"))
        questions = [question for _, question in with_unique_ids(located)]
        return Predictions(Task(self.name, "validation", questions, unopened, _normal), texts, [w for w, _ in located])


def _asked_by(prompt: str) -> str:
    """The question in a prompt of LLaVA's, which may have OCR tokens and an ending on lines of their own."""
    lines = [line for line in prompt.split("\n") if not line.startswith("Reference OCR token:")]
    return lines[0].strip().lower()


def _vqa_question(where: str, row: dict[str, Any], ending: str = "") -> Question:
    image, asked = id_of(where, row, "image_id") + ending, words_of(where, row, "question")
    answers = ten_answers(where, texts_of(where, row, "answers"))
    return Question(id_of(where, row, "question_id"), (image,), "textvqa", asked, answers)


def _tokens(file: Path) -> dict[str, list[str]]:
    """File name of an image -> its OCR tokens."""
    rows = entries(file, read_json(file), "data")
    return {f"{id_of(where, row, 'image_id')}.jpg": texts_of(where, row, "ocr_tokens") for where, row in rows}


def _with_own_tokens(where: str, row: dict[str, Any]) -> Question:
    return _with_tokens(_vqa_question(where, row), texts_of(where, row, "ocr_tokens"))


def _with_tokens(question: Question, tokens: Sequence[str]) -> Question:
    return replace(question, question=f"{question.question}\nReference OCR token: {', '.join(tokens)}")


def _normal(_: Question, text: str) -> str:
    return normalize(text)


def _accuracy(record: Record) -> float:
    return accuracy(record["text"], record["truth"])


def normalize(answer: str) -> str:
    """An answer as EvalAI's answer processor normalises it: "The two dogs, running!" -> "2 dogs running".

    The answer becomes lower case and loses commas and question marks. A punctuation mark that stands beside a blank
    anywhere is deleted everywhere; any other becomes a blank. Articles are deleted, number words up to ten become
    digits, and contractions get their apostrophe. Marks of other scripts stay.
    """
    text = answer.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    text = text.replace("\n", " ").replace("\t", " ").strip()
    plain = text
    for mark in _PUNCTUATION:
        plain = plain.replace(mark, "" if f"{mark} " in text or f" {mark}" in text else " ")
    words = (_DIGITS.get(word, word) for word in _POINT.sub("", plain).split())
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def ten_answers(where: str, answers: list[str]) -> list[str]:
    """The answers that people gave.

    Raises:
        IavaError: if they are not ten; begins with `where`.
    """
    if len(answers) != ANSWERS:
        raise IavaError(f"{where}: there are {len(answers)} answers: TextVQA has {ANSWERS} to each question")
    return answers


def accuracy(prediction: str, answers: Sequence[str]) -> float:
    """VQA accuracy: the mean of min(1, matches / 3) over the ten sets of nine people's answers.

    Args:
        prediction: what the model said.
        answers: what ten people said (see `ten_answers`).

    Returns:
        0 to 1, in steps of 0.1: 0.3 for one match, 0.6 for two, 0.9 for three, 1 for more.
    """
    said = normalize(prediction)
    matches = [normalize(answer) == said for answer in answers]
    return sum(min(1.0, (sum(matches) - match) / 3) for match in matches) / len(matches)
