"""Chooses the operator set of a run from a recipe's `training.ops` and `training.precision`, and the device."""

from __future__ import annotations

import functools
import os
import sys
from typing import Any, Callable

from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.machine import job
from kogpt2_gluon.ops.build import OperatorsUnavailable, instruction_set, load_cpu_operators
from kogpt2_gluon.ops.fused_cpu import FusedCpuOps
from kogpt2_gluon.ops.fused_cuda import FusedCudaOps, load_cuda_operators
from kogpt2_gluon.ops.operator_set import OperatorSet
from kogpt2_gluon.ops.stock import StockOps


def choose_ops(ops: str, precision: str, ctx: Any, dropout: float) -> OperatorSet:
    """Returns the operator set, its operators compiled and loaded. A line on stderr reports an unexpected choice, once.

    Parameters
    ----------
    ops : str
        'fused', 'stock' (MXNet's own operators), or 'auto': fused if they can be built.
    precision : str
        'float32'; 'bfloat16', for fused operators on CPU; 'float16', for GPUs, and emulated on a CPU.
    ctx : mx.Context
    dropout : float

    Raises RecipeError, with a way out, if this machine cannot run the choice. The parameters belong to the caller, who
    must cast them for float16 on a GPU.
    """
    assert ops in ("auto", "fused", "stock"), ops
    assert precision in ("float32", "bfloat16", "float16"), precision
    return (_on_gpu if ctx.device_type == "gpu" else _on_cpu)(ops, precision, dropout)


def _on_cpu(ops: str, precision: str, dropout: float) -> OperatorSet:
    if precision == "float16":
        if ops == "fused":
            raise RecipeError(
                "training.ops=fused has no float16 on a CPU: take training.precision=bfloat16 or float32, a GPU, or "
                "training.ops=auto, which emulates float16 for tests"
            )
        _say("training.precision=float16 is emulated on a CPU, by rounding: slow, and meant for tests")
        return StockOps("float16_emulated", dropout)
    if ops == "stock":
        if precision == "bfloat16":
            raise RecipeError(
                "training.precision=bfloat16 needs the fused operators: take training.ops=auto, or float32"
            )
        return StockOps(precision, dropout)
    reason = _reason_against(load_cpu_operators)
    if reason is None and precision == "bfloat16" and not instruction_set().has_bfloat16:
        raise RecipeError("training.precision=bfloat16 needs a CPU with AVX-512: take float32")
    if reason is None:
        return FusedCpuOps(precision, dropout)
    if precision == "bfloat16":
        raise RecipeError(f"training.precision=bfloat16 needs the fused operators: {reason}; or take float32")
    if ops == "fused":
        raise RecipeError(f"training.ops=fused: {reason}; or take training.ops=auto, which goes on without")
    _say(f"MXNet's own operators run; the fused ones are about twice as fast. {reason}; then: kogpt2 ops build")
    return StockOps(precision, dropout)


def _on_gpu(ops: str, precision: str, dropout: float) -> OperatorSet:
    if precision == "bfloat16":
        raise RecipeError("training.precision=bfloat16 is for CPUs: MXNet 1.9.1 has none on GPUs; take float16")
    if precision == "float16":
        # Without this MXNet 1.9.1 sums in float16 inside softmax and LayerNorm, as its log says.
        os.environ.setdefault("MXNET_SAFE_ACCUMULATION", "1")
    if ops == "stock":
        return StockOps(precision, dropout)
    reason = _reason_against(load_cuda_operators)
    if reason is None:
        return FusedCudaOps(precision, dropout)
    if ops == "fused":
        raise RecipeError(f"training.ops=fused: {reason}; or take training.ops=auto, which goes on without")
    _say(f"MXNet's own operators run; fused ones are faster. {reason}; then: kogpt2 ops build")
    return StockOps(precision, dropout)


def _reason_against(load: Callable[[], Any]) -> str | None:
    try:
        load()
    except OperatorsUnavailable as error:
        return str(error)
    return None


@functools.cache
def _say(message: str) -> None:
    """A line on stderr, once a process and by one worker of each host: hosts may differ in what they have."""
    if not job.local_rank():
        print(message, file=sys.stderr)
