"""This process among the workers of a run: its rank, their number, and what they do together.

:class:`Worker` is a worker alone, for whom every collective operation is the identity. It is also the one description
of what the program asks of a worker: data and checkpoints are read with it, without MXNet. The workers that Horovod
connects are in :mod:`kogpt2_gluon.training.worker`. A subclass needs no more than a :meth:`Worker.sum`: the other
collective operations on plain data are made of it.
"""

from __future__ import annotations

import json
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float64Array = NDArray[np.float64]


class Worker:
    """Rank 0 of 1, and the base of every other worker.

    Enter it (``with worker:``), so that an error that ends this worker reaches the others. `sum`, `gather`,
    `all_equal`, `broadcast`, `barrier`, `mean_gradients` and `broadcast_parameters` are collective: all workers call
    them in the same order, each with arrays of the same shape, and each waits for the others. They raise KoGPT2Error
    where another worker has ended.

    Attributes
    ----------
    rank, size : int
        This worker's number among all, from 0, and how many there are.
    local_rank, local_size : int
        The same among the workers of this host.
    """

    rank = 0
    size = 1
    local_rank = 0
    local_size = 1

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        """Informs the other workers of an error that is about to end this one."""

    def sum(self, values: ArrayLike) -> Float64Array:
        """Adds up float64 `values` (any shape) over the workers; every worker gets the sum."""
        return np.asarray(values, np.float64)

    def gather(self, values: ArrayLike) -> Float64Array:
        """Collects the float64 `values` (any shape) of every worker: (size, ...), in the order of ranks."""
        mine = np.asarray(values, np.float64)
        table = np.zeros((self.size, *mine.shape))
        table[self.rank] = mine
        return self.sum(table)

    def all_equal(self, values: ArrayLike) -> bool:
        """Returns True, on every worker, if all of them pass the same `values`."""
        everyones = self.gather(values)
        return bool((everyones == everyones[0]).all())

    def broadcast(self, data: Any = None) -> Any:
        """Returns rank 0's `data`, which JSON can hold, on every worker; what the others pass is ignored.

        The text's length travels first, then four of its bytes in each float64 of a sum, in which the others add 0.
        """
        text = json.dumps(data).encode() if self.rank == 0 else b""
        length = int(self.sum([len(text)])[0])
        numbers = np.zeros(-(-length // 4))
        if self.rank == 0:
            numbers[:] = np.frombuffer(text.ljust(4 * len(numbers), b"\0"), "<u4")
        return json.loads(self.sum(numbers).astype("<u4").tobytes()[:length])

    def barrier(self) -> None:
        """Waits until every worker is here."""
        self.sum(np.zeros(0))

    def mean_gradients(self, gradients: dict[str, Any], as_float16: bool = False) -> None:
        """Replaces each gradient (an MXNet array) by its mean over the workers, in place.

        With `as_float16` it travels as float16, divided before the sum: the sum over 64 workers would pass 65,504 where
        a mean is 1,024. A gradient that does not fit float16 becomes infinite on every worker.
        """

    def broadcast_parameters(self, parameters: dict[str, Any]) -> None:
        """Gives every worker rank 0's values of Gluon `parameters`."""

    def waiting(self) -> AbstractContextManager[None]:
        """Surrounds a wait for a collective operation: the end of another worker becomes a KoGPT2Error there."""
        return nullcontext()
