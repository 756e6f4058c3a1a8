"""LoRA (Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021): W = W0 + (alpha / rank) B A.

A begins with the values of Kaiming's uniform rule and B with zeros, as in peft, so that training begins at W0. The
matrix is merged at any time. The paper's dropout before A has no place in a merged matrix and is left out; peft's
default has none either.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.model.reparameterised import ReparameterisedMatrix, trained_parameter


class LowRankMatrix(ReparameterisedMatrix):
    """W0 + (alpha / rank) B A, of which A (rank, in_units) and B (out_units, rank) are trained.

    Parameters
    ----------
    name : str
        Structural name of the matrix.
    matrix : NDArray
        W0, (out_units, in_units); it is copied.
    rank : int
    alpha : float
    seed : int
        Of A's values.
    """

    def __init__(self, name: str, matrix: Any, rank: int, alpha: float, seed: int) -> None:
        super().__init__()
        self._scale = alpha / rank
        out_units, in_units = matrix.shape
        ctx, bound = matrix.context, 1 / math.sqrt(in_units)
        values = np.random.RandomState(seed).uniform(-bound, bound, (rank, in_units)).astype(np.float32)
        self._a = trained_parameter(f"{name}.lora_A", mx.nd.array(values, ctx=ctx))
        self._b = trained_parameter(f"{name}.lora_B", mx.nd.zeros((out_units, rank), ctx=ctx))
        self.trained = {f"{name}.lora_A": self._a, f"{name}.lora_B": self._b}
        self._frozen = matrix.astype("float32", copy=True)
        self.constants = {f"{name}.frozen": self._frozen}

    def value(self) -> Any:
        return self._frozen + self._scale * mx.nd.dot(self._b.data(), self._a.data())

    def backward(self, gradient: Any) -> None:
        self._a.grad()[:] = self._scale * mx.nd.dot(self._b.data(), gradient, transpose_a=True)
        self._b.grad()[:] = self._scale * mx.nd.dot(gradient, self._a.data(), transpose_b=True)
