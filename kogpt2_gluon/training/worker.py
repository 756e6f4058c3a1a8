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

Every collective operation on plain data is a sum (:meth:`HorovodWorker._add_up`), and the gradients and the broadcast
of parameters have one before or after them. So whichever operation the others are in, the first thing that they wait
for is the short head of a sum, which has the same shape in all of them, and in which the end of a worker can be
announced.
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

HEAD = 32  # float64 numbers in the head of a sum, which has this shape whatever operation the sum is part of


class HorovodWorker(Worker):
    """One of several workers.

    Horovod's own DistributedTrainer is not used: whether its gradients are sums or means after the allreduce depends on
    how Horovod was built (NCCL 2.10 or not). The plain allreduce with ``op=Average`` is a mean in every CUDA or CPU
    build: Horovod 0.28.1 divides in the operation itself (gloo_, mpi_ and nccl_operations.cc).
    """

    def __init__(self) -> None:
        # Of the threads that start Horovod's operations one is enough, and when a worker is killed operations fail in
        # fewer threads at once (above). MXNet's engine reads it with the first operation, which is still to come.
        os.environ.setdefault("MXNET_CPU_PRIORITY_NTHREADS", "1")
        # Every cycle Horovod's thread talks to those of the other workers, also when there is nothing to add up. At its
        # default of 1 ms that takes a fifth of a core, which on CPUs is a worker's own; results wait 5 ms longer so.
        if runtime.installed_wheel() != runtime.CUDA_WHEEL:
            os.environ.setdefault("HOROVOD_CYCLE_TIME", "10")
        import horovod.mxnet as hvd

        _make_nccl_folder()
        hvd.init()
        self._hvd = hvd
        self.rank, self.size = hvd.rank(), hvd.size()
        self.local_rank, self.local_size = hvd.local_rank(), hvd.local_size()
        self._averaged: tuple[dict[str, Any], bool] | None = None  # what mean_gradients was last given
        self._before_sum = False  # whether that was in the step that this worker is still in
        self._others_know = False  # that a worker is about to end

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        """Meets the other workers in their next sum, whatever they do until then, and tells them to end too."""
        if not isinstance(error, Exception) or isinstance(error, PreemptedError):  # all workers stop at one step
            return
        # Arrays of an operation that failed in MXNet do not reach Horovod any more: the others would wait for ever.
        if not self._others_know and not isinstance(error, mx.MXNetError):
            with contextlib.suppress(KoGPT2Error, mx.MXNetError):
                if self._averaged and not self._before_sum:
                    self.mean_gradients(*self._averaged)
                self._add_up(np.zeros(0), ending=True)
        # horovodrun sends SIGTERM when the first worker has ended; this one is on its way, with an exit code to tell.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def mean_gradients(self, gradients: dict[str, Any], as_float16: bool = False) -> None:
        if self._averaged is None:
            self.barrier()  # a worker that met an error in its first step cannot take part in what follows
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
        """Horovod shuts every worker down when one is gone, and MXNet reports that at the next wait."""
        try:
            yield
        except mx.MXNetError as error:
            if "Horovod" not in str(error):
                raise
            self._others_know = True
            raise _another_ended() from None


def _make_nccl_folder() -> None:
    """NCCL writes its log nowhere if the folder is missing, and this is before the run folder is made."""
    if "NCCL_DEBUG_FILE" in os.environ:
        Path(os.environ["NCCL_DEBUG_FILE"]).parent.mkdir(parents=True, exist_ok=True)


def _another_ended() -> KoGPT2Error:
    return KoGPT2Error("another worker has ended; its own message says why")


def start_worker() -> Worker:
    """This process's worker: of Horovod, if a launcher set its variables, else alone. To be entered."""
    if job_size() == 1:
        return Worker()
    try:
        return HorovodWorker()
    except ImportError as error:
        raise KoGPT2Error(
            f"started as one of several workers, but Horovod's MXNet part does not load ({error}); make horovod"
        ) from None
