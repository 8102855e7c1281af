"""The worker: which rows share a batch, and what happens to rows that fail or whose client leaves."""

import threading
import time

import pytest
import torch

from iava.errors import IavaError
from iava.serve.batching.metrics import Metrics
from iava.serve.batching.rows import BatchRow, Done, Failed, Piece, RowPlan
from iava.serve.batching.tokens import Decoding
from iava.serve.batching.worker import Worker

END = 9


class Batches:
    """A decoder of letters: records the rows of each batch, and gives each row the letters of its own word."""

    def __init__(self):
        self.seen = []
        self.started = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()
        self.broken = {}
        self.step = lambda: None

    def decode(self, rows):
        self.seen.append([row.conversation for row in rows])
        self.started.set()
        assert self.go_on.wait(10)
        for row in rows:
            if row.conversation in self.broken:
                raise self.broken[row.conversation]
            row.begin(lambda ids: "".join(map(chr, ids)), {END}, 1, row.decoding.max_new_tokens)
        words = [[*map(ord, row.conversation), END] for row in rows]
        for position in range(max(map(len, words))):
            if all(row.is_over for row in rows):
                return
            for row, word in zip(rows, words, strict=True):
                row.take(word[position] if position < len(word) else END)
            self.step()


@pytest.fixture
def batches():
    return Batches()


@pytest.fixture
def worker(batches):
    made = Worker(batches.decode, batch=4, window=0.05, metrics=Metrics())
    made.start()
    yield made
    batches.go_on.set()
    made.stop()


class Told:
    """The events that the client of a row gets."""

    def __init__(self):
        self.events = []
        self.ended = threading.Event()

    def __call__(self, event):
        self.events.append(event)
        if not isinstance(event, Piece):
            self.ended.set()

    @property
    def text(self):
        assert self.ended.wait(10)
        assert isinstance(self.events[-1], Done)
        return "".join(event.text for event in self.events[:-1])

    @property
    def error(self):
        assert self.ended.wait(10)
        assert isinstance(self.events[-1], Failed)
        return self.events[-1].error


def row(word, method="greedy", *, longest=100, settings=(), explain=False, has_images=True):
    plan = RowPlan(method, tuple(settings), explain, has_images)
    return BatchRow(plan, word, Decoding(longest), Told())


def held(batches, worker):
    """Keeps the worker busy with a first row, so rows that follow must wait."""
    batches.go_on.clear()
    first = row("first")
    worker.submit([first])
    assert batches.started.wait(10)
    return first


def test_waiting_rows_of_one_plan_are_decoded_together(batches, worker):
    first = held(batches, worker)
    rows = [row("a"), row("b", "vcd"), row("c"), row("d", "vcd", settings=[("alpha", "2")]), row("e", has_images=False)]
    for one in rows:
        worker.submit([one])
    batches.go_on.set()
    assert [one.send.text for one in [first, *rows]] == ["first", "a", "b", "c", "d", "e"]
    assert batches.seen == [["first"], ["a", "c"], ["b"], ["d"], ["e"]]


def test_rows_that_come_within_the_window_are_decoded_together(batches):
    worker = Worker(batches.decode, batch=3, window=5, metrics=Metrics())
    worker.start()
    rows = [row(word) for word in "abc"]
    for one in rows:
        worker.submit([one])
        time.sleep(0.05)
    # The batch is full, so it does not wait for the end of the window.
    assert [one.send.text for one in rows] == ["a", "b", "c"]
    worker.stop()
    assert batches.seen == [["a", "b", "c"]]


def test_the_size_of_a_batch_is_limited(batches, worker):
    held(batches, worker)
    rows = [row(word) for word in "abcdefghij"]
    worker.submit(rows)
    batches.go_on.set()
    assert [one.send.text for one in rows] == list("abcdefghij")
    assert batches.seen[1:] == [list("abcd"), list("efgh"), list("ij")]


def test_a_row_that_cannot_be_decoded_fails_alone(batches, worker):
    held(batches, worker)
    batches.broken = {"c": IavaError("c is wrong"), "d": TypeError("a bug")}
    rows = [row(word) for word in "abcd"]
    worker.submit(rows)
    batches.go_on.set()
    assert [one.send.text for one in rows[:2]] == ["a", "b"]
    assert (rows[2].send.error.status_code, rows[2].send.error.detail) == (400, "c is wrong")
    assert rows[3].send.error.status_code == 500
    assert "a bug" not in rows[3].send.error.detail
    later = row("later")
    worker.submit([later])
    assert later.send.text == "later"


def test_a_batch_that_does_not_fit_into_memory_is_halved(batches, worker):
    def decode(rows):
        if len(rows) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        Batches.decode(batches, rows)

    small = Worker(decode, batch=4, window=0.05, metrics=Metrics())
    small.start()
    rows = [row(word) for word in "abcd"]
    small.submit(rows)
    assert [one.send.text for one in rows] == ["a", "b", "c", "d"]
    small.stop()
    batches.broken = {"e": torch.OutOfMemoryError("CUDA out of memory")}
    alone = row("e")
    worker.submit([alone])
    assert alone.send.error.status_code == 503
    assert alone.send.error.headers == {"Retry-After": "1"}


def test_a_row_that_has_begun_is_not_decoded_again(batches, worker):
    held(batches, worker)

    def breaks():
        if len(batches.seen) == 2:
            raise RuntimeError("in the middle")

    batches.step = breaks
    rows = [row("ab"), row("cd")]
    worker.submit(rows)
    batches.go_on.set()
    for one in rows:
        assert one.send.error.status_code == 500
        assert len(one.send.events) == 2
    assert batches.seen[1:] == [["ab", "cd"]]


def test_the_row_of_a_client_that_leaves_is_freed(batches, worker):
    held(batches, worker)
    left, stays = row("left"), row("stays")
    batches.step = lambda: left.leave() if len(batches.seen) == 2 else None
    worker.submit([left, stays])
    batches.go_on.set()
    assert stays.send.text == "stays"
    assert [event.text for event in left.send.events] == ["l"]
    waiting = row("waiting")
    waiting.leave()
    worker.submit([waiting])
    last = row("last")
    worker.submit([last])
    assert last.send.text == "last"
    assert ["waiting"] not in batches.seen


def test_an_answer_ends_at_its_own_limit(batches, worker):
    rows = [row("abcdef", longest=2), row("abcdef", longest=4)]
    worker.submit(rows)
    assert [one.send.text for one in rows] == ["ab", "abcd"]
    assert [one.send.events[-1] for one in rows] == [Done("length", 1, 2), Done("length", 1, 4)]


def test_stopping_finishes_the_batch_and_refuses_other_rows(batches):
    worker = Worker(batches.decode, batch=4, window=0, metrics=Metrics())
    worker.start()
    first = held(batches, worker)
    waiting, late = row("waiting"), row("late")
    worker.submit([waiting])
    stopping = threading.Thread(target=worker.stop)
    stopping.start()
    while worker.is_ready:
        time.sleep(0.01)
    worker.submit([late])
    batches.go_on.set()
    stopping.join(10)
    assert first.send.text == "first"
    for one in (waiting, late):
        assert one.send.error.status_code == 503
        assert one.send.error.headers == {"Retry-After": "1"}
