"""Every CUDA kernel against float64 NumPy, on the host thread by thread and, where there is one, on a GPU."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.ops.cuda_kernel_helpers import ADD, NULL, WRITE, Device, Host, assert_close, philox_mask, training_seed

pytest_plugins = ["tests.ops.cuda_kernel_fixtures"]
TYPES = {"float32": 0, "float16": 1}
# Rows and columns: one element, fewer than a pack, whole packs, a tail, more than a tile of 256, more than 32 rows.
SIZES = [(1, 1), (3, 7), (5, 8), (33, 264), (70, 771)]
SEED = training_seed(11)


@pytest.fixture(params=list(TYPES))
def dtype(request: pytest.FixtureRequest) -> np.dtype:
    return np.dtype(request.param)


def random(shape: tuple, dtype: np.dtype, number: int, scale: float = 1.0) -> np.ndarray:
    return (np.random.RandomState(number).standard_normal(shape) * scale).astype(dtype)


def reference_gelu(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """gelu and its derivative, float64."""
    cumulative = 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
    return x * cumulative, cumulative + x * np.exp(-x * x / 2) / math.sqrt(2 * math.pi)


# ---- dropout -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.999999])
@pytest.mark.parametrize(("rows", "columns"), [(6, 8), (3, 37), (40, 520)])
def test_mask_is_philox(device: Device, dtype: np.dtype, rows: int, columns: int, probability: float) -> None:
    ones, zeros = device.put(np.ones((rows, columns), dtype)), device.put(np.zeros((rows, columns), dtype))
    out = device.empty((rows, columns), dtype)
    dropout = device.dropout(SEED, probability, 7)
    bias = device.put(np.zeros(columns, dtype))
    device.call("bias_dropout_residual_forward", ones, bias, zeros, out, rows, columns, TYPES[dtype.name], dropout)
    expected = philox_mask(SEED, probability, 7, rows, columns)
    assert np.array_equal(out.get(), expected.astype(np.float32).astype(dtype))


def test_masks_differ_by_site_and_seed_and_prediction_drops_nothing(device: Device) -> None:
    def mask(seed: np.ndarray, site: int) -> np.ndarray:
        ones, zeros = device.put(np.ones((8, 64), np.float32)), device.put(np.zeros((8, 64), np.float32))
        out = device.empty((8, 64), np.float32)
        bias = device.put(np.zeros(64, np.float32))
        dropout = device.dropout(seed, 0.3, site)
        device.call("bias_dropout_residual_forward", ones, bias, zeros, out, 8, 64, 0, dropout)
        return out.get()

    first = mask(SEED, 0)
    high_bit = SEED.copy()
    high_bit[63] = 2 - high_bit[63]
    assert not np.array_equal(first, mask(SEED, 1))
    assert not np.array_equal(first, mask(high_bit, 0))
    assert np.array_equal(first, mask(SEED, 0))
    assert (mask(np.ones(64, np.float32), 0) == 1).all()


# ---- bias + GELU -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("probability", [None, 0.2])
@pytest.mark.parametrize(("rows", "columns"), SIZES)
def test_bias_gelu(
    device: Device, dtype: np.dtype, rows: int, columns: int, probability: float | None, shift: int
) -> None:
    data, bias = random((rows, columns), dtype, 1, 2.0), random((columns,), dtype, 2)
    gradient, before = random((rows, columns), dtype, 3), random((columns,), dtype, 4)
    mask = 1.0 if probability is None else philox_mask(SEED, probability, 5, rows, columns)
    dropout = device.dropout(None if probability is None else SEED, probability or 0, 5)
    value, slope = reference_gelu(data.astype(np.float64) + bias)

    arrays = [device.put(a, shift=shift) for a in (data, bias, gradient)]
    out = device.empty((rows, columns), dtype, shift)
    device.call("bias_gelu_forward", *arrays[:2], out, rows, columns, TYPES[dtype.name], dropout)
    assert_close(out.get(), mask * value, "out")

    expected = mask * gradient.astype(np.float64) * slope
    data_gradient, bias_gradient = device.empty((rows, columns), dtype, shift), device.put(before, shift=shift)
    workspace = device.workspace("bias_gelu", rows, columns)
    sizes = (rows, columns, TYPES[dtype.name], dropout, workspace)
    device.call("bias_gelu_backward", *arrays, data_gradient, bias_gradient, WRITE, ADD, *sizes)
    assert_close(data_gradient.get(), expected, "data gradient")
    assert_close(bias_gradient.get(), before + expected.sum(0), "bias gradient, added")
    workspace.get()

    device.call("bias_gelu_backward", *arrays, data_gradient, None, ADD, NULL, *sizes)  # on top of what is there
    doubled = expected.astype(dtype).astype(np.float64) + expected
    assert_close(data_gradient.get(), doubled, "data gradient, added", relative=1e-5 if dtype == np.float32 else 1e-3)
    device.call("bias_gelu_backward", *arrays, None, bias_gradient, NULL, WRITE, *sizes)
    assert_close(bias_gradient.get(), expected.sum(0), "bias gradient")
    device.call("bias_gelu_backward", *arrays, arrays[2], None, WRITE, NULL, *sizes)
    assert_close(arrays[2].get(), expected, "data gradient over the gradient")
    device.call("bias_gelu_forward", *arrays[:2], arrays[0], *sizes[:4])
    assert_close(arrays[0].get(), mask * value, "out over the data")


def test_gelu_over_its_range(device: Device) -> None:
    x = np.concatenate([np.linspace(-12, 12, 9601), [0.0, -0.0, 1e-20, -80.0, 80.0, 300.0, -300.0]]).astype(np.float32)
    value, slope = reference_gelu(x.astype(np.float64))
    data, bias, one = device.put(x), device.put(np.zeros_like(x)), device.put(np.ones_like(x))
    out, gradient = device.empty(x.shape, np.float32), device.empty(x.shape, np.float32)
    device.call("bias_gelu_forward", data, bias, out, 1, x.size, 0, None)
    device.call("bias_gelu_backward", data, bias, one, gradient, None, WRITE, NULL, 1, x.size, 0, None, None)
    # erf's approximation is within 1.5e-7, and half of it is multiplied with x.
    assert np.abs(out.get() - value).max() <= 1e-6 + 3e-7 * 12
    assert (np.abs(out.get() - value) <= 4e-7 * np.maximum(1, np.abs(x))).all()
    assert np.abs(gradient.get() - slope).max() <= 1e-6


# ---- bias + dropout + residual -----------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("probability", [None, 0.2])
@pytest.mark.parametrize(("rows", "columns"), SIZES)
def test_bias_dropout_residual(
    device: Device, dtype: np.dtype, rows: int, columns: int, probability: float | None, shift: int
) -> None:
    data, bias = random((rows, columns), dtype, 1), random((columns,), dtype, 2)
    residual, gradient = random((rows, columns), dtype, 3), random((rows, columns), dtype, 4)
    mask = np.float64(1) if probability is None else philox_mask(SEED, probability, 2, rows, columns)
    dropout = device.dropout(None if probability is None else SEED, probability or 0, 2)
    wide = gradient.astype(np.float64)

    arrays = [device.put(a, shift=shift) for a in (data, bias, residual)]
    sizes = (rows, columns, TYPES[dtype.name], dropout)
    expected = residual + mask * (data.astype(np.float64) + bias)
    for place in (device.empty((rows, columns), dtype, shift), arrays[2]):
        device.call("bias_dropout_residual_forward", *arrays, place, *sizes)
        assert_close(place.get(), expected, "out")

    source, workspace = device.put(gradient, shift=shift), device.workspace("bias_dropout_residual", rows, columns)
    data_gradient, bias_gradient = (device.empty(a.shape, dtype, shift) for a in (data, bias))
    residual_gradient = device.put(residual, shift=shift)
    arrays = [source, data_gradient, bias_gradient, residual_gradient]
    device.call("bias_dropout_residual_backward", *arrays, WRITE, WRITE, ADD, *sizes, workspace)
    assert_close(data_gradient.get(), mask * wide, "data gradient")
    assert_close(bias_gradient.get(), (mask * wide).sum(0), "bias gradient")
    assert_close(residual_gradient.get(), residual + wide, "residual gradient, added")
    workspace.get()
    device.call("bias_dropout_residual_backward", source, source, None, None, WRITE, NULL, NULL, *sizes, None)
    assert_close(source.get(), mask * wide, "data gradient over the gradient")


# ---- LayerNorm ---------------------------------------------------------------------------------------------------


# After the first five: rows that a warp's registers do not hold; more rows than blocks; wider than one block can.
@pytest.mark.parametrize(
    ("rows", "columns"), [(1, 8), (3, 7), (9, 264), (40, 771), (5, 768), (6, 1101), (258, 2049), (2, 8209)]
)
def test_layer_norm(device: Device, dtype: np.dtype, rows: int, columns: int) -> None:
    data, gradient = random((rows, columns), dtype, 1) + dtype.type(3), random((rows, columns), dtype, 2)
    gamma, beta = random((columns,), dtype, 3), random((columns,), dtype, 4)
    wide = data.astype(np.float64)
    mean, deviation = wide.mean(1, keepdims=True), np.sqrt(wide.var(1, keepdims=True) + 1e-5)
    normal = (wide - mean) / deviation
    d = gradient.astype(np.float64) * gamma
    expected = (d - d.mean(1, keepdims=True) - normal * (d * normal).mean(1, keepdims=True)) / deviation

    arrays = [device.put(a) for a in (data, gamma, beta)]
    out, saved = device.empty(data.shape, dtype), [device.empty((rows,), np.float32) for _ in range(2)]
    sizes = (rows, columns, TYPES[dtype.name])
    device.call("layer_norm_forward", *arrays, out, *saved, 1e-5, *sizes)
    assert_close(out.get(), normal * gamma + beta, "out")
    assert_close(saved[0].get(), mean[:, 0], "mean")
    assert_close(saved[1].get(), 1 / deviation[:, 0], "inverse_std")

    source, workspace = device.put(gradient), device.workspace("layer_norm", rows, columns)
    inputs = (*arrays[:2], source, *saved)
    gamma_gradient, beta_gradient = device.put(gamma), device.empty((columns,), dtype)
    for place in (device.empty(data.shape, dtype), source):  # the second time over the gradient itself
        made = (place, gamma_gradient, beta_gradient, WRITE, ADD, WRITE)
        if place is source:
            made = (place, None, None, WRITE, NULL, NULL)
        device.call("layer_norm_backward", *inputs, *made, *sizes, workspace)
        assert_close(place.get(), expected, "data gradient", relative=5e-6)
    sums = (gradient.astype(np.float64) * normal).sum(0)
    assert_close(gamma_gradient.get(), gamma + sums, "gamma gradient, added", relative=5e-6)
    assert_close(beta_gradient.get(), gradient.astype(np.float64).sum(0), "beta gradient")
    workspace.get()


def test_layer_norm_keeps_its_digits_far_from_zero(device: Device) -> None:
    data = (np.random.RandomState(5).standard_normal((4, 768)) + 1000).astype(np.float32)
    wide = data.astype(np.float64)
    ones, zeros = device.put(np.ones(768, np.float32)), device.put(np.zeros(768, np.float32))
    out, saved = device.empty(data.shape, np.float32), [device.empty((4,), np.float32) for _ in range(2)]
    device.call("layer_norm_forward", device.put(data), ones, zeros, out, *saved, 1e-5, 4, 768, 0)
    # A float32 mean near 1000 is off by up to 3e-5, and so is the result.
    expected = (wide - wide.mean(1, keepdims=True)) / np.sqrt(wide.var(1, keepdims=True) + 1e-5)
    assert np.abs(out.get() - expected).max() <= 7e-5


# ---- causal softmax ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("probability", [None, 0.2])
@pytest.mark.parametrize(
    ("batch", "queries", "keys"), [(1, 1, 1), (3, 5, 5), (2, 3, 9), (2, 24, 24), (1, 1, 40), (1, 3, 1040), (1, 2, 1101)]
)
def test_causal_softmax(
    device: Device, dtype: np.dtype, batch: int, queries: int, keys: int, probability: float | None
) -> None:
    shape, scale = (batch, queries, keys), 0.125
    scores, gradient = random(shape, dtype, 1, 12.0), random(shape, dtype, 2)
    seen = np.arange(keys) <= keys - queries + np.arange(queries)[:, None]
    exponents = np.exp(np.where(seen, scale * scores.astype(np.float64), -np.inf))
    p = exponents / exponents.sum(-1, keepdims=True)
    mask = (
        np.ones(shape)
        if probability is None
        else philox_mask(SEED, probability, 9, batch * queries, keys).reshape(shape)
    )
    dropout = device.dropout(None if probability is None else SEED, probability or 0, 9)
    d = mask * gradient.astype(np.float64)
    expected = scale * p * (d - (d * p).sum(-1, keepdims=True))

    hidden = [np.where(seen, a, np.nan).astype(dtype) for a in (scores, gradient)]  # nobody looks there
    source, upstream = (device.put(a) for a in hidden)
    out, log_sum = device.empty(shape, dtype), device.empty(shape[:2], np.float32)
    sizes = (scale, batch, queries, keys, TYPES[dtype.name], dropout)
    device.call("causal_softmax_forward", source, out, log_sum, *sizes)
    assert_close(out.get(), mask * p, "out")
    assert not out.get()[np.broadcast_to(~seen, shape)].any()
    assert_close(log_sum.get(), np.log(exponents.sum(-1)), "log_sum")

    before = device.put(gradient)
    device.call("causal_softmax_backward", source, upstream, log_sum, before, ADD, *sizes)
    assert_close(before.get(), gradient + expected, "gradient, added")
    device.call("causal_softmax_backward", source, upstream, log_sum, None, NULL, *sizes)
    device.call("causal_softmax_backward", source, upstream, log_sum, upstream, WRITE, *sizes)
    assert_close(upstream.get(), expected, "gradient over the gradient", relative=5e-6)
    device.call("causal_softmax_forward", source, source, log_sum, *sizes)
    assert_close(source.get(), mask * p, "out over the scores")


# ---- cross-entropy -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "classes"), [(1, 1), (5, 7), (3, 2049), (2, 50000)])
def test_cross_entropy(device: Device, dtype: np.dtype, rows: int, classes: int) -> None:
    logits = random((rows, classes), dtype, 1, 4.0) + dtype.type(30)
    labels = np.random.RandomState(2).randint(0, classes, rows).astype(np.int32)
    labels[0], upstream = classes - 1, random((rows,), np.dtype(np.float32), 3)
    wide = logits.astype(np.float64)
    log_sums = np.log(np.exp(wide).sum(1))
    is_label = np.arange(classes) == labels[:, None]
    expected = upstream[:, None] * (np.exp(wide - log_sums[:, None]) - is_label)

    source, places = device.put(logits), device.put(labels)
    loss, log_sum = (device.empty((rows,), np.float32) for _ in range(2))
    sizes = (rows, classes, TYPES[dtype.name])
    device.call("cross_entropy_forward", source, places, loss, log_sum, *sizes)
    assert_close(log_sum.get(), log_sums, "log_sum", relative=1e-6)
    assert np.abs(loss.get() - (log_sums - wide[is_label])).max() <= 1e-6 * np.abs(log_sums).max()

    gradient, from_above = device.put(logits), device.put(upstream)
    device.call("cross_entropy_backward", source, places, log_sum, from_above, gradient, ADD, *sizes)
    assert_close(gradient.get(), wide + expected, "gradient, added")
    device.call("cross_entropy_backward", source, places, log_sum, from_above, source, WRITE, *sizes)
    assert_close(source.get(), expected, "gradient over the logits", relative=1e-5)


def test_cross_entropy_of_ignored_wrong_and_extreme_rows(device: Device) -> None:
    logits = np.full((6, 19), -np.inf, np.float32)
    logits[0] = logits[1] = 1.0
    logits[2, 18], logits[3, 0], logits[3, 1] = 5.0, 3e4, 3e4
    logits[4] = np.linspace(-1e4, 1e4, 19)
    logits[5], logits[5, 3] = 0.0, np.nan
    labels = np.array([-1, 19, 18, 1, 18, 0], np.int32)
    loss, log_sum = (device.empty((6,), np.float32) for _ in range(2))
    source, places, upstream = device.put(logits), device.put(labels), device.put(np.full(6, 2.0, np.float32))
    device.call("cross_entropy_forward", source, places, loss, log_sum, 6, 19, 0)
    assert np.array_equal(np.isnan(loss.get()), [False, True, False, False, False, True])
    assert np.allclose(loss.get()[[0, 2, 3, 4]], [0, 0, math.log(2), 0], atol=2e-3)
    device.call("cross_entropy_backward", source, places, log_sum, upstream, source, WRITE, 6, 19, 0)
    gradient = source.get()
    assert not gradient[0].any()
    assert np.allclose(gradient[3, :3], [1, -1, 0], atol=4e-3)
    assert np.abs(gradient[[2, 4]]).max() <= 1e-6


# ---- all of them -------------------------------------------------------------------------------------------------


def test_wrong_sizes_and_types_are_refused(device: Device) -> None:
    array = device.put(np.zeros((4, 8), np.float32))
    three, invalid = (array, array, array), 1
    assert device.returns("bias_gelu_forward", *three, 4, 8, 2, None, None) == invalid
    assert device.returns("bias_gelu_forward", *three, 0, 8, 0, None, None) == invalid
    assert device.returns("layer_norm_forward", *three, *three, 1e-5, 4, 0, 0, None) == invalid
    assert device.returns("causal_softmax_forward", array, array, array, 1.0, 1, 8, 4, 0, None, None) == invalid
    assert device.returns("cross_entropy_forward", array, array, array, array, -1, 8, 0, None) == invalid
    assert device.returns("decode_seed", array, 1.0, 0, array, None) == invalid
    assert not array.get().any()


def test_same_bits_in_every_run(device: Device, dtype: np.dtype) -> None:
    """Twice on a GPU; on the host with threads and blocks in the opposite order, where a missing meeting would show."""
    rows, columns = 75, 264
    data, gamma = random((rows, columns), dtype, 1), random((columns,), dtype, 2)

    def gradients() -> list[bytes]:
        source, factor = device.put(data), device.put(gamma)
        made = [device.empty(shape, dtype) for shape in ((rows, columns), (columns,), (columns,))]
        sizes = (rows, columns, TYPES[dtype.name])
        dropout = device.dropout(SEED, 0.1, 1)
        workspace = device.workspace("bias_gelu", rows, columns)
        device.call("bias_gelu_backward", source, factor, source, *made[:2], WRITE, WRITE, *sizes, dropout, workspace)
        bits = [array.get().tobytes() for array in made[:2]]
        saved = [device.empty((rows,), np.float32) for _ in range(2)]
        device.call("layer_norm_forward", source, factor, factor, made[0], *saved, 1e-5, *sizes)
        workspace = device.workspace("layer_norm", rows, columns)
        inputs = (source, factor, made[0], *saved)
        device.call("layer_norm_backward", *inputs, *made, WRITE, WRITE, WRITE, *sizes, workspace)
        bits += [array.get().tobytes() for array in (*made, *saved)]
        loss, log_sum = (device.empty((rows,), np.float32) for _ in range(2))
        labels = device.put(np.arange(rows, dtype=np.int32))
        device.call("cross_entropy_forward", source, labels, loss, log_sum, *sizes)
        return [*bits, loss.get().tobytes(), log_sum.get().tobytes()]

    first = gradients()
    if isinstance(device, Host):
        device.run_backwards(True)
    try:
        assert gradients() == first
    finally:
        if isinstance(device, Host):
            device.run_backwards(False)
