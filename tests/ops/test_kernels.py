"""The kernels of matrix products: each computes the same."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.ops import kernels
from kogpt2_gluon.ops.kernel_times import (
    SHARED_LEFT,
    SHARED_RIGHT,
    products_of_a_map,
)
from kogpt2_gluon.ops.kernels import (
    PACKED,
)
from tests.ops.kernel_helpers import as_before, force, linear, rounded
from tests.ops.ops_helpers import LIBRARY, array, ctypes

__all__ = ["as_before"]


# Around the borders of tiles (14, 6 and 4 rows; 32, 16 and 8 columns), of the depth (256), of groups of tiles (4 times
# 14 rows, from 336 on) and of the shared part (768).
BORDERS = [55, 63, 64, 65, 255, 256, 257, 300, 336, 391, 392, 393, 513, 767, 769, 800]
SIZES = st.one_of(st.integers(1, 40), st.sampled_from(BORDERS))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), SIZES, SIZES, SIZES, st.sampled_from(["float32", "bfloat16"]), st.booleans())
def test_the_packed_kernels_compute_sums_of_the_right_products(seed, M, N, K, precision, share_left):
    rng = np.random.RandomState(seed)
    data, weight, bias, gradient = array(rng, M, K), array(rng, N, K), array(rng, N), array(rng, M, N)
    force(PACKED)
    for product in products_of_a_map(M, N, K):
        force_one = SHARED_LEFT if share_left else SHARED_RIGHT
        ctypes.CDLL(str(LIBRARY)).kogpt2_set_product_kernel(
            product.layout, *map(ctypes.c_int64, product[1:]), force_one
        )
    actual = linear(data, weight, bias, gradient, precision)
    x, w, g = (
        rounded(each) if precision == "bfloat16" else each.astype(np.float64) for each in (data, weight, gradient)
    )
    expected = [x @ w.T + bias, g @ w, g.T @ x]
    for ours, theirs, depth in zip(actual, expected, (K, N, M)):
        assert np.abs(ours - theirs).max() <= 3e-7 * np.sqrt(depth) * max(10.0, np.abs(theirs).max())


def test_more_rows_and_columns_than_are_packed_at_a_time():
    rng = np.random.RandomState(0)
    data, weight, bias, gradient = array(rng, 1300, 40), array(rng, 1600, 40), array(rng, 1600), array(rng, 1300, 1600)
    expected = [data @ weight.T + bias, gradient @ weight, gradient.T @ data]
    for kernel in (SHARED_LEFT, SHARED_RIGHT):
        for product in products_of_a_map(1300, 1600, 40):
            force(kernel, product=product)
            actual = linear(data, weight, bias, gradient)
            for ours, theirs in zip(actual, expected):
                assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_numbers_that_are_none_reach_the_result(precision):
    """Rounding must not turn NaN into infinity, nor a product with padding spread it."""
    data, weight = np.ones((3, 5), "f"), np.ones((4, 5), "f")
    data[1, 2], data[2, 0] = np.nan, np.inf
    force(PACKED)
    out = linear(data, weight, np.zeros(4, "f"), np.ones((3, 4), "f"), precision)[0]
    assert (out[0] == 5).all() and np.isnan(out[1]).all() and (out[2] == np.inf).all()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_sums_do_not_depend_on_the_number_of_threads(precision):
    rng = np.random.RandomState(1)
    data, weight, bias, gradient = array(rng, 100, 600), array(rng, 400, 600), array(rng, 400), array(rng, 100, 400)
    force(PACKED)  # 400 rows: one thread packs four tiles of the weight's gradient at a time, three threads pack one
    library, results = ctypes.CDLL(str(LIBRARY)), []
    for threads in (1, 2, 3):
        library.kogpt2_set_num_threads(threads)
        results.append(linear(data, weight, bias, gradient, precision))
    library.kogpt2_set_num_threads(kernels.num_threads())
    for other in results[1:]:
        assert all(np.array_equal(one, two) for one, two in zip(results[0], other))


def test_gradients_are_added_where_it_is_requested():
    rng = np.random.RandomState(2)
    data, weight, bias, gradient = array(rng, 50, 300), array(rng, 70, 300), array(rng, 70), array(rng, 50, 70)
    force(PACKED)
    arrays = [mx.nd.array(each) for each in (data, weight, bias)]
    for each in arrays:
        each.attach_grad("add")
    for _ in range(2):
        with mx.autograd.record():
            out = mx.nd.kogpt2_linear(*arrays, req="add,add,add")
        out.backward(mx.nd.array(gradient))
    for ours, theirs in zip((each.grad.asnumpy() for each in arrays), (gradient @ weight, gradient.T @ data)):
        assert np.abs(ours - 2 * theirs).max() <= 1e-5 * np.abs(theirs).max()
