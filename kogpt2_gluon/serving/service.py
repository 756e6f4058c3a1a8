"""The service between its routes and its worker: what is admitted, and how the events of a request arrive."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from kogpt2_gluon.errors import KoGPT2Error
from kogpt2_gluon.inference.text_engine import FAILED, TextRequest
from kogpt2_gluon.serving.metrics import Metrics
from kogpt2_gluon.serving.networks import Network
from kogpt2_gluon.serving.refusals import Refused, bad_request
from kogpt2_gluon.serving.settings import Settings
from kogpt2_gluon.serving.worker import GONE, TIME, Event, Job, Reply, Ticket, Worker

T = TypeVar("T")
MOST_ENTRIES = 200_000  # about 30 MB, and half a second in which its JSON is made and the event loop waits
ANSWER_SECONDS = 5  # for the last answers, once all texts are written


class Service:
    """All that the routes share. Its methods are for the thread of the event loop.

    Parameters
    ----------
    networks : mapping of str to Network
    settings : Settings
    """

    def __init__(self, networks: Mapping[str, Network], settings: Settings) -> None:
        self.networks, self.settings, self.metrics = networks, settings, Metrics()
        self.worker = Worker({key: network.make_engine for key, network in networks.items()}, self.metrics)
        self.is_draining = False
        self.answering = 0  # requests that have been admitted and are not answered to the end
        self.cut_off = 0  # texts and scores that draining ended
        self._texts = dict.fromkeys(networks, 0)  # waiting and being written, by network
        self._jobs = 0

    def network(self, name: str) -> Network:
        """Returns a network by its key or its name. Refused if there is none."""
        for key, network in self.networks.items():
            if name in (key, network.name):
                return network
        names = ", ".join(
            ", ".join([f"{key} ({network.name})", *network.tuned]) for key, network in self.networks.items()
        )
        raise Refused(404, "model_not_found", f"model: there is no {name[:80]!r}; there are: {names}", "model")

    def model(self, name: str) -> tuple[Network, str]:
        """Returns a network, and the name of the tuned prompt in front of its texts, "" for none.

        `name` is that of the network or of one of its tuned prompts. Refused if there is none.
        """
        with_it = (network for network in self.networks.values() if name in network.tuned)
        network = next(with_it, None)
        return (network, name) if network else (self.network(name), "")

    # ---- texts -------------------------------------------------------------------------------------------------------

    def write(self, network: Network, requests: Sequence[TextRequest], is_stream: bool = True) -> Texts:
        """Begins to write texts. Refused if there is no room for them.

        Without `is_stream` the events of a text arrive when it ends, all together, which costs a fraction of the work.
        """
        longest = (min(each.sampling.max_new_tokens, network.max_length) for each in requests)
        listed = 1 + max((each.sampling.alternatives for each in requests), default=0)
        check_answer(sum(longest) * listed)
        most = network.num_slots + self.settings.queue
        if len(requests) > most:
            raise bad_request(f"a request for {len(requests):,} texts, and the service takes {most:,} at most")
        if self._texts[network.key] + len(requests) > most:
            raise self._is_full()
        return Texts(self, network, requests, time.monotonic() + self.settings.request_seconds, is_stream)

    def count(self, network: Network, change: int) -> None:
        """Takes note of texts that begin to wait, or that have ended."""
        self._texts[network.key] += change

    def _is_full(self) -> Refused:
        return Refused(429, "queue_full", "the queue is full: try again later", retry_after=1)

    # ---- other work --------------------------------------------------------------------------------------------------

    async def do(self, parts: Iterator[Any]) -> Any:
        """Returns the result of a job; see :class:`Job`. Refused if there are too many, or if it took too long."""
        if self._jobs >= self.settings.queue + 1:
            raise self._is_full()
        job = Job(parts, time.monotonic() + self.settings.request_seconds)
        self._jobs += 1
        try:
            self.worker.do(job)
            return await asyncio.wrap_future(job.done)
        except TimeoutError:
            raise self.too_late() from None
        except asyncio.CancelledError:
            if job.done.cancelled() and self.is_draining:
                raise Refused(503, "shutdown", "the service stopped before it was done") from None
            raise
        except KoGPT2Error as error:
            raise bad_request(str(error)) from None
        finally:
            self._jobs -= 1

    def too_late(self) -> Refused:
        """Returns the refusal of a request for which the time was over before anything was done."""
        return Refused(503, "time", f"not done after {self.settings.request_seconds:g} s", retry_after=5)

    # ---- the end -----------------------------------------------------------------------------------------------------

    async def drain(self) -> None:
        """Refuses what is new, and returns when the rest is answered, or its time over and what was written is sent."""
        self.is_draining = True
        deadline = time.monotonic() + self.settings.drain_seconds
        while self.answering and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        if self.answering:
            self.cut_off = sum(self._texts.values()) + self._jobs
            self.worker.cancel_all("shutdown")
            deadline = time.monotonic() + ANSWER_SECONDS
            while self.answering and time.monotonic() < deadline:
                await asyncio.sleep(0.02)


def check_answer(entries: int) -> None:
    """Refused if an answer can get so many tokens and alternatives together that it does not fit into memory."""
    if entries > MOST_ENTRIES:
        raise bad_request(
            f"the answer could have {entries:,} tokens and alternatives and may have {MOST_ENTRIES:,}: ask for fewer "
            "texts, tokens or alternatives at once"
        )


class Texts(Reply):
    """The texts of one request, and what comes of them. Use it with ``with``, or open and close it.

    Parameters
    ----------
    service : Service
    network : Network
    requests : sequence of TextRequest
    deadline : float
        By time.monotonic().
    is_stream : bool
        As in :meth:`Service.write`.
    """

    def __init__(
        self, service: Service, network: Network, requests: Sequence[TextRequest], deadline: float, is_stream: bool
    ) -> None:
        self.network, self._is_stream = network, is_stream
        self._service, self._loop = service, asyncio.get_running_loop()
        self._tickets = [Ticket(network.key, request, deadline, place, self) for place, request in enumerate(requests)]
        self._going = set(self._tickets)
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._kept: list[Event] = []  # by the worker's thread, until a text ends

    def open(self) -> None:
        """Takes places in the queue."""
        self._service.count(self.network, len(self._tickets))
        self._service.worker.add(self._tickets)

    def close(self) -> None:
        """Gives places back, and ends the texts that have not ended."""
        if self._going:
            self._service.worker.cancel(list(self._going), GONE)
            for ticket in list(self._going):
                self._end(ticket)

    def __enter__(self) -> Texts:
        self.open()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def deliver(self, events: Sequence[Event]) -> None:
        """Hands events over to the thread of the event loop."""
        if not self._is_stream:
            self._kept += events
            if not any(map(_ends, events)):
                return
            events, self._kept = self._kept, []
        with suppress(RuntimeError):  # the loop has ended: nobody waits any more
            self._loop.call_soon_threadsafe(self._take, events)

    def _take(self, events: Sequence[Event]) -> None:
        for event in events:
            if _ends(event):
                self._end(event.ticket)
            self._events.put_nowait(event)

    def _end(self, ticket: Ticket) -> None:
        if ticket in self._going:
            self._going.remove(ticket)
            self._service.count(self.network, -1)

    async def events(self) -> AsyncIterator[Event]:
        """Yields what is written, until all texts have ended. Refused if something went wrong.

        Refused, too, if the time was over or the service stopped before any of them had begun.
        """
        left, has_begun = len(self._tickets), False
        while left:
            event = await self._events.get()
            written = event.written
            if written is None:
                raise _refusal(event.error)
            if written.finish_reason == FAILED:
                raise _failure(written.error)
            has_begun = has_begun or written.choice is not None
            left -= written.finish_reason is not None
            if not left and not has_begun:
                raise self._never_began(written.finish_reason or "")
            yield event

    def _never_began(self, reason: str) -> Refused:
        if reason == TIME:
            return self._service.too_late()
        return Refused(503, "shutdown", "the service stopped before it began", retry_after=5)


def _ends(event: Event) -> bool:
    """Returns True for the last event of a text."""
    return event.written is None or bool(event.written.finish_reason)


def _refusal(error: Exception | None) -> Exception:
    if isinstance(error, KoGPT2Error):
        return bad_request(str(error))
    return Refused(500, "failed", str(error))


def _failure(words: str) -> Refused:
    """Returns the refusal of a text that the engine gave up: the settings may have left no token to choose."""
    if words.startswith("the network"):
        return Refused(500, "failed", words)
    return bad_request(words)


async def unless_gone(work: Awaitable[T], receive: Callable[[], Awaitable[Mapping[str, Any]]]) -> T | None:
    """Returns what `work` gives, or None as soon as the client is gone; the work is cancelled then.

    `receive` is that of the request, whose body has been read: what it still can have is the client's end.
    """
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_end_of(receive))
    try:
        await asyncio.wait((working, watching), return_when=asyncio.FIRST_COMPLETED)
        return await working if working.done() else None
    finally:
        for task in (working, watching):
            task.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def _end_of(receive: Callable[[], Awaitable[Mapping[str, Any]]]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
