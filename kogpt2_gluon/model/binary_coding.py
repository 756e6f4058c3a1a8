"""Tuning of the scales of binary codes alone: AlphaTuning (Kwon et al., arXiv 2210.03858, 2022).

The bits of a quantised matrix (binary_codes.py) are constants, and the scales are all that trains: the first one of
each row or group, or all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from kogpt2_gluon.binary_codes import check_finite, pack, quantise, unpack
from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.model.reparameterised import ReparameterisedMatrix, trained_parameter

FIRST, ALL = "first", "all"  # which scales are trained


class BinaryCodedMatrix(ReparameterisedMatrix):
    """A quantised matrix whose scales are trained.

    Parameters
    ----------
    name : str
        Structural name of the matrix.
    matrix : NDArray
        (out_units, in_units); it is quantised here.
    bits, group_size : int
        As for :func:`quantise`.
    trains : str
        FIRST or ALL: which scales.

    DataError for a matrix with NaN or infinity.
    """

    def __init__(self, name: str, matrix: Any, bits: int, group_size: int, trains: str) -> None:
        super().__init__()
        numbers = matrix.asnumpy().astype(np.float32)
        check_finite(numbers, name)
        codes = quantise(numbers, bits, group_size)
        self._name, self._shape, self._ctx = name, codes.signs.shape, matrix.context
        self._signs = mx.nd.array(codes.signs, dtype="int8", ctx=self._ctx)
        trained = 1 if trains == FIRST else bits
        scales = [mx.nd.array(each, ctx=self._ctx) for each in codes.scales]  # (out_units, groups) each
        self._trained = [trained_parameter(f"{name}.alpha_{k}", scales[k]) for k in range(trained)]
        self._fixed = scales[trained:]
        self.trained = {f"{name}.alpha_{k}": each for k, each in enumerate(self._trained)}
        self.constants = {f"{name}.alpha_{trained + k}": each for k, each in enumerate(self._fixed)}
        self.constants[f"{name}.bits"] = mx.nd.array(pack(codes.signs), ctx=self._ctx)

    def value(self) -> Any:
        scales = [each.data() for each in self._trained] + self._fixed
        parts = [mx.nd.broadcast_mul(self._grouped(k), scale.expand_dims(2)) for k, scale in enumerate(scales)]
        return sum(parts[1:], parts[0]).reshape(self._shape[1:])

    def backward(self, gradient: Any) -> None:
        for k, parameter in enumerate(self._trained):
            signs = self._grouped(k)
            parameter.grad()[:] = (signs * gradient.reshape(signs.shape)).sum(axis=2)

    def load(self, constants: Mapping[str, Any]) -> None:
        super().load(constants)
        packed = self.constants[f"{self._name}.bits"].asnumpy()
        self._signs = mx.nd.array(unpack(packed, self._shape), dtype="int8", ctx=self._ctx)

    def _grouped(self, k: int) -> Any:
        """The signs of bit k, (out_units, groups, group_size) float32."""
        rows, groups = self._trained[0].shape
        return self._signs[k].astype("float32").reshape((rows, groups, -1))
