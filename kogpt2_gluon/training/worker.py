"""This process among the workers of a run: rank, size, and the few collective operations training needs.

Started by horovodrun or mpirun, a worker is one of many; otherwise it is alone and every operation is the identity.
Horovod is imported only when there is more than this process.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np

from kogpt2_gluon.errors import KoGPT2Error
from kogpt2_gluon.runtime import job_size, mx


class Worker:
    """Rank 0 of 1; see :class:`HorovodWorker` for the others."""

    rank = 0
    size = 1
    local_rank = 0
    local_size = 1

    def mean_gradients(self, gradients: dict[str, Any]) -> None:
        """Replaces each gradient by its mean over the workers, in place."""

    def sum(self, values: np.ndarray) -> np.ndarray:
        """The sum of float64 `values` (any shape) over the workers; every worker gets it, and waits for it."""
        return values

    def broadcast_parameters(self, parameters: dict[str, Any]) -> None:
        """Gives every worker rank 0's values."""

    def waiting(self) -> AbstractContextManager[None]:
        """Around a wait for a collective operation: the end of another worker becomes a KoGPT2Error."""
        return nullcontext()


class HorovodWorker(Worker):
    """One of several workers.

    Horovod's own DistributedTrainer is not used: whether its gradients are sums or means after the allreduce depends on
    how Horovod was built (NCCL 2.10 or not). The plain allreduce with ``op=Average`` is a mean in every CUDA or CPU
    build: Horovod 0.28.1 divides in the operation itself (gloo_, mpi_ and nccl_operations.cc).
    """

    def __init__(self) -> None:
        import horovod.mxnet as hvd

        hvd.init()
        self._hvd = hvd
        self.rank, self.size = hvd.rank(), hvd.size()
        self.local_rank, self.local_size = hvd.local_rank(), hvd.local_size()

    def mean_gradients(self, gradients: dict[str, Any]) -> None:
        for name, gradient in gradients.items():
            self._hvd.allreduce_(gradient, op=self._hvd.Average, name=f"gradient.{name}")

    def sum(self, values: np.ndarray) -> np.ndarray:
        array = mx.nd.array(values, dtype="float64", ctx=mx.cpu())
        with self.waiting():
            total: np.ndarray = self._hvd.allreduce(array, op=self._hvd.Sum, name="sum").asnumpy()
        return total

    def broadcast_parameters(self, parameters: dict[str, Any]) -> None:
        for name, parameter in parameters.items():
            for array in parameter.list_data():
                self._hvd.broadcast_(array, root_rank=0, name=f"parameter.{name}")
        with self.waiting():
            mx.nd.waitall()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Horovod shuts every worker down when one is gone, and MXNet reports that at the next wait."""
        try:
            yield
        except mx.MXNetError as error:
            if "Horovod" not in str(error):
                raise
            raise KoGPT2Error("another worker has ended; its own message says why") from None


def start_worker() -> Worker:
    """This process's worker: of Horovod, if a launcher set its variables, else alone."""
    if job_size() == 1:
        return Worker()
    try:
        return HorovodWorker()
    except ImportError as error:
        raise KoGPT2Error(
            f"started as one of several workers, but Horovod's MXNet part does not load ({error}); make horovod"
        ) from None
