"""A polite request to stop: SIGTERM or SIGINT becomes a flag that the training loop looks at."""

from __future__ import annotations

import signal
from typing import Any


class StopRequest:
    """While entered, the first SIGTERM or SIGINT sets `wanted`; a second one acts as it would have without this."""

    def __init__(self) -> None:
        self.wanted = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _note(self, number: int, frame: Any) -> None:
        self.wanted = True
        self._restore()

    def _restore(self) -> None:
        while self._previous:
            number, handler = self._previous.popitem()
            signal.signal(number, handler)
