"""The numbers that the workers add up in each step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kogpt2_gluon.machine.worker import Worker


@dataclass(frozen=True)
class StepSums:
    """One worker's part of a step's sums, and, after :meth:`over`, the sums themselves, the same on every worker.

    Everything travels in one vector, because each sum over the workers makes all of them wait for the slowest.

    Attributes
    ----------
    loss, parts : float
        The summed loss, and the number of tokens, or rows of a task, that it was summed over.
    squared_norm : float
        A worker's part is its own ``squared_norm / size``, so that the sum over the workers is the mean of their
        values. All workers hold the same mean gradients, but on GPUs the last bits of the norm that each computes from
        them differ. The mean is one number for all, and all decide by it.
    stop_requests : float
        1 on a worker that was asked to stop, else 0; so the sum is above 0 if any worker was asked.
    save_requests : float
        Likewise, on a worker that was asked to save its state and go on.
    notices : (n,) float64
        The reader's own numbers; n is the same on every worker. See :meth:`Reader.notices`.
    """

    loss: float
    parts: float
    squared_norm: float
    stop_requests: float
    save_requests: float
    notices: NDArray[np.float64]

    def pack(self) -> NDArray[np.float64]:
        """One vector of float64, (5 + n,): the numbers in the order of the fields, then the notices."""
        numbers = [self.loss, self.parts, self.squared_norm, self.stop_requests, self.save_requests]
        return np.concatenate([numbers, self.notices])

    @classmethod
    def unpack(cls, vector: NDArray[np.float64]) -> StepSums:
        """The sums that :meth:`pack` made a vector of."""
        loss, parts, squared_norm, stop_requests, save_requests = vector[:5].tolist()
        return cls(loss, parts, squared_norm, stop_requests, save_requests, notices=vector[5:])

    def over(self, worker: Worker) -> StepSums:
        """The sums over all workers. Every worker calls this in the same step, and waits for the others."""
        return StepSums.unpack(worker.sum(self.pack()))
