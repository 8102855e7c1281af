"""TextVQA: questions whose answer is written in the image, judged by ten people's answers.

Towards VQA Models That Can Read (arXiv 1904.08920). Answers are first made alike as EvalAI's answer processor does it
(its peculiarities included), then counted as in VQA (arXiv 1505.00468).
"""

import re
from collections.abc import Sequence

from iava.errors import IavaError

ANSWERS = 10
PROMPT = "{}\nAnswer the question using a single word or phrase."
"""How a question is put: as LLaVA-1.5 does, because whole sentences are never among the answers."""
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


def normalize(answer: str) -> str:
    """An answer as EvalAI's processor makes answers alike: "The two dogs, running!" -> "2 dogs running".

    Lower case, no commas and question marks; a punctuation mark that stands beside a blank anywhere is taken out
    everywhere, any other becomes a blank; articles go, number words up to ten become digits, contractions get their
    apostrophe. Marks of other scripts stay.
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
    """How far people agree with an answer: the mean, over leaving out each of them, of min(1, matches / 3).

    Args:
        prediction: what the model said.
        answers: what ten people said (see `ten_answers`).

    Returns:
        0 to 1, in steps of 0.1: 0.3 for one match, 0.6 for two, 0.9 for three, 1 for more.
    """
    said = normalize(prediction)
    matches = [normalize(answer) == said for answer in answers]
    return sum(min(1.0, (sum(matches) - match) / 3) for match in matches) / len(matches)
