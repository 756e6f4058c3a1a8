"""Restores files whose data Lustre has released to its archive (HSM), many at a time, and records how each ended."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.storage.lustre import Lustre, show
from kogpt2_gluon.wording import Say, counted, gigabytes, rough_duration

BATCH = 16  # files restored at once
ATTEMPTS = 2  # for a restore that ends without data
FIRST_WAIT, LONGEST_WAIT = 0.5, 10.0  # seconds between two looks at the files under way
PATIENCE = 1800.0  # seconds without a restored byte, after which it gives up
SAY_EVERY = 30.0  # seconds between two status lines
LOST = "its data is lost from the archive; write the file again"

Progress = Callable[[int, int], None]  # called with (bytes done, bytes in all)


class DataFile(NamedTuple):
    """A file that a run needs, and its size in bytes."""

    path: Path
    size: int


class Restoring:
    """Restores released files, `batch` at a time.

    Lustre does not report that a restore has failed: the file stays released, and no action is running any more. If
    that is seen twice in a row, the restore has failed. Each file gets ATTEMPTS.
    """

    def __init__(
        self,
        lustre: Lustre,
        files: Sequence[DataFile],
        batch: int = BATCH,
        progress: Progress | None = None,
        say: Say = lambda words: None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        assert batch >= 1
        self._lustre, self._batch, self._progress, self._say = lustre, batch, progress, say
        self._sleep, self._clock = sleep, clock
        self._files = {each.path: each for each in files}
        self._waiting = deque(self._files)
        self._running: dict[Path, int] = {}  # file -> looks in a row that found no action running
        self._attempts = dict.fromkeys(self._files, 0)
        self._moved: dict[Path, int] = {}  # file under way -> bytes restored
        self._done_files = self._done_bytes = 0
        self._failed: dict[Path, str] = {}

    def run(self) -> dict[Path, str]:
        """Restores all files; returns those that failed, each with the reason.

        DataError if not a byte is restored for PATIENCE seconds.
        """
        self._began = self._said = self._advanced = self._clock()
        wait, before = FIRST_WAIT, -1
        try:
            while self._waiting or self._running:
                self._request()
                self._look()
                now = self._clock()
                position = self._position()
                if position != before:
                    wait, before, self._advanced = FIRST_WAIT, position, now
                elif now - self._advanced > PATIENCE:
                    raise DataError(
                        f"{show(next(iter(self._running)))}: nothing was restored for {rough_duration(PATIENCE)} "
                        f"({counted(len(self._running), 'file')} under way); check the data repository, then run again"
                    )
                self._report(now)
                if self._running:
                    self._sleep(wait)
                    wait = min(LONGEST_WAIT, wait * 1.5)
        except KeyboardInterrupt:
            running = counted(len(self._running), "file")
            self._say(f"interrupted; {self._state()}; the servers go on restoring {running}, so run this again later")
            raise
        return self._failed

    def _request(self) -> None:
        """Asks for more files, until `batch` are under way."""
        asked = [self._waiting.popleft() for _ in range(min(self._batch - len(self._running), len(self._waiting)))]
        if not asked:
            return
        for path in asked:
            self._attempts[path] += 1
        self._running.update(dict.fromkeys(asked, 0))
        try:
            self._lustre.restore(asked)
        except DataError as error:
            if len(asked) == 1:
                self._end_attempt(asked[0], str(error))
                return
            for path in asked:  # lfs refuses the whole request because of one bad file
                try:
                    self._lustre.restore([path])
                except DataError as its_error:
                    self._end_attempt(path, str(its_error))

    def _look(self) -> None:
        for path, state in self._lustre.states(list(self._running)).items() if self._running else ():
            if isinstance(state, DataError):
                self._end_attempt(path, str(state))
            elif not state.released:
                self._finish(path)
            elif state.lost:
                self._attempts[path] = ATTEMPTS
                self._end_attempt(path, f"{show(path)}: {LOST}")
            else:
                self._look_at_action(path)

    def _look_at_action(self, path: Path) -> None:
        try:
            action = self._lustre.action(path)
        except DataError as error:
            self._end_attempt(path, str(error))
            return
        if action.name != "NOOP":
            self._running[path] = 0
            self._moved[path] = min(action.moved, self._files[path].size)
            return
        self._running[path] += 1
        if self._running[path] >= 2:  # once proves nothing: it may have ended between the two questions
            self._end_attempt(path, f"{show(path)}: the restore ended without its data; see the data repository's log")

    def _finish(self, path: Path) -> None:
        del self._running[path]
        self._moved.pop(path, None)
        self._done_files += 1
        self._done_bytes += self._files[path].size

    def _end_attempt(self, path: Path, problem: str) -> None:
        del self._running[path]
        self._moved.pop(path, None)
        if self._attempts[path] < ATTEMPTS:
            self._waiting.append(path)
        else:
            self._failed[path] = problem

    def _position(self) -> int:
        """Returns a number that grows with every byte and every attempt: if it stays the same, nothing moves."""
        return self._done_bytes + sum(self._moved.values()) + self._done_files + sum(self._attempts.values())

    def _report(self, now: float) -> None:
        if self._progress is not None:
            self._progress(self._done_bytes + sum(self._moved.values()), self._total())
        if now - self._said >= SAY_EVERY:
            self._said = now
            self._say(self._state())

    def _total(self) -> int:
        return sum(each.size for each in self._files.values())

    def _state(self) -> str:
        done, total = self._done_bytes + sum(self._moved.values()), self._total()
        seconds = (self._clock() - self._began) * (total - done) / done if done else None
        left = "" if seconds is None or done == total else f", about {rough_duration(seconds)} to go"
        return f"{self._done_files:,} of {len(self._files):,} files, {gigabytes(done)} of {gigabytes(total)}{left}"
