"""Binary-coding quantisation, and tuning of its scales alone: AlphaTuning (Kwon et al., arXiv 2210.03858, 2022).

A row w of a matrix, or a group of its columns, is sum_k alpha_k b_k with b_k in {-1, +1}^n. The bits b_k are constants,
and the scales are all that trains: the first one of each row or group, or all of them.

The codes are found as in Xu et al., "Alternating Multi-bit Quantization for Recurrent Neural Networks" (2018):
greedily, then alternating between the least-squares scales for the bits and the nearest codes for the scales.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.model.reparameterised import ReparameterisedMatrix, trained_parameter

FIRST, ALL = "first", "all"  # which scales are trained
ROUNDS = 15  # of the alternation
AT_ONCE = 1 << 22  # numbers whose distances to all codes are in memory at a time
BITS_OF_A_NUMBER = 16  # of a packed float32, which holds whole numbers up to 2^24 exactly

Float32Array = NDArray[np.float32]


class Codes(NamedTuple):
    """A quantised matrix.

    Attributes
    ----------
    scales : (bits, out_units, groups) float32
    signs : (bits, out_units, in_units) int8
        -1 or +1.
    """

    scales: Float32Array
    signs: NDArray[np.int8]

    def matrix(self) -> Float32Array:
        """Returns the matrix (out_units, in_units) that the codes are."""
        bits, rows, columns = self.signs.shape
        groups = self.scales.shape[2]
        grouped = self.signs.reshape(bits, rows, groups, columns // groups)
        return np.einsum("krg,krgn->rgn", self.scales, grouped, dtype=np.float32).reshape(rows, columns)


def quantise(matrix: Float32Array, bits: int, group_size: int = 0, rounds: int = ROUNDS) -> Codes:
    """Returns the codes of a matrix (out_units, in_units); `group_size` columns share scales, 0: a whole row.

    `rounds` of 0 leaves the greedy codes. The squared error does not grow from round to round.
    """
    rows, columns = matrix.shape
    size = group_size or columns
    assert columns % size == 0, (columns, size)
    groups = matrix.reshape(-1, size).astype(np.float64)  # (rows * groups, size)
    scales, signs = np.empty((bits, len(groups))), np.empty((bits, len(groups), size), np.int8)
    step = max(1, AT_ONCE // (size << bits))
    for begin in range(0, len(groups), step):
        part = slice(begin, begin + step)
        scales[:, part], signs[:, part] = _codes_of(groups[part], bits, rounds)
    return Codes(scales.reshape(bits, rows, -1).astype(np.float32), signs.reshape(bits, rows, columns))


def _codes_of(values: NDArray[np.float64], bits: int, rounds: int) -> tuple[NDArray[np.float64], NDArray[np.int8]]:
    """Returns scales (bits, n) and signs (bits, n, size) of n vectors (n, size)."""
    rest, scales, signs = values.copy(), [], []
    for _ in range(bits):
        sign = np.where(rest >= 0, 1.0, -1.0)
        scale = np.abs(rest).mean(axis=1)
        rest -= scale[:, None] * sign
        scales.append(scale)
        signs.append(sign)
    scale, sign = np.stack(scales), np.stack(signs)
    every = np.array(list(itertools.product((-1.0, 1.0), repeat=bits)))  # (2^bits, bits)
    for _ in range(rounds):
        scale = _least_squares(values, sign)
        levels = np.einsum("kn,ck->nc", scale, every)  # (n, 2^bits)
        nearest = np.abs(values[:, :, None] - levels[:, None, :]).argmin(axis=2)  # (n, size)
        new = every[nearest].transpose(2, 0, 1)
        if np.array_equal(new, sign):
            break
        sign = new
    if rounds:
        scale = _least_squares(values, sign)
    return scale, sign.astype(np.int8)


def _least_squares(values: NDArray[np.float64], sign: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the scales (bits, n) with the least squared error for signs (bits, n, size)."""
    gram = np.einsum("kns,lns->nkl", sign, sign)
    right = np.einsum("kns,ns->nk", sign, values)
    # Equal sign vectors make it singular: the smallest solution is as good as any.
    return np.einsum("nkl,nl->kn", np.linalg.pinv(gram, hermitian=True), right)


def pack(signs: NDArray[np.int8]) -> Float32Array:
    """Returns signs as float32 numbers of 16 bits each, all finite and exact, in the order of memory."""
    ones = np.packbits(signs.reshape(-1) > 0)
    if len(ones) % 2:
        ones = np.append(ones, np.uint8(0))
    return ones.view(">u2").astype(np.float32)


def unpack(packed: Float32Array, shape: tuple[int, ...]) -> NDArray[np.int8]:
    """Returns the signs that :meth:`pack` has packed, (shape) int8."""
    ones = np.unpackbits(packed.astype(">u2").view(np.uint8), count=int(np.prod(shape)))
    return (ones.astype(np.int8) * 2 - 1).reshape(shape)


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
    """

    def __init__(self, name: str, matrix: Any, bits: int, group_size: int, trains: str) -> None:
        super().__init__()
        codes = quantise(matrix.asnumpy().astype(np.float32), bits, group_size)
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
