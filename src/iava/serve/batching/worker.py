"""The worker: one thread owns the model and decodes waiting rows in batches."""

import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence

import torch

from iava.errors import IavaError
from iava.lvlm.model import out_of_memory
from iava.serve.batching.metrics import Metrics
from iava.serve.batching.rows import BatchRow
from iava.serve.errors import RETRY_AFTER, ApiError

Decode = Callable[[Sequence[BatchRow]], None]


class Worker:
    """Decodes the oldest row first, together with waiting rows of the same plan.

    Args:
        decode: decodes rows of one plan, see `RowDecoder.decode`.
        batch: largest number of rows of a batch.
        window: seconds that a row waits for other rows, counted from its arrival.
        metrics: counts batches.
    """

    def __init__(self, decode: Decode, *, batch: int, window: float, metrics: Metrics) -> None:
        self._decode = decode
        self._batch = batch
        self._window = window
        self._metrics = metrics
        self._waiting: list[BatchRow] = []
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="iava-worker", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread after its current batch. Rows that still wait fail with status 503."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    @property
    def is_ready(self) -> bool:
        """Whether the worker decodes rows."""
        return self._thread.is_alive() and not self._stopping

    def submit(self, rows: Sequence[BatchRow]) -> None:
        """Queues rows. Any thread may call it."""
        with self._changed:
            if self._stopping:
                for row in rows:
                    row.fail(ApiError(503, "the server is stopping", code="stopping", headers=RETRY_AFTER))
                return
            self._waiting += rows
            self._changed.notify()

    @property
    def queued(self) -> int:
        """Number of rows that wait."""
        return len(self._waiting)

    def _run(self) -> None:
        while rows := self._next():
            self._metrics.batch(rows)
            self._decode_all(rows)
        with self._changed:
            left, self._waiting = self._waiting, []
        for row in left:
            row.fail(ApiError(503, "the server is stopping", code="stopping", headers=RETRY_AFTER))

    def _next(self) -> list[BatchRow]:
        """Waits for the next batch. An empty batch is the end."""
        with self._changed:
            while True:
                self._waiting = [row for row in self._waiting if not row.is_over]
                if self._stopping:
                    return []
                if not self._waiting:
                    self._changed.wait()
                    continue
                oldest = self._waiting[0]
                found = [row for row in self._waiting if row.plan == oldest.plan][: self._batch]
                left = oldest.arrived + self._window - time.monotonic()
                if len(found) == self._batch or left <= 0:
                    self._waiting = [row for row in self._waiting if row not in found]
                    return found
                self._changed.wait(left)

    def _decode_all(self, rows: Sequence[BatchRow]) -> None:
        """Decodes a batch. A batch that fails is halved, so a row that cannot be decoded fails alone."""
        try:
            self._decode(rows)
            return
        except Exception as error:
            failed, trace = _api_error(error), traceback.format_exc()
        # Outside the handler, because its traceback keeps the tensors that filled the memory.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        open_rows = [row for row in rows if not row.is_closed and not row.is_left]
        # Text that was sent cannot be sent again.
        lost = [row for row in open_rows if row.tokens or len(rows) == 1]
        for row in lost:
            row.fail(failed)
        if lost and failed.status_code == 500:
            print(trace, end="", file=sys.stderr)
        left = [row for row in open_rows if row not in lost]
        half = (len(left) + 1) // 2
        for part in (left[:half], left[half:]):
            if part:
                self._decode_all(part)


def _api_error(error: Exception) -> ApiError:
    if isinstance(error, IavaError):
        return ApiError(400, str(error), code="invalid_request")
    if isinstance(error, RuntimeError) and out_of_memory(error):
        return ApiError(503, "the model's memory is full: try again later", code="out_of_memory", headers=RETRY_AFTER)
    return ApiError(500, "internal error: the server's log has the details", code="internal_error")
