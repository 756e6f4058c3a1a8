"""The workers of a run that Horovod connects; :class:`kogpt2_gluon.machine.worker.Worker` says what a worker does.

A worker that horovodrun or mpirun started is one of many; any other process is a worker alone. Horovod is imported only
when there is more than this process.

**One worker's fault.** If one worker cannot read a file, all workers must end, with that worker's message and exit
code. It cannot simply leave: Horovod would then fail all operations that the others have under way, many at once, and
MXNet 1.9.1 does not survive that. Each failing operation is appended to one unguarded vector by the thread that it
fails in (``ThreadedEngine::AddToGlobalExceptions``, src/engine/threaded_engine.h). Now and then that corrupts the heap,
so the other workers crash, and the exit code is lost. Therefore every worker is entered (``with worker:``), and a
worker that meets an error still takes part in what the others do next, a step's gradients and a sum, and announces its
end in that sum. The others raise an error there, when they have nothing under way.

Every collective operation on plain data is a sum (:meth:`HorovodWorker._add_up`) or two, and the first mean of
gradients and the broadcast of parameters begin with one. So a worker that ends has to do only two things, whatever the
others are doing: it takes part in the gradients that they may be waiting for, and it announces its end in the head of a
sum, which has the same shape in all operations.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from kogpt2_gluon.errors import KoGPT2Error, PreemptedError
from kogpt2_gluon.machine import runtime
from kogpt2_gluon.machine.job import job_size
from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.machine.worker import Float64Array, Worker
from kogpt2_gluon.training.rollback import RollBack

HEAD = 32  # float64 numbers in the head of a sum, which has this shape whatever operation the sum is part of


class HorovodWorker(Worker):
    """One of several workers.

    It does not use Horovod's own DistributedTrainer: whether its gradients are sums or means after the allreduce
    depends on how Horovod was built (NCCL 2.10 or not). The plain allreduce with ``op=Average`` is a mean in every CUDA
    or CPU build: Horovod 0.28.1 divides in the operation itself (gloo_, mpi_ and nccl_operations.cc).
    """

    def __init__(self) -> None:
        # One thread is enough to start Horovod's operations. With fewer threads, fewer operations fail at the same time
        # when a worker is killed (see above). MXNet's engine reads the variable at its first operation, so not yet.
        os.environ.setdefault("MXNET_CPU_PRIORITY_NTHREADS", "1")
        # In every cycle Horovod's thread talks to those of the other workers, even if there is nothing to add up. At
        # its default of 1 ms that takes a fifth of a core, and on CPUs the worker computes on that core. With 10 ms a
        # result comes about 5 ms later.
        if runtime.installed_wheel() != runtime.CUDA_WHEEL:
            os.environ.setdefault("HOROVOD_CYCLE_TIME", "10")
        import horovod.mxnet as hvd

        _make_nccl_folder()
        hvd.init()
        self._hvd = hvd
        self.rank, self.size = hvd.rank(), hvd.size()
        self.local_rank, self.local_size = hvd.local_rank(), hvd.local_size()
        self._averaged: tuple[dict[str, Any], bool] | None = None  # the last arguments of mean_gradients
        self._before_sum = False  # True from mean_gradients to the next sum
        self._others_know = False  # True if the other workers know that one is about to end

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        """Announces an error in the next sum of the other workers, whatever they do until then; so they end too."""
        if not isinstance(error, Exception) or isinstance(error, (PreemptedError, RollBack)):  # all do, at once
            return
        # After an operation has failed in MXNet, its arrays never reach Horovod: the others would wait for ever.
        if not self._others_know and not isinstance(error, mx.MXNetError):
            with contextlib.suppress(KoGPT2Error, mx.MXNetError):
                if self._averaged and not self._before_sum:
                    self.mean_gradients(*self._averaged)
                self._add_up(np.zeros(0), ending=True)
        # horovodrun sends SIGTERM when the first worker has ended; this one is about to end with its own exit code.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def mean_gradients(self, gradients: dict[str, Any], as_float16: bool = False) -> None:
        if self._averaged is None:
            self.barrier()  # a worker that met an error before its first gradients cannot take part in the mean of them
        self._averaged, self._before_sum = (gradients, as_float16), True
        hvd = self._hvd
        for name, gradient in gradients.items():
            if not as_float16:
                hvd.allreduce_(gradient, op=hvd.Average, name=f"gradient.{name}")
                continue
            half = gradient.astype("float16", copy=False)
            hvd.allreduce_(half, op=hvd.Sum, prescale_factor=1 / self.size, name=f"gradient.{name}")
            if half is not gradient:
                mx.nd.cast(half, dtype=gradient.dtype, out=gradient)

    def sum(self, values: ArrayLike) -> Float64Array:
        total, ending = self._add_up(values)
        self._before_sum = False
        if ending:
            self._others_know = True
            raise _another_ended()
        return total

    def _add_up(self, values: ArrayLike, ending: bool = False) -> tuple[Float64Array, bool]:
        """Returns the sum over the workers, and True if one of them is ending; the sum means nothing then."""
        flat = np.asarray(values, np.float64).ravel()
        head = np.zeros(HEAD)
        head[0], head[1 : 1 + min(flat.size, HEAD - 1)] = ending, flat[: HEAD - 1]
        head = self._allreduce(head, "sum")
        parts = [head[1 : 1 + min(flat.size, HEAD - 1)]]
        if flat.size >= HEAD and not head[0]:
            parts.append(self._allreduce(flat[HEAD - 1 :], "sum.rest"))
        elif flat.size >= HEAD:
            parts.append(np.zeros(flat.size - HEAD + 1))
        return np.concatenate(parts).reshape(np.shape(values)), bool(head[0])

    def _allreduce(self, values: Float64Array, name: str) -> Float64Array:
        array = mx.nd.array(values, dtype="float64", ctx=mx.cpu())
        with self.waiting():
            total: Float64Array = self._hvd.allreduce(array, op=self._hvd.Sum, name=name).asnumpy()
        return total

    def broadcast_parameters(self, parameters: dict[str, Any]) -> None:
        self.barrier()  # a worker that has met an error so far announces it here
        for name, parameter in parameters.items():
            for array in parameter.list_data():
                self._hvd.broadcast_(array, root_rank=0, name=f"parameter.{name}")
        with self.waiting():
            mx.nd.waitall()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Turns an MXNetError of Horovod's into a KoGPT2Error.

        When one worker is gone, Horovod shuts down all of them, and MXNet reports that at the next wait.
        """
        try:
            yield
        except mx.MXNetError as error:
            if "Horovod" not in str(error):
                raise
            self._others_know = True
            raise _another_ended() from None


def _make_nccl_folder() -> None:
    """Makes the folder of NCCL's log: without it there would be no log, and the run folder does not exist yet."""
    if "NCCL_DEBUG_FILE" in os.environ:
        Path(os.environ["NCCL_DEBUG_FILE"]).parent.mkdir(parents=True, exist_ok=True)


def _another_ended() -> KoGPT2Error:
    return KoGPT2Error("another worker has ended; its own message says why")


def start_worker() -> Worker:
    """Returns this process's worker: a HorovodWorker if a launcher set the variables of one, else a Worker alone.

    Enter it (``with worker:``). KoGPT2Error if Horovod does not load.
    """
    if job_size() == 1:
        return Worker()
    try:
        return HorovodWorker()
    except ImportError as error:
        raise KoGPT2Error(
            f"one of several workers, but Horovod's MXNet part does not load here ({error}); run `make horovod`"
        ) from None
