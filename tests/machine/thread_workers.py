"""Workers without Horovod: each in a thread of its own, adding up as Horovod's do."""

from __future__ import annotations

import threading
from typing import Any, Callable

import numpy as np
from numpy.typing import ArrayLike

from kogpt2_gluon.machine.worker import Float64Array, Worker


class ThreadWorker(Worker):
    """One of `size` workers on one host. `sums` counts the sums that it took part in."""

    def __init__(self, rank: int, size: int, barrier: threading.Barrier, table: list[Any]) -> None:
        self.rank, self.size, self.sums = rank, size, 0
        self.local_rank, self.local_size = rank, size
        self._barrier, self._table = barrier, table

    def sum(self, values: ArrayLike) -> Float64Array:
        self.sums += 1
        self._table[self.rank] = np.array(values, np.float64)
        self._barrier.wait()
        assert len({each.shape for each in self._table}) == 1, "workers met in different operations"
        total: Float64Array = np.sum(self._table, axis=0)
        self._barrier.wait()
        return total


def on_workers(size: int, job: Callable[[Any], Any]) -> list[Any]:
    """Returns what `job(worker)` gives on each of `size` workers; raises the first error that ended one."""
    barrier, table = threading.Barrier(size, timeout=60), [None] * size
    results: list[Any] = [None] * size
    errors: list[BaseException] = []

    def work(rank: int) -> None:
        try:
            results[rank] = job(ThreadWorker(rank, size, barrier, table))
        except BaseException as error:
            errors.append(error)
            barrier.abort()

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for error in errors:
        if not isinstance(error, threading.BrokenBarrierError):
            raise error
    assert not errors
    return results
