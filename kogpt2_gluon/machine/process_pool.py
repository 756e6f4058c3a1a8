"""Runs tasks in several processes, with results in the order of the tasks."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing import connection
from typing import Any, Callable, TypeVar

from kogpt2_gluon.errors import KoGPT2Error

AHEAD = 4  # tasks submitted for each process: no process waits, and little is held in memory

Task = TypeVar("Task")
Result = TypeVar("Result")
Run = Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[Any]]  # as `map`


@contextmanager
def start_processes(
    processes: int, name: str, start: Callable[..., None] | None = None, arguments: tuple[Any, ...] = ()
) -> Iterator[Run]:
    """Starts processes that work through tasks; yields a lazy `map` with results in the order of the tasks.

    `start` is called with `arguments` in each new process. Messages call a process by `name`. The processes end with
    this one, however it ends. Raises KoGPT2Error if one of them dies.
    """
    # spawn, because a fork would copy the threads and locks that the caller holds
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, spawn, _start, (start, arguments)) as pool:

        def run(work: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
            left = iter(tasks)
            pending: deque[Future[Result]] = deque(pool.submit(work, task) for task in islice(left, AHEAD * processes))
            while pending:
                yield pending.popleft().result()
                pending.extend(pool.submit(work, task) for task in islice(left, 1))

        try:
            yield run
        except BrokenProcessPool:
            raise KoGPT2Error(f"a {name} process died, perhaps because memory ran out: try fewer --processes") from None
        except BaseException:  # nobody needs the results of running tasks any more
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _start(start: Callable[..., None] | None, arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process ends this one
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if start is not None:
        start(*arguments)


def _end_with_parent() -> None:
    """Ends this process when the main one is killed; while it waits for work it would not notice."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)
