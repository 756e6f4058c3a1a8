"""Chooses the operator set of a run from a recipe's `training.ops` and `training.precision`, and the device."""

from __future__ import annotations

import functools
import os
import sys
from typing import Any, Callable

from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.machine import cuda, job
from kogpt2_gluon.ops.build import OperatorsUnavailable, load_cpu_operators
from kogpt2_gluon.ops.fused_cpu import FusedCpuOps
from kogpt2_gluon.ops.fused_cuda import FusedCudaOps, load_cuda_operators
from kogpt2_gluon.ops.kernel_times import Network
from kogpt2_gluon.ops.kernels import faster_precision, use_default_kernels
from kogpt2_gluon.ops.operator_set import OperatorSet
from kogpt2_gluon.ops.stock import StockOps


def choose_ops(ops: str, precision: str, ctx: Any, dropout: float, activation: str = "gelu") -> OperatorSet:
    """Returns the operator set, its operators compiled and loaded. A line on stderr reports an unexpected choice, once.

    Parameters
    ----------
    ops : str
        'fused', 'stock' (MXNet's own operators), or 'auto': fused if they can be built.
    precision : str
        'float32'; 'bfloat16', for fused operators on CPU; 'float16', for GPUs, and emulated on a CPU. Not 'auto', which
        :func:`resolve_precision` replaces.
    ctx : mx.Context
    dropout : float
    activation : str
        A recipe's `model.activation`.

    Raises RecipeError, with a way out, if this machine cannot run the choice. The parameters belong to the caller, who
    must cast them for float16 on a GPU.
    """
    assert ops in ("auto", "fused", "stock"), ops
    assert precision in ("float32", "bfloat16", "float16"), precision
    return (_on_gpu if ctx.device_type == "gpu" else _on_cpu)(ops, precision, dropout, activation)


def resolve_precision(ops: str, precision: str, ctx: Any, network: Network) -> tuple[str, str]:
    """Returns the precision that a recipe's `training.precision` means here, and for 'auto' the reason; else ''.

    'auto' is, on a CPU, bfloat16 if the products of `network` are measured to be 10% faster in it, else float32; on a
    GPU, float16 if the GPU has tensor cores (compute capability 7.0), else float32.
    """
    if precision != "auto":
        return precision, ""
    if ctx.device_type == "gpu":
        capability = cuda.compute_capability(ctx.device_id)
        if capability and capability >= (7, 0):
            return "float16", "this GPU has tensor cores"
        return "float32", "this GPU has no tensor cores"
    if ops == "stock":
        return "float32", "MXNet's own operators compute in it"
    if _reason_against(load_cpu_operators):
        return "float32", "the fused operators are not available"
    return faster_precision(network)


@functools.cache
def _default_kernels() -> None:
    use_default_kernels()


def _on_cpu(ops: str, precision: str, dropout: float, activation: str) -> OperatorSet:
    if precision == "float16":
        if ops == "fused":
            raise RecipeError(
                "training.ops=fused has no float16 on a CPU: take training.precision=bfloat16 or float32, a GPU, or "
                "training.ops=auto, which emulates float16 for tests"
            )
        _say("training.precision=float16 is emulated on a CPU, by rounding: slow, and meant for tests")
        return StockOps("float16_emulated", dropout, activation)
    if ops == "stock":
        if precision == "bfloat16":
            raise RecipeError(
                "training.precision=bfloat16 needs the fused operators: take training.ops=auto, or float32"
            )
        return StockOps(precision, dropout, activation)
    reason = _reason_against(load_cpu_operators)
    if reason is None:
        _default_kernels()
        return FusedCpuOps(precision, dropout, activation)
    if precision == "bfloat16":
        raise RecipeError(f"training.precision=bfloat16 needs the fused operators: {reason}; or take float32")
    if ops == "fused":
        raise RecipeError(f"training.ops=fused: {reason}; or take training.ops=auto, which goes on without")
    _say(f"MXNet's own operators run; the fused ones are about twice as fast. {reason}; then: kogpt2 ops build")
    return StockOps(precision, dropout, activation)


def _on_gpu(ops: str, precision: str, dropout: float, activation: str) -> OperatorSet:
    if precision == "bfloat16":
        raise RecipeError("training.precision=bfloat16 is for CPUs: MXNet 1.9.1 has none on GPUs; take float16")
    if precision == "float16":
        # Without this MXNet 1.9.1 sums in float16 inside softmax and LayerNorm, as its log says.
        os.environ.setdefault("MXNET_SAFE_ACCUMULATION", "1")
    if ops == "stock":
        return StockOps(precision, dropout, activation)
    reason = _reason_against(load_cuda_operators)
    if reason is None:
        return FusedCudaOps(precision, dropout, activation)
    if ops == "fused":
        raise RecipeError(f"training.ops=fused: {reason}; or take training.ops=auto, which goes on without")
    _say(f"MXNet's own operators run; fused ones are faster. {reason}; then: kogpt2 ops build")
    return StockOps(precision, dropout, activation)


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
