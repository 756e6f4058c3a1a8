"""Operator sets for a graph whose backward pass computes each layer again, in place of keeping what is inside of it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.ops.operator_set import OperatorSet
from kogpt2_gluon.ops.stock import StockOps


def recomputing(ops: OperatorSet) -> RecomputingOps:
    """Returns a set like `ops` that marks the operators of its layers: an executor of MXNet computes them again.

    It is for symbols, and for training only. The executor (``Symbol.bind``) gives the backward pass its own copy of
    each marked operator, from the nearest arrays that are not marked: a layer's input. The numbers are those of `ops`
    to the last bit. A CachedOp, which a hybridized block is, ignores the marks.

    Fused operators draw the masks of dropout again from their seed, which is kept. MXNet's own dropout cannot repeat a
    mask: the graph of stock operators takes the masks as arguments, which its ``draw_masks`` fills.
    """
    own = _RecomputingStockOps if isinstance(ops, StockOps) else RecomputingOps
    kind = type(f"Recomputing{type(ops).__name__}", (own, type(ops)), {})
    made: RecomputingOps = kind(ops.precision, ops.dropout, ops.activation)
    return made


MASK = "dropout_mask"  # begins the names of such arguments


def _computed_again() -> AbstractContextManager[Any]:
    scope: AbstractContextManager[Any] = mx.AttrScope(force_mirroring="True")
    return scope


class RecomputingOps(OperatorSet):
    """An operator set of :func:`recomputing`: this class comes before the set's own among the base classes."""

    def draw_masks(self, masks: list) -> None:
        """Draws the dropout of one pass into the graph's arguments of that name, in the order in which it has them."""
        assert not masks

    def norm_linear(self, F: Any, data: Any, norm: Any, layer: Any) -> Any:
        with _computed_again():
            return super().norm_linear(F, data, norm, layer)

    def attention(self, F: Any, qkv: Any, units: int, num_heads: int, seed: Any, site: int) -> Any:
        with _computed_again():
            return super().attention(F, qkv, units, num_heads, seed, site)  # type: ignore[safe-super]

    def linear_dropout_residual(self, F: Any, data: Any, layer: Any, residual: Any, seed: Any, site: int) -> Any:
        with _computed_again():
            return super().linear_dropout_residual(  # type: ignore[safe-super]
                F, data, layer, residual, seed, site
            )

    def feed_forward(self, F: Any, data: Any, norm: Any, hidden_map: Any, out_map: Any, seed: Any, site: int) -> Any:
        with _computed_again():
            out = super().feed_forward(F, data, norm, hidden_map, out_map, seed, site)  # type: ignore[safe-super]
        # The next layer's input. It needs a node of its own: an operator that is not computed again keeps its inputs.
        return F.identity(out)


class _RecomputingStockOps(RecomputingOps):
    """RecomputingOps for MXNet's own operators, whose masks are arguments."""

    def __init__(self, precision: str, dropout: float, activation: str):
        super().__init__(precision, dropout, activation)
        self._dtype = "float16" if precision == "float16" else "float32"
        self._named = 0  # masks that have a name

    def draw_masks(self, masks: list) -> None:
        """Draws what MXNet's dropout would: a mask (uint8) becomes 0 where it drops a number, else 1 or more."""
        if not masks:
            return
        # One array for all of them: as many would be there at once, because MXNet's engine makes them ahead.
        largest = max(mask.size for mask in masks)
        scratch = mx.nd.empty(largest, ctx=masks[0].context, dtype=self._dtype)
        for mask in masks:
            ones = scratch[: mask.size].reshape(mask.shape)
            ones[:] = 1
            with mx.autograd.train_mode():
                mx.nd.Dropout(ones, p=self.dropout, out=ones)
            mx.nd.cast(ones, dtype="uint8", out=mask)

    def _dropout(self, F: Any, data: Any) -> Any:
        if not self.dropout:
            return data
        mask = F.var(f"{MASK}{self._named}", dtype="uint8")
        self._named += 1
        scale = float(np.float32(1) / (np.float32(1) - np.float32(self.dropout)))  # as MXNet computes it
        return self._compute(F, lambda each: each * ((F.cast(mask, self._dtype) > 0) * scale), data)
