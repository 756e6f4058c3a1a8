"""Binary codes of a matrix: a few bits for each number, and scales that its row or group of columns shares.

A row w of a matrix, or a group of its columns, is sum_k alpha_k b_k with b_k in {-1, +1}^n (AlphaTuning, Kwon et al.,
arXiv 2210.03858, 2022). The codes are found as in Xu et al., "Alternating Multi-bit Quantization for Recurrent Neural
Networks" (2018): greedily, then alternating between the least-squares scales for the bits and the nearest codes for the
scales. This needs NumPy alone.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kogpt2_gluon.errors import DataError

MAX_BITS = 4  # of packed codes
ROUNDS = 15  # of the alternation
AT_ONCE = 1 << 18  # numbers that are worked on at a time, so that they stay in the processor's cache
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


class PackedCodes(NamedTuple):
    """A quantised matrix with a bit for each sign.

    Attributes
    ----------
    scales : (bits, out_units, groups) float32
    planes : (bits, out_units, ceil(columns / 8)) uint8
        1 for +1; the first column of a row has the lowest bit.
    columns : int
        in_units.
    """

    scales: Float32Array
    planes: NDArray[np.uint8]
    columns: int

    @classmethod
    def of(cls, codes: Codes) -> PackedCodes:
        """Packs codes."""
        return cls(codes.scales, np.packbits(codes.signs > 0, axis=2, bitorder="little"), codes.signs.shape[2])

    @property
    def bits(self) -> int:
        """The bits of a number."""
        return len(self.planes)

    @property
    def group_size(self) -> int:
        """The columns that share scales."""
        return self.columns // self.scales.shape[2]

    @property
    def shape(self) -> tuple[int, int]:
        """The matrix's, (out_units, in_units)."""
        return self.planes.shape[1], self.columns

    @property
    def nbytes(self) -> int:
        """The bytes of bits and scales."""
        return self.planes.nbytes + self.scales.nbytes

    def matrix(self) -> Float32Array:
        """Returns the matrix (out_units, in_units), each number added up from the first scale to the last, in float32.

        The operators add in the same order, and so does the training of scales: the numbers are the same bits.
        """
        rows, groups = self.planes.shape[1], self.scales.shape[2]
        total: Any = 0
        for scales, plane in zip(self.scales, self.planes):
            ones = np.unpackbits(plane, axis=1, count=self.columns, bitorder="little")
            grouped = ones.reshape(rows, groups, -1)
            with np.errstate(over="ignore", invalid="ignore"):  # a file may have any scales
                total = total + np.where(grouped, scales[:, :, None], -scales[:, :, None])
        found: Float32Array = total.reshape(rows, self.columns)
        return found


def check_finite(matrix: NDArray[Any], where: str) -> None:
    """Raises DataError if a matrix has NaN or infinity, of which no scales can be made; `where` names it."""
    bad = int(matrix.size - np.isfinite(matrix).sum())
    if bad:
        raise DataError(
            f"{where}: {bad:,} of its {matrix.size:,} numbers are NaN or infinite, so it cannot be quantised; take an "
            "earlier checkpoint"
        )


def quantise(matrix: Float32Array, bits: int, group_size: int = 0, rounds: int = ROUNDS) -> Codes:
    """Returns the codes of a matrix (out_units, in_units); `group_size` columns share scales, 0: a whole row.

    `rounds` of 0 leaves the greedy codes. The squared error does not grow from round to round.
    """
    rows, columns = matrix.shape
    size = group_size or columns
    assert columns % size == 0, (columns, size)
    groups = matrix.reshape(-1, size).astype(np.float64)  # (rows * groups, size)
    scales, signs = np.empty((bits, len(groups))), np.empty((bits, len(groups), size), np.int8)
    step = max(1, AT_ONCE // size)
    for begin in range(0, len(groups), step):
        part = slice(begin, begin + step)
        scales[:, part], signs[:, part] = _codes_of(groups[part], bits, rounds)
    return Codes(scales.reshape(bits, rows, -1).astype(np.float32), signs.reshape(bits, rows, columns))


def _codes_of(values: NDArray[np.float64], bits: int, rounds: int) -> tuple[NDArray[np.float64], NDArray[np.int8]]:
    """Returns scales (bits, n) and signs (bits, n, size) of n vectors (n, size)."""
    rest, scales = values.copy(), np.empty((bits, len(values)))
    codes = np.zeros(values.shape, np.uint8)  # bit k says if the sign of scale k is +1
    for k in range(bits):
        positive = rest >= 0
        scales[k] = np.abs(rest).mean(axis=1)
        rest -= np.where(positive, scales[k, :, None], -scales[k, :, None])
        codes[positive] |= 1 << k
    signs = 2.0 * (np.arange(2**bits)[:, None] >> np.arange(bits) & 1) - 1  # (2^bits, bits), those of each code
    if rounds:
        masks = [codes == code for code in range(len(signs))]
        counts = np.stack([mask.sum(axis=1, dtype=np.float64) for mask in masks], axis=1)
        sums = np.stack([(values * mask).sum(axis=1) for mask in masks], axis=1)
        scales = _least_squares(counts, sums, signs)
        for _ in range(rounds):
            new, counts, sums = _nearest(values, (signs @ scales).T)
            if np.array_equal(new, codes):
                break
            codes, scales = new, _least_squares(counts, sums, signs)
    return scales, np.stack([(codes >> k & 1).astype(np.int8) * 2 - 1 for k in range(bits)])


def _nearest(
    values: NDArray[np.float64], levels: NDArray[np.float64]
) -> tuple[NDArray[np.uint8], NDArray[np.float64], NDArray[np.float64]]:
    """Returns which of its levels (n, m) is the nearest to each number of n vectors (n, size).

    And how many numbers each level has, and their sum, (n, m) each.
    """
    order = levels.argsort(axis=1, kind="stable")
    ordered = np.take_along_axis(levels, order, axis=1)
    borders = (ordered[:, 1:] + ordered[:, :-1]) / 2
    ranks = np.zeros(values.shape, np.uint8)
    counts, sums = np.zeros((len(levels), levels.shape[1] + 1)), np.zeros((len(levels), levels.shape[1] + 1))
    counts[:, 0], sums[:, 0] = values.shape[1], values.sum(axis=1)  # of numbers of this rank or a higher one
    for rank in range(1, levels.shape[1]):
        is_above = values > borders[:, rank - 1 : rank]
        ranks += is_above
        counts[:, rank], sums[:, rank] = is_above.sum(axis=1), (values * is_above).sum(axis=1)
    of_level = [np.empty_like(levels), np.empty_like(levels)]
    for there, totals in zip(of_level, (counts, sums)):
        np.put_along_axis(there, order, totals[:, :-1] - totals[:, 1:], axis=1)
    return np.take_along_axis(order.astype(np.uint8), ranks, axis=1), of_level[0], of_level[1]


def _least_squares(
    counts: NDArray[np.float64], sums: NDArray[np.float64], signs: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Returns the scales (bits, n) with the least squared error for vectors of so many numbers and sums a code.

    `counts` and `sums` are (n, 2^bits), `signs` is (2^bits, bits).
    """
    gram = np.einsum("nc,ck,cl->nkl", counts, signs, signs)
    # Equal sign vectors make it singular: the smallest solution is as good as any.
    return np.einsum("nkl,nl->kn", np.linalg.pinv(gram, hermitian=True), sums @ signs)


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
