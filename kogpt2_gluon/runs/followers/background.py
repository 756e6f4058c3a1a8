"""Hands the figures of a run to a follower in a thread of its own, so that a step never waits for it."""

from __future__ import annotations

import contextlib
import functools
import queue
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Callable, NamedTuple, Protocol, TypeVar

from kogpt2_gluon.runs.environment import hide_users

MOST_WAITING = 20_000  # records that wait for a slow follower; later ones are lost, and counted
BATCH = 500  # records that a follower takes at once
LONGEST_PAUSE = 60.0  # seconds between attempts at a follower that fails
CLOSE_SECONDS = 10.0  # that the end of a run waits for its followers, all together

Argument = TypeVar("Argument")
Result = TypeVar("Result")
Say = Callable[[str], None]


class Figures(NamedTuple):
    """A record for a follower: numbers by name, all finite, of a kind ("train", "evaluation") at a step and time."""

    kind: str
    step: int
    time: float
    numbers: Mapping[str, float]


class Follower(Protocol):
    """Takes figures. Any exception means that it has not, and will be given them again."""

    def add(self, records: Sequence[Figures]) -> None:
        """Takes records, in the order of the run."""

    def close(self, done: bool) -> None:
        """Ends: `done` if the run came to its end."""


class Background:
    """A thread that opens a follower, and gives it what :meth:`put` gets, as long as it takes to take it.

    `open_follower` gets a function that takes a line for the log. It may raise: ImportError if its package is not
    installed, and anything else for what may go away.
    """

    def __init__(self, name: str, open_follower: Callable[[Say], Follower]) -> None:
        self.name, self._open = name, functools.partial(open_follower, self._warn)
        self._records: queue.Queue[Figures] = queue.Queue(MOST_WAITING)
        self._taken, self._put = 0, 0
        self._losing = False  # it has been said
        self._notes: queue.SimpleQueue[str] = queue.SimpleQueue()  # the run takes what the thread adds
        self._closing, self._done = threading.Event(), False
        self._gone = False  # it can never take anything
        self._thread = threading.Thread(target=self._work, name=f"follower {name}", daemon=True)
        self._thread.start()

    def put(self, record: Figures) -> None:
        """Hands over a record; never waits."""
        self._put += 1
        try:
            self._records.put_nowait(record)
        except queue.Full:
            if not self._losing and not self._gone:
                self._losing = True
                self._warn(f"{self._records.maxsize:,} records wait for it already; from here on some are lost")

    def take_notes(self) -> list[str]:
        """Returns the lines for the log since the last call."""
        notes = []
        with contextlib.suppress(queue.Empty):
            while True:
                notes.append(self._notes.get_nowait())
        return notes

    def ask_to_close(self, done: bool) -> None:
        """Says that there are no more records."""
        self._done = done
        self._closing.set()

    def close(self, deadline: float) -> None:
        """Waits for the thread until `deadline` (of time.monotonic) at most; what it has not taken by then is lost."""
        self._thread.join(max(0.0, deadline - time.monotonic()))
        missing = self._put - self._taken
        if missing and not self._gone:
            self._warn(f"{missing:,} of {self._put:,} records did not arrive")

    def _warn(self, words: str) -> None:
        self._notes.put(f"WARNING {self.name}: {hide_users(words)}")

    def _work(self) -> None:
        follower = self._try_until_it_works(self._open)
        while follower is not None:
            batch = self._next_batch()
            if not batch:
                break
            if self._try_until_it_works(functools.partial(_done, follower.add, batch)) is None:
                break
            self._taken += len(batch)
        if follower is not None:
            self._try_until_it_works(functools.partial(_done, follower.close, self._done))

    def _next_batch(self) -> list[Figures]:
        """Returns the next records, empty once there are no more."""
        batch: list[Figures] = []
        while len(batch) < BATCH:
            try:
                batch.append(self._records.get(timeout=0.2) if not batch else self._records.get_nowait())
            except queue.Empty:
                if batch or self._closing.is_set():
                    break
        return batch

    def _try_until_it_works(self, work: Callable[[], Result]) -> Result | None:
        """Returns what `work` returns; None if it cannot ever work, or fails while the run ends."""
        pause, failed = 1.0, False
        while True:
            try:
                result = work()
            except ImportError as error:
                self._gone = True
                self._warn(f"{error}; the run goes on without it")
                return None
            except Exception as error:  # of a server, a disk, a library: the run goes on
                ends = self._closing.is_set()
                if not failed:
                    failed = True
                    self._warn(in_words(error) + "; the run goes on, and tries again meanwhile" * (not ends))
                if ends:
                    return None
                self._closing.wait(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
                continue
            if failed:
                self._notes.put(f"{self.name}: works again")
            return result


def in_words(error: Exception) -> str:
    """Returns an error of a client, whose text may be a page, in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def _done(work: Callable[[Argument], None], argument: Argument) -> bool:
    work(argument)
    return True


def close_all(followers: Sequence[Background], done: bool) -> list[str]:
    """Ends all followers within CLOSE_SECONDS; returns the last lines for the log."""
    for follower in followers:
        follower.ask_to_close(done)
    deadline = time.monotonic() + CLOSE_SECONDS
    for follower in followers:
        follower.close(deadline)
    return [note for follower in followers for note in follower.take_notes()]
