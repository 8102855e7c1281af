"""Captions that are checked by questions to the model itself; see `iava.methods.verify`."""

from typing import Any

import torch
from PIL import Image

from iava.benchmarks.benchmark import PROMPT_STYLES
from iava.benchmarks.pope import wording
from iava.benchmarks.task import Question
from iava.evaluation.plan import Plan
from iava.lvlm.model import LVLM
from iava.methods.controls import Greedy
from iava.methods.verify import SelfChecked
from iava.methods.words import yes_no_logits
from iava.metrics.parts import Record


def checked_caption(
    lvlm: LVLM, picture: Image.Image, question: Question, method: SelfChecked, plan: Plan, seed: int
) -> Record:
    """The answer's part of a record: drafts of a caption, and POPE's question about each thing that they name.

    Returns:
        text of the draft that is taken; parsed, what it names in the end; margins, by thing; seconds of all calls.
    """
    asked: dict[str, Any] = {"max_new_tokens": plan.length, "seed": seed}
    drafts = lvlm.ask_many(picture, [question.question] * method.drafts, method=method.drafting(), **asked)
    named = [plan.parse(question, draft.text) for draft in drafts]
    things = list(dict.fromkeys(thing for things in named for thing in things))
    wordings = [PROMPT_STYLES[plan.style].format(wording(thing)) for thing in things]
    # The first token's logits say yes or no.
    answers = lvlm.ask_many(picture, wordings, method=Greedy(), max_new_tokens=1, seed=seed) if things else []
    margins: dict[str, float] = {}
    if answers:
        pairs = yes_no_logits(torch.stack([answer.logits for answer in answers]), lvlm.processor.tokenizer)
        margins = dict(zip(things, (pairs[:, 0] - pairs[:, 1]).tolist(), strict=True))
    chosen, kept = method.choice(named, margins)
    seconds = sum(answer.seconds for answer in [*drafts, *answers])
    return {"text": drafts[chosen].text, "parsed": kept, "margins": margins, "seconds": round(seconds, 6)}
