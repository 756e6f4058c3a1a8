"""Turns a polite request to stop (SIGTERM, SIGINT, SIGHUP or a file) or to save into a flag for the training loop."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Any

from kogpt2_gluon.errors import PreemptedError
from kogpt2_gluon.machine import job
from kogpt2_gluon.training.live_changes import LiveRequests
from kogpt2_gluon.training.rollback import RollBack

LOOK_SECONDS = 2.0  # a look at a shared file system takes a millisecond or so


class StopRequest:
    """Watches for a request to stop while it is entered (``with StopRequest() as stop:``).

    The first SIGTERM, SIGINT or SIGHUP (a dropped ssh session) makes `wanted` true. A second one acts as it would have
    without this class, except for one within ECHO_SECONDS of the first that is not a SIGINT. A SIGHUP that was ignored
    (nohup) stays ignored. SIGUSR1, a scheduler's early warning, requests a save after which the run goes on. After a
    PreemptedError, SIGTERM does nothing any more: the process is about to end, and its exit code must reach whoever
    started it.

    A `stop_file`, if given, makes `wanted` true once it exists, for people who cannot send a signal to the hosts of a
    run. A file left from before is removed on entering, and one that was obeyed on leaving. Under the launcher it is
    the launcher that removes it, because a restart must still obey the file. `wanted` is True from the beginning if a
    request was made before.
    """

    def __init__(self, stop_file: Path | None = None, wanted: bool = False) -> None:
        self._wanted, self._stop_file, self._looked = wanted, stop_file, 0.0
        self._previous: dict[int, Any] = {}
        self._noted = 0.0
        self._save_wanted = False
        self._requests: LiveRequests | None = None

    def watch(self, stop_file: Path | None, requests: LiveRequests | None = None) -> None:
        """Looks for another file from now on, and for requests of `kogpt2 set`."""
        self._stop_file, self._looked = stop_file, 0.0
        self._requests = requests
        self._remove_stop_file()

    def take_save_request(self) -> bool:
        """Returns True once for each request to save and go on, and while requests of `kogpt2 set` are waiting."""
        wanted, self._save_wanted = self._save_wanted, False
        return wanted or bool(self._requests and self._requests.are_waiting())

    @property
    def wanted(self) -> bool:
        """True once a stop was requested. Looks for the stop file, at most every LOOK_SECONDS."""
        now = time.monotonic()
        if self._stop_file and not self._wanted and now - self._looked >= LOOK_SECONDS:
            self._looked, self._wanted = now, self._stop_file.exists()
        return self._wanted

    def __enter__(self) -> StopRequest:
        self._remove_stop_file()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._previous[number] = signal.signal(number, self._note)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            self._previous[signal.SIGHUP] = signal.signal(signal.SIGHUP, self._note)
        self._previous[signal.SIGUSR1] = signal.signal(signal.SIGUSR1, self._note_save)
        return self

    def __exit__(self, kind: Any, error: object, *_: object) -> None:
        if isinstance(error, RollBack):  # the training that goes on obeys it
            error.stop_wanted = self._wanted or bool(self._stop_file and self._stop_file.exists())
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            self._restore(number)
        if kind is not None and issubclass(kind, PreemptedError):
            self._remove_stop_file()
            signal.signal(signal.SIGTERM, _nothing)  # SIG_IGN would be passed on to programs that are started
            job.keep_exit_code()
        else:
            self._restore(signal.SIGTERM)

    def _remove_stop_file(self) -> None:
        if self._stop_file and job.LAUNCH_ID not in os.environ:
            with contextlib.suppress(OSError):
                self._stop_file.unlink()

    def ask(self) -> None:
        """Requests the stop from inside the program."""
        self._wanted = True

    def _note(self, number: int, frame: Any) -> None:
        now = time.monotonic()
        if not self._noted:
            self._noted = now
            self.ask()
            self._restore(signal.SIGINT)
        elif now - self._noted >= job.ECHO_SECONDS:
            self._restore(number)
            os.kill(os.getpid(), number)

    def _note_save(self, number: int, frame: Any) -> None:
        self._save_wanted = True

    def _restore(self, number: int) -> None:
        if number in self._previous:
            signal.signal(number, self._previous.pop(number))


def _nothing(number: int, frame: Any) -> None:
    pass
