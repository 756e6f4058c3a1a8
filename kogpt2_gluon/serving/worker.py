"""The one thread that computes: it writes the texts of all requests, and scores between the steps.

Everything that touches a network happens in it. Others leave texts and jobs in a list and are called back; they never
wait for a network. A step writes a token of each running text of one network; networks take turns, and between two
steps one part of one job is done, so that long jobs and long texts do not keep each other waiting.
"""

from __future__ import annotations

import math
import threading
import time
import traceback
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from kogpt2_gluon.inference.text_engine import CANCELLED, TextEngine, TextRequest, Written

GONE, TIME, SHUTDOWN = "gone", "time", "shutdown"  # why a text was cancelled
ENDED = "the service can compute no more: restart it; its log has the reason"


class Broken(Exception):  # noqa: N818 - no fault of the request
    """The network could not compute; what it was doing is lost, and it begins again."""


@dataclass(eq=False)
class Ticket:
    """A text on its way through the worker.

    Attributes
    ----------
    model : str
        Which network.
    request : TextRequest
    deadline : float
        By time.monotonic(); then it ends with what it has.
    place : int
        Its number in the request that it belongs to.
    reply : Reply
        Who hears of it.
    """

    model: str
    request: TextRequest
    deadline: float
    place: int
    reply: Reply
    number: int = -1  # the engine's, once it has it
    began: bool = False
    cancelled: str = ""


class Event(NamedTuple):
    """Something that was written, or that went wrong.

    Attributes
    ----------
    ticket : Ticket
    written : Written or None
        Its `finish_reason` is ``time`` or ``shutdown`` in the place of ``cancelled``. None: `error` says why.
    error : Exception or None
    """

    ticket: Ticket
    written: Written | None
    error: Exception | None = None


class Reply(ABC):
    """Who is called back with the events of some texts: a subclass says how."""

    @abstractmethod
    def deliver(self, events: Sequence[Event]) -> None:
        """Is called in the worker's thread, once a step at most."""


@dataclass(eq=False)
class Job:
    """Other work for the worker, in parts.

    Attributes
    ----------
    parts : iterator
        Each `next` is one part: it yields None until it yields the result.
    deadline : float
        As that of a ticket: a job that is not done by then is given up, with TimeoutError.
    done : Future
        Cancel it to give the job up.
    """

    parts: Iterator[Any]
    deadline: float = math.inf
    done: Future[Any] = field(default_factory=Future)


class Watcher:
    """Counts what the worker does; the base does nothing."""

    def counts(self, running: int, waiting: int, jobs: int) -> None:
        """Is called when any of these has changed."""

    def first_token(self, seconds: float, tokens_read: int) -> None:
        """Is called when a text has its first token, with the time since it was added."""

    def token(self) -> None:
        """Is called for each token that is written."""


class Worker:
    """The thread and its queue.

    Parameters
    ----------
    make_engines : mapping of callables
        By the names of the networks; called again for an engine in the place of one that broke.
    watcher : Watcher
    """

    def __init__(self, make_engines: Mapping[str, Callable[[], TextEngine]], watcher: Watcher | None = None) -> None:
        self._make_engines, self._watcher = dict(make_engines), watcher or Watcher()
        self._engines = {name: make() for name, make in self._make_engines.items()}
        self._tickets: dict[str, dict[int, Ticket]] = {name: {} for name in self._engines}
        self._added: dict[Ticket, float] = {}
        self._jobs: deque[Job] = deque()
        self._inbox: list[Callable[[], None]] = []
        self._wakes = threading.Condition()
        self._stops = self._has_failed = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    # ---- for any thread ----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """False if the thread has ended, or will in a moment."""
        return self._thread.is_alive() and not self._has_failed

    def stop(self, seconds: float = 5) -> None:
        """Ends the thread after the step that it is in; what it had is left as it is."""
        with self._wakes:
            self._stops = True
            self._wakes.notify()
        self._thread.join(seconds)

    def add(self, tickets: Sequence[Ticket]) -> None:
        """Adds texts; their replies hear of all that comes of them."""
        now = time.monotonic()
        self._leave(lambda: self._admit(tickets, now))

    def cancel(self, tickets: Sequence[Ticket], reason: str) -> None:
        """Ends texts; one that has ended is no fault. With GONE nobody hears of it."""
        self._leave(lambda: self._cancel(tickets, reason))

    def cancel_all(self, reason: str) -> None:
        """Ends all texts and jobs."""
        self._leave(lambda: self._cancel_all(reason))

    def do(self, job: Job) -> None:
        """Adds a job."""
        self._leave(lambda: self._jobs.append(job))

    def _leave(self, task: Callable[[], Any]) -> None:
        with self._wakes:
            if self._has_failed:
                raise Broken(ENDED)
            self._inbox.append(task)
            self._wakes.notify()

    # ---- the thread --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._take():
                for name, engine in self._engines.items():
                    if not engine.is_idle:
                        self._expire(name)
                        self._step(name)
                if self._jobs:
                    self._work()
                self._count()
        except BaseException:
            traceback.print_exc()
            self._give_up()

    def _give_up(self) -> None:
        """Answers all that waits, when the thread ends by a fault: nobody waits for it in vain."""
        with self._wakes:
            self._has_failed = True
            inbox, self._inbox = self._inbox, []
        for task in inbox:
            with suppress(Exception):
                task()
        for tickets in self._tickets.values():
            for ticket in tickets.values():
                ticket.reply.deliver([Event(ticket, None, Broken(ENDED))])
        for job in self._jobs:
            self._finish(job, error=Broken(ENDED))

    def _take(self) -> bool:
        """Takes what was left, and waits for it if there is nothing else to do; returns False at the end."""
        with self._wakes:
            while not self._inbox and not self._stops and self._is_idle:
                self._wakes.wait()
            inbox, self._inbox = self._inbox, []
        for task in inbox:
            task()
        return not self._stops

    @property
    def _is_idle(self) -> bool:
        return not self._jobs and all(engine.is_idle for engine in self._engines.values())

    def _count(self) -> None:
        engines = self._engines.values()
        running, waiting = sum(each.running for each in engines), sum(each.waiting for each in engines)
        self._watcher.counts(running, waiting, len(self._jobs))

    def _admit(self, tickets: Sequence[Ticket], now: float) -> None:
        for ticket in tickets:
            try:
                ticket.number = self._engines[ticket.model].add(ticket.request)
            except Exception as error:
                ticket.reply.deliver([Event(ticket, None, error)])
            else:
                self._tickets[ticket.model][ticket.number] = ticket
                self._added[ticket] = now

    def _cancel(self, tickets: Iterable[Ticket], reason: str) -> None:
        for ticket in tickets:
            ticket.cancelled = ticket.cancelled or reason
            if self._tickets[ticket.model].get(ticket.number) is ticket:
                self._engines[ticket.model].cancel(ticket.number)

    def _cancel_all(self, reason: str) -> None:
        for tickets in self._tickets.values():
            self._cancel(tickets.values(), reason)
        for job in self._jobs:
            job.done.cancel()

    def _expire(self, name: str) -> None:
        now = time.monotonic()
        self._cancel((ticket for ticket in self._tickets[name].values() if now > ticket.deadline), TIME)

    def _step(self, name: str) -> None:
        """Writes a token of each running text of a network."""
        try:
            written = self._engines[name].step()
        except Exception:
            self._begin_again(name)
            return
        events: dict[Reply, list[Event]] = {}
        for each in written:
            ticket = self._tickets[name][each.number]
            self._watch(ticket, each)
            if each.finish_reason:
                self._forget(ticket)
            if each.finish_reason == CANCELLED:
                each = each._replace(finish_reason=ticket.cancelled or SHUTDOWN)
            if ticket.cancelled != GONE:
                events.setdefault(ticket.reply, []).append(Event(ticket, each))
        self._count()  # whoever has heard of a step sees what it has changed
        for reply, some in events.items():
            reply.deliver(some)

    def _watch(self, ticket: Ticket, written: Written) -> None:
        if written.choice is None:
            return
        if not ticket.began:
            ticket.began = True
            self._watcher.first_token(time.monotonic() - self._added[ticket], len(ticket.request.prompt))
        self._watcher.token()

    def _forget(self, ticket: Ticket) -> None:
        del self._tickets[ticket.model][ticket.number], self._added[ticket]

    def _begin_again(self, name: str) -> None:
        """Takes another engine in the place of one that broke; its texts are lost, the others go on."""
        traceback.print_exc()
        lost = list(self._tickets[name].values())
        for ticket in lost:
            self._forget(ticket)
        error = Broken("the network could not compute this; the service's log has the reason")
        for ticket in lost:
            ticket.reply.deliver([Event(ticket, None, error)])
        self._engines[name] = self._make_engines[name]()  # if that fails, too, the thread ends

    def _work(self) -> None:
        """Does one part of the oldest job; jobs take turns."""
        job = self._jobs.popleft()
        if job.done.cancelled():
            return
        if time.monotonic() > job.deadline:
            self._finish(job, error=TimeoutError())
            return
        try:
            result = next(job.parts)
        except Exception as error:
            self._finish(job, error=error)
            return
        if result is None:
            self._jobs.append(job)
        else:
            self._finish(job, result)

    def _finish(self, job: Job, result: Any = None, error: Exception | None = None) -> None:
        if not job.done.set_running_or_notify_cancel():
            return
        if error is None:
            job.done.set_result(result)
        else:
            job.done.set_exception(error)
