"""A polite request to stop, SIGTERM, SIGINT or a file, becomes a flag that the training loop looks at."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any, Optional

LOOK_SECONDS = 2.0  # a look at a shared file system takes a millisecond or so


class StopRequest:
    """While entered, the first SIGTERM or SIGINT makes `wanted` true; a second one acts as it would have without this.

    `stop_file`, if given, does so too once it is there; one left from before is removed on entering. It is how a run is
    stopped by somebody who cannot send a signal to its hosts.
    """

    def __init__(self, stop_file: Optional[Path] = None) -> None:
        self._wanted, self._stop_file, self._looked = False, stop_file, 0.0
        self._previous: dict[int, Any] = {}

    @property
    def wanted(self) -> bool:
        now = time.monotonic()
        if self._stop_file and not self._wanted and now - self._looked >= LOOK_SECONDS:
            self._looked, self._wanted = now, self._stop_file.exists()
        return self._wanted

    def __enter__(self) -> StopRequest:
        if self._stop_file:
            self._stop_file.unlink(missing_ok=True)
        for number in (signal.SIGTERM, signal.SIGINT):
            self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def ask(self) -> None:
        """Asks for the stop from inside of the program."""
        self._wanted = True

    def _note(self, number: int, frame: Any) -> None:
        self.ask()
        self._restore()

    def _restore(self) -> None:
        while self._previous:
            number, handler = self._previous.popitem()
            signal.signal(number, handler)
