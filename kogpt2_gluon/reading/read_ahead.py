"""Blocks of sequences made by a background thread while the training loop uses earlier ones."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")


class ReadAhead(Generic[Item]):
    """The items of an endless iterator, made in a thread of their own before they are asked for.

    An error of the iterator is raised where its item would come, with its own type, and again at every later call.
    This is not an iterator itself: a generator that delegates to one (``yield from``) closes it together with itself.

    Parameters
    ----------
    items : iterator
        Only the thread uses it.
    waiting : int
        Most items that wait for the consumer; the thread makes one more and holds it until there is room.
    name : str
        The thread's name.
    """

    def __init__(self, items: Iterator[Item], waiting: int, name: str) -> None:
        self._items = items
        self._queue: queue.Queue[Item | Exception] = queue.Queue(maxsize=waiting)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def take(self) -> Item:
        """Returns the next item, and waits for it if need be."""
        assert not self._stop.is_set(), "read after close"
        item = self._queue.get()
        if isinstance(item, Exception):
            self._queue.put(item)  # the thread has ended: a later call must not wait for it
            raise item
        return item

    def close(self) -> None:
        """Ends the thread, and waits for its end."""
        self._stop.set()
        while self._thread.is_alive():
            with contextlib.suppress(queue.Empty):  # a full queue would hold the thread
                self._queue.get(timeout=0.05)

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._queue.put(next(self._items))
        except Exception as error:
            self._queue.put(error)
