"""The metrics of `GET /metrics`, in the text format of Prometheus."""

from collections.abc import Callable, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from iava.serve.batching.rows import BatchRow, Done

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_STEP_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Metrics of one server, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        of: Any = {"registry": self.registry}
        self._requests = Counter(
            "iava_requests", "Requests by path, method and status.", ["path", "method", "status"], **of
        )
        self._tokens = Counter("iava_tokens", "Tokens by method and kind.", ["method", "kind"], **of)
        self._batch = Histogram("iava_batch_rows", "Rows decoded together.", ["method"], buckets=_ROWS, **of)
        self._first = Histogram(
            "iava_first_token_seconds", "From the request to the first token.", ["method"], buckets=_SECONDS, **of
        )
        self._step = Histogram(
            "iava_token_seconds", "Mean time of an answer's later tokens.", ["method"], buckets=_STEP_SECONDS, **of
        )

    def watch(self, name: str, description: str, value: Callable[[], float]) -> None:
        """Adds a gauge whose value is computed when the metrics are read."""
        Gauge(name, description, registry=self.registry).set_function(value)

    def request(self, path: str, method: str, status: int) -> None:
        """Counts a request after its answer."""
        self._requests.labels(path, method, str(status)).inc()

    def batch(self, rows: Sequence[BatchRow]) -> None:
        """Counts a batch before it is decoded."""
        self._batch.labels(rows[0].plan.method).observe(len(rows))

    def answer(self, row: BatchRow, done: Done) -> None:
        """Counts a complete answer."""
        method = row.plan.method
        self._tokens.labels(method, "prompt").inc(done.prompt_tokens)
        self._tokens.labels(method, "completion").inc(done.completion_tokens)
        if row.first is not None and row.last is not None:
            self._first.labels(method).observe(row.first - row.arrived)
            if done.completion_tokens > 1:
                self._step.labels(method).observe((row.last - row.first) / (done.completion_tokens - 1))

    def text(self) -> bytes:
        """Returns the metrics as text."""
        return generate_latest(self.registry)
