"""Model FLOPs utilisation (Chowdhery et al., PaLM, 2022): the share of the machine's peak that a training uses."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from kogpt2_gluon.estimate import gpu_named
from kogpt2_gluon.machine.cuda import list_gpus
from kogpt2_gluon.ops.kernels import best_gflops

if TYPE_CHECKING:
    from kogpt2_gluon.training.state import TrainingRun


def utilisation(run: TrainingRun, tokens_per_second: float) -> float | None:
    """Returns the network's own operations per second over the peak of all workers; None if that is not known.

    What is computed again to save memory does not count. The peak is the data sheet's of a GPU, and on a CPU the best
    rate at which products of a network were measured (ops/kernels.py), so 1 would be a step that consists of nothing
    but products.
    """
    peak = _peak_flops(run.ctx, run.products)
    return run.objective.flops_per_token * tokens_per_second / (peak * run.worker.size) if peak else None


def _peak_flops(ctx: Any, products: Any) -> float:
    """Operations per second of one worker's device; 0 if unknown."""
    if ctx.device_type == "gpu":
        return _peak_of_gpu(ctx.device_id, products.precision)
    kernels = products.kernels
    if not (kernels and kernels.gflops):
        return 0.0
    return max(kernels.gflops, best_gflops(kernels.processor, kernels.threads, kernels.precision)) * 1e9


@functools.cache
def _peak_of_gpu(number: int, precision: str) -> float:
    gpus, _ = list_gpus()
    name = gpus[number].name if number < len(gpus) else ""
    device = gpu_named(name)
    if device is None:
        return 0.0
    return (device.peak_tflops if precision == "float32" else device.half_tflops) * 1e12
