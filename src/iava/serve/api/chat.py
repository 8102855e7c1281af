"""`POST /v1/chat/completions`: turns a request into rows, and their events into OpenAI's answers."""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Awaitable
from dataclasses import replace
from typing import Any, TypeVar

from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from iava.lvlm.answers import Answer
from iava.serve.api.access import RequestState
from iava.serve.api.conversation import read_messages
from iava.serve.api.schema import (
    AnswerMessage,
    ChatRequest,
    Choice,
    Completion,
    Logprobs,
    MethodReport,
    TokenLogprob,
    TopLogprob,
    Usage,
)
from iava.serve.batching.rows import BatchRow, Done, Event, Piece
from iava.serve.batching.tokens import Decoding, TokenProbability
from iava.serve.errors import ApiError, error_event
from iava.serve.service import Inbox, Service

T = TypeVar("T")
Events = AsyncIterator[tuple[int, Event]]


class Chat:
    """One request for a completion.

    Args:
        service: the model that is served.
        body: the request.
        state: state of the request.
    """

    def __init__(self, service: Service, body: ChatRequest, state: RequestState) -> None:
        self._service = service
        self._body = body
        self._state = state
        self._head: dict[str, Any] = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": service.name,
        }
        self._inbox = Inbox()
        self._prompt_tokens = 0
        self._completion_tokens = 0

    async def answer(self, request: Request) -> Response | Completion:
        """Decodes, and answers at once or as a stream.

        Raises:
            ApiError: if the request is refused or fails before its first token.
        """
        self._rows = await self._prepared()
        self._state.rows += self._rows
        events = self._service.events(self._rows, self._inbox, self._state.deadline)
        if not self._body.stream:
            return await _unless_gone(request, self._completion(events))
        # An error before the first event still gets its own status code.
        first = await _unless_gone(request, anext(events))
        if isinstance(first, Response):
            return first
        return StreamingResponse(self._chunks(first, events), media_type="text/event-stream", headers=_UNBUFFERED)

    async def _prepared(self) -> list[BatchRow]:
        body, service, limits = self._body, self._service, self._service.limits
        if body.model != service.name:
            message = f"the model {body.model!r} is not served: use {service.name!r}"
            raise ApiError(404, message, param="model", code="model_not_found")
        decoding = self._decoding()
        options = body.iava.model_dump()
        choices = body.n or 1
        if choices > limits.batch:
            raise ApiError(400, f"n is {choices}: at most {limits.batch} choices are served", param="n")
        conversation = await read_messages(service, body.messages, self._state)
        images = conversation.images
        plan = service.plan(options, has_images=bool(images))
        service.check_draws(plan, decoding)
        if plan.explain and (choices > 1 or len(images) > 1):
            raise ApiError(400, "explain needs one answer (n is 1) about one image", param="iava.explain")
        self._plan = plan
        self._state.log |= {"method": plan.method, "images": len(images), "stream": bool(body.stream)}
        if body.user is not None:
            self._state.log["user"] = body.user
        return [
            BatchRow(
                plan,
                conversation,
                decoding if decoding.seed is None else replace(decoding, seed=decoding.seed + number),
                self._inbox.sender(number),
                self._state.arrived,
            )
            for number in range(choices)
        ]

    def _decoding(self) -> Decoding:
        body, limits = self._body, self._service.limits
        field = "max_completion_tokens" if body.max_completion_tokens is not None else "max_tokens"
        wanted = getattr(body, field)
        if wanted is not None and wanted > limits.new_tokens:
            message = f"{field} is {wanted}: at most {limits.new_tokens} new tokens are served"
            raise ApiError(400, message, param=field, code="too_many_new_tokens")
        if body.top_logprobs is not None and not body.logprobs:
            raise ApiError(400, "top_logprobs needs logprobs to be true", param="top_logprobs")
        if body.stream_options is not None and not body.stream:
            raise ApiError(400, "stream_options needs stream to be true", param="stream_options")
        return Decoding(
            max_new_tokens=wanted,
            temperature=body.temperature,
            top_p=body.top_p,
            seed=body.seed,
            stop=tuple(body.stop or ()),
            top_logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        )

    async def _completion(self, events: Events) -> Completion:
        texts = [""] * len(self._rows)
        probabilities: list[list[TokenProbability]] = [[] for _ in self._rows]
        ends: dict[int, Done] = {}
        async for number, event in events:
            if isinstance(event, Piece):
                texts[number] += event.text
                probabilities[number] += event.probabilities
            elif isinstance(event, Done):
                self._count(event)
                ends[number] = event
        choices = [
            Choice(
                index=number,
                message=AnswerMessage(content=text),
                logprobs=Logprobs(content=self._logprobs(probabilities[number])) if self._body.logprobs else None,
                finish_reason=ends[number].reason,
            )
            for number, text in enumerate(texts)
        ]
        return Completion(**self._head, choices=choices, usage=self._usage(), iava=await self._report(ends[0].answer))

    async def _chunks(self, first: tuple[int, Event], events: Events) -> AsyncIterator[str]:
        with_usage = self._body.stream_options is not None and self._body.stream_options.include_usage

        def chunk(choices: list[dict[str, Any]], **more: Any) -> str:
            made = {**self._head, "object": "chat.completion.chunk", "choices": choices, **more}
            if with_usage:
                made.setdefault("usage", None)
            return f"data: {json.dumps(made, ensure_ascii=False)}\n\n"

        def choice(number: int, delta: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
            return [{"index": number, "delta": delta, "logprobs": None, "finish_reason": None, **more}]

        for number in range(len(self._rows)):
            yield chunk(choice(number, {"role": "assistant", "content": ""}))
        try:
            async for number, event in _streamed_after(first, events):
                if isinstance(event, Piece):
                    more: dict[str, Any] = {}
                    if self._body.logprobs:
                        listed = self._logprobs(event.probabilities)
                        more["logprobs"] = Logprobs(content=listed).model_dump()
                    yield chunk(choice(number, {"content": event.text}, **more))
                elif isinstance(event, Done):
                    self._count(event)
                    report = (await self._report(event.answer)).model_dump()
                    yield chunk(choice(number, {}, finish_reason=event.reason), iava=report)
        except ApiError as error:
            self._state.log["error"] = str(error.detail)
            yield error_event(error)
            return
        if with_usage:
            yield chunk([], usage=self._usage().model_dump())
        yield "data: [DONE]\n\n"

    def _count(self, done: Done) -> None:
        self._prompt_tokens = done.prompt_tokens
        self._completion_tokens += done.completion_tokens
        self._state.log |= {"prompt_tokens": self._prompt_tokens, "completion_tokens": self._completion_tokens}

    def _usage(self) -> Usage:
        prompt, completion = self._prompt_tokens, self._completion_tokens
        return Usage(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion)

    async def _report(self, answer: Answer | None) -> MethodReport:
        settings = {name: json.loads(value) for name, value in self._plan.settings}
        report = MethodReport(method=self._plan.method, settings=settings, selected=None, page=None)
        if answer is not None and answer.explanation is not None:
            selected = answer.explanation.selected
            report.selected = None if selected is None else selected.nonzero().flatten().tolist()
            row = self._rows[0]
            answers = [(" ".join(row.conversation.question_texts), [answer])]
            report.page = await self._service.page(row.conversation.images[0], answers, row)
        return report

    def _logprobs(self, probabilities: list[TokenProbability]) -> list[TokenLogprob]:
        def one(token: int, logprob: float) -> dict[str, Any]:
            text = self._service.token_text(token)
            return {"token": text, "logprob": logprob, "bytes": list(text.encode())}

        return [
            TokenLogprob(**one(p.token, p.logprob), top_logprobs=[TopLogprob(**one(*pair)) for pair in p.top])
            for p in probabilities
        ]


_UNBUFFERED = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


async def _streamed_after(first: tuple[int, Event], events: Events) -> Events:
    yield first
    async for event in events:
        yield event


async def _unless_gone(request: Request, work: Awaitable[T]) -> T | Response:
    """Awaits work. If the client leaves before, cancels it and returns an empty response that nobody reads."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    tasks = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return tasks[0].result() if tasks[0].done() else Response(status_code=499)
    finally:
        for task in tasks:
            task.cancel()
