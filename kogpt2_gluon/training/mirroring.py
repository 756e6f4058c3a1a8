"""Copies a run's checkpoints to its mirrors while the training goes on.

Each mirror has a thread of its own. After a save it copies the newest checkpoint; a mirror that is slower than the
saves leaves out those in between. What a mirror does never ends or delays a step: a failure is a line in the log, and
the next save tries again. Only at its end does a run wait for its mirrors.
"""

from __future__ import annotations

import os
import re
import shutil
import threading
import time
from collections import defaultdict, deque
from itertools import count
from pathlib import Path
from typing import Callable

from kogpt2_gluon.errors import DamagedError, KoGPT2Error
from kogpt2_gluon.recipe import Recipe
from kogpt2_gluon.runs.checkpoint_folder import BEST, committed, named_in, newest_in
from kogpt2_gluon.runs.mirror import Mirror, Rules, held, words_of
from kogpt2_gluon.wording import counted, gigabytes, rough_duration

SECONDS_AT_A_STOP = 60.0  # that a run which was asked to stop waits: the launcher kills it after 120
SAY_EVERY = 30.0  # seconds between two lines of a run that waits
ATTEMPTS = 3  # to copy a newest checkpoint that is removed before it can be held

_numbers = count(1)  # of the folders ``.mirror-PROCESS-NUMBER``, with hard links to what is being copied
_busy: dict[str, threading.Lock] = defaultdict(threading.Lock)  # a mirror has one writer, also after a rollback


class Mirrors:
    """The mirrors of a run; without ``checkpoint.mirrors`` nothing here does anything.

    Parameters
    ----------
    recipe : Recipe
    begun_as : str
        Names the run; see training/state.py.
    say : function
        Is called with a line for the log, only in the thread that calls a method here.
    is_writer : bool
        True for rank 0; the mirrors of other ranks do nothing.
    """

    def __init__(self, recipe: Recipe, begun_as: str, say: Callable[[str], None], is_writer: bool) -> None:
        self._ckpt_dir, self._say, self._ended = recipe.ckpt_dir, say, False
        self._copiers = [
            _Copier(Mirror(address), recipe, begun_as, self._ckpt_dir / f".mirror-{os.getpid()}-{next(_numbers)}")
            for address in recipe.checkpoint.mirrors
            if is_writer
        ]
        for leftover in self._ckpt_dir.glob(".mirror-*") if is_writer else ():  # of a process that was killed
            if not leftover.name.startswith(f".mirror-{os.getpid()}-"):
                shutil.rmtree(leftover, ignore_errors=True)
        if newest_in(self._ckpt_dir):  # what the start before left undone
            self.announce()

    def announce(self) -> None:
        """Begins to copy the newest checkpoint. Does not wait."""
        for copier in self._copiers:
            copier.announce()

    def report(self) -> None:
        """Writes what happened since the last call to the log. Does not wait."""
        for copier in self._copiers:
            while copier.lines:
                self._say(copier.lines.popleft())

    def finish(self, in_haste: bool, beat: Callable[[], None]) -> None:
        """Waits until every mirror has the newest checkpoint, or has failed once more.

        `in_haste` it waits SECONDS_AT_A_STOP at most. `beat` is called all the time, as a sign of life. A second call
        does nothing.
        """
        if self._ended:
            return
        self._ended = True
        deadline = time.monotonic() + SECONDS_AT_A_STOP if in_haste else float("inf")
        again = time.monotonic() + SAY_EVERY
        for copier in self._copiers:
            if copier.idle and copier.lacks:
                copier.announce()
        while (waiting := [each for each in self._copiers if not each.idle]) and time.monotonic() < deadline:
            waiting[0].wait(0.2)
            beat()
            self.report()
            if time.monotonic() > again:
                again += SAY_EVERY
                self._say(f"waiting for {', '.join(each.name for each in waiting)}")
        self.report()
        for copier in waiting:
            limit = rough_duration(SECONDS_AT_A_STOP)
            self._say(f"WARNING: mirror {copier.name}: not done within {limit}; the next start goes on with it")

    def close(self) -> None:
        """Begins no copy any more; one that is under way ends by itself. Does not wait."""
        for copier in self._copiers:
            copier.close()

    def check(self) -> None:
        """Raises KoGPT2Error if a mirror lacks the newest checkpoint: the files of the run itself are whole."""
        lacking = [f"mirror {copier.name}: {copier.lacks}" for copier in self._copiers if copier.lacks]
        if lacking:
            raise KoGPT2Error(
                f"the training is done and its checkpoints are whole in {self._ckpt_dir}, but a mirror lacks the last "
                f"one ({'; '.join(lacking)}); run again to copy it"
            )


class _Copier:
    """Copies to one mirror, in a thread that starts with the first checkpoint and does not keep the process alive.

    Attributes
    ----------
    name : str
    lines : deque of str
        For the log.
    lacks : str
        Why the newest checkpoint is not there, after the last attempt; "" if it is.
    """

    def __init__(self, mirror: Mirror, recipe: Recipe, begun_as: str, hold: Path) -> None:
        self.name, self.lines, self.lacks = mirror.name, deque[str](), ""
        self._mirror, self._begun_as, self._hold, self._ckpt_dir = mirror, begun_as, hold, recipe.ckpt_dir
        self._rules = Rules(recipe.checkpoint.keep, recipe.checkpoint.keep_every)
        self._changed, self._wanted, self._done = threading.Condition(), 0, 0
        self._thread: threading.Thread | None = None
        self._closed = False
        self._said = ""  # the checkpoint that the log says is there
        self._warned: dict[str, str] = {}  # the last failure that the log has, by what failed

    @property
    def idle(self) -> bool:
        return self._done == self._wanted

    def announce(self) -> None:
        with self._changed:
            self._wanted += 1
            self._changed.notify_all()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=f"mirror {self.name}", daemon=True)
            self._thread.start()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def wait(self, seconds: float) -> None:
        """Waits until it has nothing to do, `seconds` at most."""
        with self._changed:
            self._changed.wait_for(lambda: self.idle, seconds)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or not self.idle)
                wanted = self._wanted
            if self._closed:
                return
            self._attempt(left_out=wanted - self._done - 1)
            with self._changed:
                self._done = wanted
                self._changed.notify_all()

    def _attempt(self, left_out: int) -> None:
        began = time.monotonic()
        try:
            with _busy[self.name]:
                name, sent = self._copy_newest()
        except Exception as error:  # whatever it is, the training goes on
            self.lacks = words_of(error).removeprefix(f"{self.name}: ")
            self._warn("copy", f"the newest checkpoint could not be copied: {self.lacks}; the next save tries again")
            return
        took = f", {gigabytes(sent)} in {rough_duration(time.monotonic() - began)}" if sent else ""
        again = ", and works again" if self._warned.pop("copy", "") else ""
        less = f"; slower than the saves, it has left out {counted(left_out, 'checkpoint')}" if left_out else ""
        if took or again or less or name != self._said:
            self._said = name
            self.lines.append(f"mirror {self.name}: has {name}{took}{again}{less}")
        self.lacks = ""
        try:
            with _busy[self.name]:
                self._mirror.prune({each.name for each in committed(self._ckpt_dir)}, self._rules)
            self._warned.pop("prune", "")
        except Exception as error:
            self._warn("prune", f"old checkpoints cannot be removed: {words_of(error)}")

    def _copy_newest(self) -> tuple[str, int]:
        """Copies the newest checkpoint, then the best one; returns the newest one's name and the bytes sent."""
        for attempts_left in reversed(range(ATTEMPTS)):
            newest = newest_in(self._ckpt_dir)
            if newest is None:
                raise DamagedError(f"{self._ckpt_dir}: its checkpoints are gone")
            try:
                with held(newest, self._hold) as checkpoint:
                    sent = self._mirror.add(checkpoint, self._ckpt_dir, self._begun_as)
                break
            except (FileNotFoundError, DamagedError):
                if newest.exists() or not attempts_left:  # else it was removed, and there is a newer one
                    raise
        assert newest is not None
        best = named_in(self._ckpt_dir, BEST)
        try:
            sent += self._mirror.add_best(self._ckpt_dir, self._hold)
        except (FileNotFoundError, DamagedError):
            if best is None or best.exists():  # else there is a better one, which is announced too
                raise
        return newest.name, sent

    def _warn(self, what: str, words: str) -> None:
        """Puts a failure into the log, unless the last one was of the same kind, whatever file or number it names."""
        kind = re.sub(r"\S*/\S*|\d[\d.,]*", "#", words)
        if kind != self._warned.get(what):
            self._warned[what] = kind
            self.lines.append(f"WARNING: mirror {self.name}: {words}")
