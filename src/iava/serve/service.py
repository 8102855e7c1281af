"""The model behind the routes: its worker, its memory of images and pages, and the way from a request to events."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from PIL import Image

from iava.errors import IavaError
from iava.explain.page import Answers, decoding_facts, explain_page
from iava.lvlm.conversation import Conversation, Message, read_conversation
from iava.lvlm.model import LVLM
from iava.methods import METHODS
from iava.serve.batching.decoding import RowDecoder
from iava.serve.batching.metrics import Metrics
from iava.serve.batching.rows import BatchRow, Done, Event, Failed, RowPlan
from iava.serve.batching.tokens import Decoding
from iava.serve.batching.worker import Worker
from iava.serve.budget import Budget
from iava.serve.errors import ApiError
from iava.serve.images.fetch import Fetcher
from iava.serve.images.reader import ImageReader, is_remote
from iava.serve.limits import Limits
from iava.serve.page.store import Pages, PageStore

SERVED = [name for name, method in METHODS.items() if name != "oracle" and not method.several_calls]
"""Names of the methods that are served.

The oracle needs the region of the answer. A method of several calls decodes the captions of benchmarks only.
"""
_THREADS = 4  # for images and pages
_FETCHING = 16  # threads that wait for other hosts


class Service:
    """A model that answers requests.

    Args:
        lvlm: the model.
        name: name of the model in requests and answers.
        method: default decoding method.
        settings: settings of the default method that replace its own defaults.
        limits: limits of the server. None: the default limits.
        fetcher: fetches images from other hosts. None: no host is allowed.
        pages: store of explorer pages. None: a store in this process.

    Raises:
        IavaError: if the method or a setting is unknown or out of range.
    """

    def __init__(
        self,
        lvlm: LVLM,
        name: str,
        *,
        method: str = "iava",
        settings: Mapping[str, Any] | None = None,
        limits: Limits | None = None,
        fetcher: Fetcher | None = None,
        pages: Pages | None = None,
    ) -> None:
        self.name = name
        self.created = int(time.time())
        self.limits = limits or Limits()
        self.default_method = method
        self._settings = dict(settings or {})
        self._lvlm = lvlm
        self._images = ImageReader(self.limits, fetcher or Fetcher())
        self._decoder = RowDecoder(lvlm, self.limits)
        self._decoder.method(method, self._settings)
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="iava-request")
        self._fetching = ThreadPoolExecutor(_FETCHING, thread_name_prefix="iava-fetch")
        self.budget = Budget(self.limits.held_bytes)
        self.metrics = Metrics()
        self.pages = pages or PageStore(self.limits.page_seconds, self.limits.page_bytes)
        self.worker = Worker(
            self._decoder.decode, batch=self.limits.batch, window=self.limits.window, metrics=self.metrics
        )
        self.in_flight = 0
        self.metrics.watch("iava_requests_in_flight", "Requests that wait or run.", lambda: self.in_flight)
        self.metrics.watch("iava_queue_rows", "Rows that wait for a batch.", lambda: self.worker.queued)
        self.metrics.watch("iava_held_bytes", "Bodies and images of requests in flight.", lambda: self.budget.held)
        memory = self._decoder.memory
        self.metrics.watch("iava_image_memory_bytes", "Bytes of encoded images that are kept.", lambda: memory.nbytes)
        self.metrics.watch("iava_image_memory_images", "Encoded images that are kept.", lambda: len(memory))
        self.metrics.watch("iava_page_bytes", "Bytes of explorer pages that are kept.", self.pages.size)

    def warm_up(self) -> None:
        """Answers one question, so that the first request does not pay for the first run of the model.

        Raises:
            IavaError: if the default method refuses the model.
        """
        plan = self.plan({"method": self.default_method}, has_images=True)
        image = Image.new("RGB", (64, 64))
        failed: list[Failed] = []
        self._decoder.decode(
            [
                BatchRow(
                    plan,
                    read_conversation("Is there a dog in the image?", [image]),
                    Decoding(max_new_tokens=2),
                    lambda event: failed.append(event) if isinstance(event, Failed) else None,
                )
            ]
        )
        if failed:
            raise IavaError(str(failed[0].error.detail))

    def close(self) -> None:
        """Stops the worker and the threads."""
        self.worker.stop()
        self._pool.shutdown()
        self._fetching.shutdown()

    def settings_of(self, name: str) -> dict[str, Any]:
        """Returns the settings of a method that a request without settings gets."""
        given = self._settings if name == self.default_method else {}
        return self._decoder.method(name, given).settings()

    def plan(self, options: Mapping[str, Any], *, has_images: bool, param: str = "iava") -> RowPlan:
        """Reads the method and the settings of a request.

        Args:
            options: "method", "explain", and settings by name.
            has_images: whether the conversation has images.
            param: the field of the request that holds the options.

        Raises:
            ApiError: 400 if the method or a setting is unknown or out of range.
        """
        settings = dict(options)
        name, explain = settings.pop("method", None) or self.default_method, bool(settings.pop("explain", False))
        if name not in SERVED:
            raise ApiError(
                400,
                f"unknown method {name!r}: use one of {', '.join(SERVED)}",
                param=f"{param}.method",
                code="unknown_method",
            )
        given = self._settings if name == self.default_method else {}
        try:
            method = self._decoder.method(name, {**given, **settings})
        except IavaError as error:
            raise ApiError(400, str(error), param=param, code="invalid_setting") from None
        if explain and not has_images:
            raise ApiError(400, "a conversation without an image has nothing to explain", param=f"{param}.explain")
        values = tuple((key, json.dumps(value)) for key, value in sorted(method.settings().items()))
        return RowPlan(name, values, explain, has_images)

    def check_draws(self, plan: RowPlan, decoding: Decoding) -> None:
        """Refuses a temperature or a top_p that the method does not apply.

        Raises:
            ApiError: 400.
        """
        # A method that draws lists `sampling` among its settings.
        sampling = json.loads(dict(plan.settings).get("sampling", json.dumps(METHODS[plan.method].sampling)))
        if decoding.temperature and sampling is False:
            reason = f"the method {plan.method} takes the most probable token: leave it out, or name another method"
            raise ApiError(400, f"temperature is {decoding.temperature:g}, but {reason}", param="temperature")
        if decoding.temperature == 0 and sampling:
            reason = f"the method {plan.method} draws its tokens: leave it out, or use the method greedy"
            raise ApiError(400, f"temperature is 0, but {reason}", param="temperature")
        if decoding.top_p is not None and not (decoding.temperature or (decoding.temperature is None and sampling)):
            raise ApiError(400, "top_p needs a temperature above 0: nothing is drawn", param="top_p")

    def read(self, messages: Sequence[Message], images: Sequence[Image.Image], field: str) -> Conversation:
        """Reads and checks a conversation.

        Args:
            messages: see `read_conversation`.
            images: images of its image parts, in order.
            field: the field of the request that holds the messages.

        Raises:
            ApiError: 400.
        """
        try:
            found = read_conversation(messages, images, read=lambda image: image)
            self._decoder.check(found)
        except IavaError as error:
            raise ApiError(400, str(error), param=field, code="invalid_messages") from None
        return found

    def token_text(self, token: int) -> str:
        """Decodes one token."""
        return self._decoder.token_text(token)

    async def images(
        self, urls: Sequence[tuple[str, str]], deadline: float, hold: Callable[[int], None]
    ) -> list[Image.Image]:
        """Reads images in a thread; see `ImageReader.read`."""
        if not urls:
            return []
        # A host that answers slowly must not delay images that are here already.
        pool = self._fetching if any(is_remote(url) for _, url in urls) else self._pool
        return await asyncio.get_running_loop().run_in_executor(pool, self._images.read, urls, deadline, hold)

    async def in_thread(self, work: Any, *arguments: Any) -> Any:
        """Runs a function in a thread, beside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, *arguments)

    async def events(
        self, rows: Sequence[BatchRow], inbox: "Inbox", deadline: float
    ) -> AsyncIterator[tuple[int, Event]]:
        """Decodes rows, and yields (number of the row, event) until each row is done.

        Raises:
            ApiError: the error of a row that failed; 504 at the deadline.
        """
        self.worker.submit(rows)
        open_rows = len(rows)
        while open_rows:
            try:
                number, event = await asyncio.wait_for(inbox.get(), deadline - time.monotonic())
            except TimeoutError:
                seconds = self.limits.seconds
                raise ApiError(504, f"the answer took more than {seconds:g} s", code="timeout") from None
            if isinstance(event, Failed):
                raise event.error
            if isinstance(event, Done):
                open_rows -= 1
                self.metrics.answer(rows[number], event)
            yield number, event

    async def page(self, image: Image.Image, answers: Answers, row: BatchRow) -> str:
        """Writes and keeps an explorer page; returns its path on this server.

        Args:
            image: the image that was asked about.
            answers: explained answers by question.
            row: one of the rows that were decoded; all have the same token limit and seed.
        """
        facts = decoding_facts(self._lvlm, max_new_tokens=row.longest, seed=row.decoding.seed or 0)

        def written() -> str:
            return self.pages.put(explain_page(image, answers, model=self.name, facts=facts))

        return f"/pages/{await self.in_thread(written)}"


class Inbox:
    """Queue of the events of a request's rows, read by the event loop that made it."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[tuple[int, Event]] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()

    def sender(self, number: int) -> Callable[[Event], None]:
        """Returns a function that queues an event of a row. Any thread may call it."""
        return lambda event: self._put(number, event)

    def _put(self, number: int, event: Event) -> None:
        self._loop.call_soon_threadsafe(self._queue.put_nowait, (number, event))

    async def get(self) -> tuple[int, Event]:
        """Waits for the next event."""
        return await self._queue.get()
