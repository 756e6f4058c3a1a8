"""The worker's thread with a real engine: turns, time, and an engine that breaks."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the service needs it: the extra serve")

from kogpt2_gluon.inference.sampling import Sampling
from kogpt2_gluon.inference.text_engine import TextEngine, TextRequest, Written
from kogpt2_gluon.serving.worker import GONE, SHUTDOWN, Broken, Event, Job, Reply, Ticket, Worker

PROMPT = "오늘은 날씨가"
GREEDY = Sampling(12, 0.0)
MANY = Sampling(300, 0.0, min_new_tokens=300)


class Listener(Reply):
    """Keeps what it hears of."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.ended = threading.Semaphore(0)
        self.began = threading.Event()

    def deliver(self, events: Sequence[Event]) -> None:
        self.events += events
        self.began.set()
        for event in events:
            if event.written is None or event.written.finish_reason:
                self.ended.release()

    def wait(self, count: int = 1) -> None:
        for _ in range(count):
            assert self.ended.acquire(timeout=60)

    def text(self) -> str:
        return "".join(event.written.text for event in self.events if event.written)


class Fragile(TextEngine):
    """Breaks once, if `breaks` is set."""

    breaks = False

    def step(self) -> list[Written]:
        if Fragile.breaks:
            Fragile.breaks = False
            raise MemoryError("of this test")
        return super().step()


@pytest.fixture
def worker(loaded: Any) -> Iterator[Worker]:
    def make(kind: type[TextEngine]) -> TextEngine:
        return kind(loaded.net, loaded.tokenizer, loaded.ctx, 2)

    worker = Worker({"a": partial(make, Fragile), "b": partial(make, TextEngine)})
    worker.start()
    yield worker
    worker.stop()
    assert not worker.is_alive


def tickets(loaded: Any, *models: str, sampling: Sampling = GREEDY, deadline: float = 1e12) -> list[Ticket]:
    ids = [loaded.tokenizer.bos_id, *loaded.tokenizer.encode(PROMPT)]
    listeners = [Listener() for _ in models]
    return [
        Ticket(model, TextRequest(ids, sampling), deadline, 0, listener) for model, listener in zip(models, listeners)
    ]


def test_two_networks_take_turns(worker, loaded):
    """One that has much to do does not keep the other waiting."""
    long, short = tickets(loaded, "a", sampling=MANY)[0], tickets(loaded, "b")[0]
    worker.add([long])
    assert long.reply.began.wait(60)
    worker.add([short])
    short.reply.wait()
    assert short.reply.text() == loaded.text(PROMPT, GREEDY)
    assert not long.reply.events[-1].written.finish_reason
    worker.cancel([long], SHUTDOWN)
    long.reply.wait()
    assert long.reply.events[-1].written.finish_reason == SHUTDOWN


def test_jobs_and_texts_take_turns(worker, loaded):
    counted = []

    def parts(name: str, count: int) -> Iterator[Any]:
        for _ in range(count):
            counted.append(name)
            yield None
        yield name

    (text,) = tickets(loaded, "a", sampling=MANY)
    worker.add([text])
    jobs = [Job(parts(name, 3)) for name in "xy"]
    for job in jobs:
        worker.do(job)
    assert [job.done.result(60) for job in jobs] == ["x", "y"]
    assert sorted(counted) == ["x", "x", "x", "y", "y", "y"] and counted != sorted(counted)
    late, gone, bad = Job(parts("late", 3), time.monotonic()), Job(parts("gone", 3)), Job(map(int, ["no number"]))
    gone.done.cancel()
    for job in (late, gone, bad):
        worker.do(job)
    with pytest.raises(TimeoutError):
        late.done.result(60)
    with pytest.raises(ValueError, match="no number"):
        bad.done.result(60)
    assert "gone" not in counted
    worker.cancel([text], GONE)


def test_nobody_hears_of_a_text_whose_client_is_gone(worker, loaded):
    texts = tickets(loaded, *["a"] * 40, sampling=MANY)
    worker.add(texts)
    assert texts[0].reply.began.wait(60)
    worker.cancel(texts, GONE)
    (after,) = tickets(loaded, "a")
    worker.add([after])
    after.reply.wait()
    assert texts[-1].reply.events == []
    ends = [event.written.finish_reason for text in texts for event in text.reply.events if event.written]
    assert set(ends) <= {None, "length"} and len(ends) < 40 * 300


def test_a_broken_engine_loses_its_texts_and_begins_again(worker, loaded, capfd):
    *texts, kept = tickets(loaded, *["a"] * 40, "b", sampling=MANY)
    worker.add([*texts, kept])
    assert texts[0].reply.began.wait(60) and kept.reply.began.wait(60)
    Fragile.breaks = True
    texts[-1].reply.wait()
    event = texts[-1].reply.events[-1]
    assert event.written is None and isinstance(event.error, Broken)
    assert "MemoryError: of this test" in capfd.readouterr().err
    (again,) = tickets(loaded, "a")
    worker.add([again])
    again.reply.wait()
    assert again.reply.text() == loaded.text(PROMPT, GREEDY)
    kept.reply.wait()
    assert kept.reply.events[-1].written.finish_reason == "length"


def test_nobody_waits_for_a_thread_that_has_ended(worker, loaded, capfd, monkeypatch):
    """A new engine in the place of a broken one may not fit into memory."""

    def no_room() -> TextEngine:
        raise MemoryError("for another engine")

    monkeypatch.setitem(worker._make_engines, "a", no_room)
    lost, kept = tickets(loaded, "a", "b", sampling=MANY)
    job = Job(iter([None] * 1_000_000))
    worker.add([lost, kept])
    assert lost.reply.began.wait(60) and kept.reply.began.wait(60)
    worker.do(job)
    Fragile.breaks = True
    kept.reply.wait()
    assert isinstance(kept.reply.events[-1].error, Broken)
    with pytest.raises(Broken, match="restart it; its log"):
        job.done.result(60)
    assert not worker.is_alive and "for another engine" in capfd.readouterr().err
    with pytest.raises(Broken, match="can compute no more"):
        worker.add(tickets(loaded, "b"))


def test_time_ends_what_runs_and_what_waits(worker, loaded):
    texts = tickets(loaded, *["a"] * 60, sampling=MANY, deadline=time.monotonic() + 0.5)
    worker.add(texts)
    for text in texts:
        text.reply.wait()
    assert {text.reply.events[-1].written.finish_reason for text in texts} <= {"length", "time"}
    assert texts[-1].reply.events[-1].written.finish_reason == "time"
    assert len(texts[0].reply.events) > len(texts[-1].reply.events) == 1


def test_a_text_that_cannot_be_is_refused_alone(worker, loaded):
    good, bad = tickets(loaded, "a", "a")
    bad.request = TextRequest([10**9], GREEDY)
    worker.add([bad, good])
    bad.reply.wait()
    assert "ids outside" in str(bad.reply.events[0].error)
    good.reply.wait()
    assert good.reply.text() == loaded.text(PROMPT, GREEDY)
