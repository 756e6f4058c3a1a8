"""Products with weights in binary codes, against NumPy in float64; each number that is packed; what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kogpt2_gluon.binary_codes import PackedCodes
from kogpt2_gluon.machine.runtime import mx
from tests.ops.ops_helpers import assert_close, check_refused, needs_bfloat16, threads
from tests.ops.test_ops_decoder import rounded

# (rows, columns, columns of a group): whole rows, padded or not, and groups of 1 to 16 vectors and more
SHAPES = [(1, 1, 1), (5, 7, 7), (3, 300, 300), (9, 768, 768), (4, 256, 16), (6, 96, 6), (7, 130, 65)]
SHAPES += [(2, 768, 128), (3, 1024, 256), (4, 96, 48), (5, 544, 272)]


def random_codes(bits: int, rows: int, columns: int, group_size: int, seed: int = 0) -> PackedCodes:
    rng = np.random.RandomState(seed)
    planes = np.packbits(rng.rand(bits, rows, columns) > 0.5, axis=2, bitorder="little")
    return PackedCodes(rng.randn(bits, rows, columns // group_size).astype("f"), planes, columns)


def exact(codes: PackedCodes) -> np.ndarray:
    """The matrix in float64, number by number."""
    bits, rows, columns = codes.bits, *codes.shape
    matrix = np.zeros((rows, columns))
    for bit in range(bits):
        for row in range(rows):
            for column in range(columns):
                sign = 1 if codes.planes[bit, row, column // 8] >> (column % 8) & 1 else -1
                matrix[row, column] += sign * float(codes.scales[bit, row, column // codes.group_size])
    return matrix


def packed(codes: PackedCodes):
    return mx.nd.kogpt2_pack_codes(
        mx.nd.array(codes.planes, dtype="uint8"), mx.nd.array(codes.scales), columns=codes.columns
    )


def product(data: np.ndarray, codes: PackedCodes, **attributes) -> np.ndarray:
    bias = mx.nd.zeros(codes.shape[0])
    return mx.nd.kogpt2_decode_linear(mx.nd.array(data), packed(codes), bias, **attributes).asnumpy()


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_products(bits, shape):
    """Few rows by the operator for codes, 40 by a restored matrix."""
    codes = random_codes(bits, *shape)
    matrix = exact(codes)
    for rows in (1, 2, 6, 7, 32, 40):
        data = np.random.RandomState(rows).randn(rows, shape[1]).astype("f")
        assert_close(product(data, codes), data.astype(np.float64) @ matrix.T, 3e-6)


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
@pytest.mark.parametrize("shape", SHAPES[1:], ids=str)
def test_each_number_is_that_of_the_codes_to_the_last_bit(bits, shape):
    """Rows of the identity give the columns of the matrix, by both ways."""
    codes = random_codes(bits, *shape, seed=1)
    matrix, one = codes.matrix(), np.eye(shape[1], dtype="f")
    assert_close(matrix, exact(codes), 1e-6)
    parts = [product(one[begin : begin + 32], codes) for begin in range(0, shape[1], 32)]
    np.testing.assert_array_equal(np.concatenate(parts).T, matrix)
    if shape[1] > 32:
        np.testing.assert_array_equal(product(one, codes).T, matrix)


@settings(max_examples=40, deadline=None)
@given(
    bits=st.integers(1, 4),
    rows=st.integers(1, 9),
    groups=st.integers(1, 9),
    size=st.integers(1, 70),
    texts=st.integers(1, 34),
    seed=st.integers(0, 99),
)
def test_any_shape(bits, rows, groups, size, texts, seed):
    codes = random_codes(bits, rows, groups * size, size, seed)
    data = np.random.RandomState(seed).randn(texts, groups * size).astype("f")
    bound = np.abs(data).astype(np.float64) @ np.abs(exact(codes)).T
    assert (abs(product(data, codes) - data.astype(np.float64) @ exact(codes).T) <= 1e-5 * bound + 1e-30).all()


@pytest.mark.parametrize("bits", [1, 3, 4])
@pytest.mark.parametrize("shape", [(7, 65, 65), (51, 512, 512), (10, 512, 64)], ids=str)
def test_a_row_does_not_depend_on_the_others(bits, shape):
    codes = random_codes(bits, *shape)
    data = np.random.RandomState(0).randn(32, shape[1]).astype("f")
    every = product(data, codes)
    for begin, end in ((0, 1), (31, 32), (3, 5), (2, 8), (1, 9), (10, 27)):
        np.testing.assert_array_equal(product(data[begin:end], codes), every[begin:end])
    with threads(3):
        np.testing.assert_array_equal(product(data, codes), every)


@needs_bfloat16
def test_many_rows_in_bfloat16():
    codes = random_codes(3, 50, 128, 128)
    data = np.random.RandomState(0).randn(60, 128).astype("f")
    expected = rounded(data).astype(np.float64) @ rounded(codes.matrix()).T
    assert_close(product(data, codes, precision="bfloat16"), expected)


def changed(codes: PackedCodes, place: int, value: int):
    """Packed codes with another number in their header."""
    values = packed(codes).asnumpy()
    values[:20].view("<i4")[place] = value
    return mx.nd.array(values, dtype="uint8")


def test_what_is_refused():
    codes, data, bias = random_codes(3, 4, 32, 16), mx.nd.ones((1, 32)), mx.nd.zeros(4)
    planes, scales = mx.nd.array(codes.planes, dtype="uint8"), mx.nd.array(codes.scales)
    pack, linear = mx.nd.kogpt2_pack_codes, mx.nd.kogpt2_decode_linear
    for name, call, message in [
        (
            "kogpt2_pack_codes",
            lambda: pack(planes, scales, columns=33),
            r"^planes has shape \(3, 4, 4\), expected \(3, 4, 5\)$",
        ),
        ("kogpt2_pack_codes", lambda: pack(planes, scales, columns=31), "^31 columns are not 2 groups$"),
        (
            "kogpt2_pack_codes",
            lambda: pack(mx.nd.concat(planes, planes, dim=0), scales, columns=32),
            "^planes has shape",
        ),
        ("kogpt2_pack_codes", lambda: pack(planes, scales / 0, columns=32), "^a scale of row 0 is not finite$"),
        (
            "kogpt2_decode_linear",
            lambda: linear(data, packed(codes), mx.nd.zeros(5)),
            "^codes of 4 x 32 are no map from 32 to 5$",
        ),
        (
            "kogpt2_decode_linear",
            lambda: linear(data, packed(codes)[:-1], bias),
            "bytes are no weight of kogpt2_pack_codes$",
        ),
        (
            "kogpt2_decode_linear",
            lambda: linear(data, mx.nd.ones(8), bias),
            "^a weight with one axis is 8 numbers, not codes$",
        ),
        *[
            (
                "kogpt2_decode_linear",
                lambda place=place, value=value: linear(data, changed(codes, place, value), bias),
                "no (weight of|map from)",
            )
            for place, value in [(0, 1), (1, 0), (1, 5), (2, 1 << 30), (3, 48), (4, 0), (4, -16), (4, 5)]
        ],
    ]:
        check_refused(name, call, message)
