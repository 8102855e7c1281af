"""`POST /v1/compare`: answers of several methods, with one explorer page. The web page sends these requests."""

from iava.lvlm.answers import Answer
from iava.serve.api.access import RequestState
from iava.serve.api.schema import ComparedAnswer, CompareRequest, Comparison
from iava.serve.batching.rows import BatchRow, Done
from iava.serve.batching.tokens import Decoding
from iava.serve.errors import ApiError
from iava.serve.service import Inbox, Service

MAX_EXPLAINED_TOKENS = 256
"""Largest token limit of an answer, because the page explains every step."""


async def compare(service: Service, body: CompareRequest, state: RequestState) -> Comparison:
    """Answers each question with each method, and writes one explorer page.

    Raises:
        ApiError: 400 if the image, a question, a method or a setting is refused, by the model's family too.
    """
    wanted = body.max_tokens or 32
    if wanted > MAX_EXPLAINED_TOKENS:
        raise ApiError(400, f"max_tokens is {wanted}: at most {MAX_EXPLAINED_TOKENS} are explained", param="max_tokens")
    decoding = Decoding(max_new_tokens=wanted, seed=body.seed)
    (image,) = await service.images([("image", body.image)], state.deadline, state.share.hold)
    inbox = Inbox()
    for name, settings in body.methods.items():
        plan = service.plan({**settings, "method": name, "explain": True}, has_images=True, param=f"methods.{name}")
        for number, question in enumerate(body.questions):
            conversation = service.read([{"role": "user", "content": question}], [image], f"questions.{number}")
            place = len(state.rows)
            state.rows.append(BatchRow(plan, conversation, decoding, inbox.sender(place), state.arrived))
    found: dict[int, Answer] = {}
    async for place, event in service.events(state.rows, inbox, state.deadline):
        if isinstance(event, Done):
            assert event.answer is not None
            found[place] = event.answer
    count = len(body.questions)
    asked = [
        (question, [found[place] for place in range(number, len(found), count)])
        for number, question in enumerate(body.questions)
    ]
    # Not "method", which is a label of metrics: there are too many lists.
    state.log |= {"methods": list(body.methods), "images": 1}
    return Comparison(
        answers=[
            ComparedAnswer(question=question, method=answer.method, settings=answer.settings, text=answer.text)
            for question, answers in asked
            for answer in answers
        ],
        page=await service.page(image, asked, state.rows[0]),
    )
