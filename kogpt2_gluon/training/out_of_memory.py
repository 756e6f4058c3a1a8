"""Gives an answer when memory runs out: what a worker needs, what there is, and which setting to lower."""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Iterator

import psutil

from kogpt2_gluon.errors import OutOfMemoryError
from kogpt2_gluon.machine import job
from kogpt2_gluon.machine.limits import Memory, host_memory
from kogpt2_gluon.machine.runtime import context, mx
from kogpt2_gluon.recipe import Recipe
from kogpt2_gluon.training.fitting import advice, needed, operators_on
from kogpt2_gluon.wording import gib

# MXNet's storage on a CPU; CUDA, cuDNN and cuBLAS; C++.
CLEARLY = re.compile(
    r"Failed to allocate CPU Memory|Memory allocation failed|bad_alloc|out of memory|cudaMalloc\w* (retry )?failed"
    r"|cudaErrorMemoryAllocation|(CUDNN|CUBLAS)_STATUS_ALLOC_FAILED",
    re.IGNORECASE,
)
# oneDNN says no more than that, also where its memory was refused. It is that if there is hardly any.
MAYBE = re.compile("could not (create|execute) a primitive")
HARDLY = 0.25  # of what a worker needs
STEP_DOWN = 0.9  # what is advised needs so much less


@contextlib.contextmanager
def memory_named(recipe: Recipe) -> Iterator[None]:
    """Within it, an error for want of memory becomes an OutOfMemoryError, one line with a way out.

    MXNet computes in the background, so the error can come from a later line than the one that needs the memory.
    """
    try:
        yield
        return
    except MemoryError:
        device = "cpu"
    except OSError as error:
        if error.errno != errno.ENOMEM:
            raise
        device = "cpu"
    except mx.MXNetError as error:
        text = str(error)
        on_gpu = "cuda" in text.lower() or "cublas" in text.lower() or "cudnn" in text.lower()
        device = "gpu" if on_gpu else "cpu"
        if not CLEARLY.search(text) and not (MAYBE.search(text) and _hardly_any(recipe)):
            raise
    raise OutOfMemoryError(explain(recipe, device, job.job_size(), *_memory_of(recipe, device)))


def explain(recipe: Recipe, device: str, workers: int, memory: Memory, in_use: int) -> str:
    """Returns one line: what a worker needs by the estimate, what it had, what there is, and which settings would fit.

    `memory` is what it had to fit into, and `in_use` what this worker had of it when no more was to be had.
    """
    sharing = job.local_size() if device == "cpu" and not memory.has_its_own else 1
    room = memory.total // sharing
    there = f"{memory.whose} has {gib(memory.total)}" + (f" for {sharing} workers" if sharing > 1 else "")
    operators = operators_on(recipe, device)
    if operators is None:
        return f"out of memory: {there}, and this worker had {gib(in_use)}"
    need = needed(recipe, operators, device, workers)
    if need <= room:  # something else takes memory, or the estimate is too low
        there += f", {gib(memory.free)} of it free"
        room = min(room, int(STEP_DOWN * need))
    return (
        f"out of memory: a worker needs {gib(need)} by the estimate, this one had {gib(in_use)}, and {there}; "
        f"{advice(recipe, operators, device, workers, room)}"
    )


def _hardly_any(recipe: Recipe) -> bool:
    operators = operators_on(recipe, "cpu")
    return operators is not None and host_memory().free < HARDLY * needed(recipe, operators, "cpu", job.job_size())


def _memory_of(recipe: Recipe, device: str) -> tuple[Memory, int]:
    """Returns the memory of host or GPU, and what this worker has of it."""
    if device == "gpu":
        with contextlib.suppress(mx.MXNetError):
            free, total = mx.context.gpu_memory_info(context(recipe.training.device, job.local_rank() or 0).device_id)
            return Memory(int(total), int(free), "the GPU"), int(total - free)
    return host_memory(), int(psutil.Process().memory_info().rss)
