"""Binary-coding quantisation against a search over all codes, and the gradients of its scales against NumPy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kogpt2_gluon.binary_codes import pack, quantise, unpack
from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.model.binary_coding import BinaryCodedMatrix


def error(matrix, codes):
    return float(((codes.matrix() - matrix) ** 2).sum())


def test_one_bit_is_the_mean_of_the_magnitudes():
    matrix = np.array([[1.0, -3.0, 2.0, -2.0]], np.float32)
    codes = quantise(matrix, 1)
    assert codes.scales.tolist() == [[[2.0]]] and codes.signs.tolist() == [[[1, -1, 1, -1]]]


@pytest.mark.parametrize("bits", [2, 3])
def test_the_codes_are_close_to_the_best_of_all(bits):
    """All signs of six numbers are tried, each with its least-squares scales."""
    draw = np.random.RandomState(bits)
    for _ in range(5):
        row = draw.randn(6)
        best = np.inf
        rows = [np.array(each) for each in itertools.product((-1.0, 1.0), repeat=6) if each[0] > 0]
        for chosen in itertools.combinations_with_replacement(rows, bits):
            design = np.stack(chosen, axis=1)
            scales = np.linalg.lstsq(design, row, rcond=None)[0]
            best = min(best, ((design @ scales - row) ** 2).sum())
        found = error(row[None], quantise(row[None].astype(np.float32), bits))
        assert best - 1e-6 <= found <= max(3 * best, 0.35 * (row**2).sum() / 4**bits)


@settings(deadline=None, max_examples=30)
@given(
    st.integers(1, 4), st.sampled_from([0, 4, 8]), st.integers(1, 5), st.integers(0, 2**32 - 1), st.sampled_from([0, 1])
)
def test_alternation_does_not_make_it_worse(bits, group_size, rows, seed, degenerate):
    matrix = np.random.RandomState(seed).standard_t(3, (rows, 16)).astype(np.float32)
    matrix = np.sign(matrix) if degenerate else matrix
    greedy, found = quantise(matrix, bits, group_size, rounds=0), quantise(matrix, bits, group_size)
    assert error(matrix, found) <= error(matrix, greedy) * (1 + 1e-5) + 1e-6
    assert found.scales.shape == (bits, rows, 16 // (group_size or 16))
    assert (unpack(pack(found.signs), found.signs.shape) == found.signs).all()
    if bits > 1:
        assert error(matrix, found) <= error(matrix, quantise(matrix, bits - 1, group_size)) * (1 + 1e-5) + 1e-6


@pytest.mark.parametrize(("trains", "bits", "group_size"), [("first", 3, 0), ("all", 2, 4), ("all", 1, 0)])
def test_value_and_gradients(trains, bits, group_size):
    draw = np.random.RandomState(0)
    weights, gradient = draw.randn(5, 8).astype(np.float32), draw.randn(5, 8).astype(np.float32)
    codes = quantise(weights, bits, group_size)
    matrix = BinaryCodedMatrix("m", mx.nd.array(weights), bits, group_size, trains)
    np.testing.assert_allclose(matrix.value().asnumpy(), codes.matrix(), rtol=1e-5, atol=1e-6)
    trained = 1 if trains == "first" else bits
    assert list(matrix.trained) == [f"m.alpha_{k}" for k in range(trained)]
    matrix.backward(mx.nd.array(gradient))
    size = group_size or 8
    for k in range(trained):
        product = (gradient * codes.signs[k]).reshape(5, 8 // size, size).sum(axis=2)
        np.testing.assert_allclose(matrix.trained[f"m.alpha_{k}"].grad().asnumpy(), product, rtol=1e-4, atol=1e-5)
    other = BinaryCodedMatrix("m", mx.nd.array(draw.randn(5, 8)), bits, group_size, trains)
    other.load({name: array.copy() for name, array in matrix.constants.items()})
    for name, parameter in other.trained.items():
        parameter.set_data(matrix.trained[name].data())
    assert (other.value().asnumpy() == matrix.value().asnumpy()).all()
