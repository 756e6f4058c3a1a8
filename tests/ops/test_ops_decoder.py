"""The operators of generation: runs of texts in caches, copies between slots, weights in int8, the whole network."""

from __future__ import annotations

import numpy as np
import pytest

from kogpt2_gluon.machine.runtime import mx
from tests.ops.ops_helpers import assert_close, assert_same, check_refused, needs_bfloat16, threads

SLOTS, CAPACITY, HEADS, COLUMNS = 5, 150, 3, 20
C = HEADS * COLUMNS
# Runs as (slot, tokens before, tokens): few queries and many, a block of queries and more
RUNS = [(3, 0, 1), (0, 9, 2), (4, 140, 10), (1, 0, 70)]
BFLOAT16 = pytest.param("uint8", marks=needs_bfloat16)


def rounded(values: np.ndarray) -> np.ndarray:
    """The nearest bfloat16, as float32."""
    bits = values.astype("f").view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)


def caches_of(dtype: str, seed: int = 0) -> list:
    """Random keys and values, (slots, H, capacity, D), as the operators take them."""
    values = np.random.RandomState(seed).randn(2, SLOTS, HEADS, CAPACITY, COLUMNS).astype("f")
    if dtype == "float32":
        return [mx.nd.array(each) for each in values]
    bits = (rounded(values).view(np.uint32) >> 16).astype(np.uint16)
    return [mx.nd.array(each.view(np.uint8), dtype="uint8") for each in bits]


def values_of(cache) -> np.ndarray:
    values = cache.asnumpy()
    return values if values.dtype == np.float32 else (values.view(np.uint16).astype(np.uint32) << 16).view(np.float32)


def attend(query: np.ndarray, key: np.ndarray, value: np.ndarray) -> np.ndarray:
    scores = key.astype(np.float64) @ query / np.sqrt(len(query))
    weights = np.exp(scores - scores.max())
    return weights @ value / weights.sum()


# ---- attention ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", BFLOAT16])
def test_runs_look_into_their_own_slots(dtype):
    """Against float64: each query sees the tokens of its slot up to itself; nothing else of the caches changes."""
    tokens = sum(count for *_, count in RUNS)
    qkv = np.random.RandomState(1).randn(1, tokens, 3 * C).astype("f")
    caches = caches_of(dtype)
    expected_caches, before = [values_of(each).copy() for each in caches], [values_of(each) for each in caches]
    precision = "float32" if dtype == "float32" else "bfloat16"
    runs = mx.nd.array(RUNS, dtype="int32")
    out = mx.nd.kogpt2_attention_step(mx.nd.array(qkv), *caches, runs, num_heads=HEADS, precision=precision)
    query, key, value = (part.reshape(tokens, HEADS, COLUMNS) for part in np.split(qkv[0], 3, axis=1))
    expected, row = np.zeros((tokens, HEADS, COLUMNS)), 0
    for slot, position, count in RUNS:
        for part, cache in zip((key, value), expected_caches):
            new = part[row : row + count].transpose(1, 0, 2)
            cache[slot, :, position : position + count] = new if dtype == "float32" else rounded(new)
        for t in range(count):
            for head in range(HEADS):
                seen = [cache[slot, head, : position + t + 1] for cache in expected_caches]
                expected[row + t, head] = attend(query[row + t, head], *seen)
        row += count
    assert_same([values_of(each) for each in caches], expected_caches)
    assert any((old != new).any() for old, new in zip(before, expected_caches))
    assert_close(out.asnumpy()[0], expected.reshape(tokens, C), 1e-5 if dtype == "float32" else 1e-2)


@pytest.mark.parametrize("dtype", ["float32", BFLOAT16])
@pytest.mark.parametrize("count", [1, 2])
def test_few_queries_round_nothing_but_the_cache(dtype, count):
    qkv = np.random.RandomState(1).randn(1, count, 3 * C).astype("f")
    caches, runs = caches_of(dtype), mx.nd.array([(2, 100, count)], dtype="int32")
    out = mx.nd.kogpt2_attention_step(mx.nd.array(qkv), *caches, runs, num_heads=HEADS, precision="bfloat16").asnumpy()
    keys, values = map(values_of, caches)
    for t in range(count):
        for head in range(HEADS):
            part = slice(head * COLUMNS, (head + 1) * COLUMNS)
            seen = 101 + t
            assert_close(out[0, t, part], attend(qkv[0, t, part], keys[2, head, :seen], values[2, head, :seen]))


@pytest.mark.parametrize("dtype", ["float32", BFLOAT16])
def test_threads_and_neighbours_change_no_bit(dtype):
    precision = "float32" if dtype == "float32" else "bfloat16"
    tokens = sum(count for *_, count in RUNS)
    qkv = np.random.RandomState(1).randn(1, tokens, 3 * C).astype("f")

    def run(part: np.ndarray, runs: list) -> np.ndarray:
        arrays = [mx.nd.array(part), *caches_of(dtype), mx.nd.array(runs, dtype="int32")]
        return mx.nd.kogpt2_attention_step(*arrays, num_heads=HEADS, precision=precision).asnumpy()[0]

    together = run(qkv, RUNS)
    for count in (2, 3):
        with threads(count):
            assert_same([run(qkv, RUNS)], [together])
    row = 0
    for each in RUNS:
        assert_same([run(qkv[:, row : row + each[2]], [each])], [together[row : row + each[2]]])
        row += each[2]


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ([(0, 0, 1), (0, 1, 2)], "^two runs are for slot 0$"),
        ([(0, 0, 1), (5, 0, 2)], "^run 1 is for slot 5 of 5$"),
        ([(0, 0, 1), (-1, 0, 2)], "^run 1 is for slot -1 of 5$"),
        ([(0, 0, 3), (1, 0, 0)], "^run 1 has 0 tokens$"),
        ([(0, 0, 1), (1, 0, 1)], "^runs have 2 tokens together, the pass has 3$"),
        ([(0, 148, 3)], "^position 148, from which 3 tokens are written, does not fit a cache for 150$"),
        ([(0, -1, 3)], "^position -1, from which 3 tokens are written, does not fit a cache for 150$"),
    ],
)
def test_runs_that_do_not_fit_are_refused(runs, message):
    qkv, caches = mx.nd.ones((1, 3, 3 * C)), caches_of("float32")
    arrays = [qkv, *caches, mx.nd.array(runs, dtype="int32")]
    call = lambda: mx.nd.kogpt2_attention_step(*arrays, num_heads=HEADS)  # noqa: E731
    check_refused("kogpt2_attention_step", call, message)


def test_runs_have_three_columns_and_caches_one_type():
    qkv, runs = mx.nd.ones((1, 3, 3 * C)), mx.nd.array([(0, 0, 3)], dtype="int32")
    key, value = caches_of("float32")
    step = mx.nd.kogpt2_attention_step
    for call, message in (
        (lambda: step(qkv, key, value, runs[:, :2], num_heads=HEADS), r"^position has shape \(1, 2\), expected 3 col"),
        (lambda: step(mx.nd.ones((3, 1, 3 * C)), key, value, runs, num_heads=HEADS), "^runs are for a batch size of 1"),
        (lambda: step(qkv, *caches_of("uint8")[:1], value, runs, num_heads=HEADS), r"^value_cache has shape"),
        (lambda: step(qkv, key.astype("uint8"), value.astype("uint8"), runs, num_heads=HEADS), "^key_cache and value"),
    ):
        check_refused("kogpt2_attention_step", call, message)


# ---- copies ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_slots_change_places(dtype):
    caches = caches_of(dtype) + caches_of(dtype, seed=1)
    before = [values_of(each) for each in caches]
    moves = [(0, 1, 3, 90), (1, 0, 3, 90), (0, 4, 0, CAPACITY), (2, 2, 5, 6), (3, 3, 7, 7)]
    assert mx.nd.kogpt2_copy_slots(mx.nd.array(moves, dtype="int32"), *caches, num_caches=4).asscalar() == len(moves)
    for old, cache in zip(before, caches):
        expected = old.copy()
        for source, target, begin, end in moves:
            expected[target, :, begin:end] = old[source, :, begin:end]
        np.testing.assert_array_equal(values_of(cache), expected)


@pytest.mark.parametrize(
    ("moves", "message"),
    [
        ([(0, 1, 0, 2), (2, 1, 5, 6)], "^two moves write slot 1$"),
        ([(0, 5, 0, 2)], "^move 0 names slot 5 of 5$"),
        ([(-1, 2, 0, 2)], "^move 0 names slot -1 of 5$"),
        ([(0, 2, 3, 2)], "^move 0 copies places 3 to 2 of 150$"),
        ([(0, 2, -1, 2)], "^move 0 copies places -1 to 2 of 150$"),
        ([(0, 2, 0, 151)], "^move 0 copies places 0 to 151 of 150$"),
    ],
)
def test_copies_that_do_not_fit_are_refused(moves, message):
    arrays = [mx.nd.array(moves, dtype="int32"), *caches_of("float32")]
    check_refused("kogpt2_copy_slots", lambda: mx.nd.kogpt2_copy_slots(*arrays, num_caches=2), message)


# ---- weights --------------------------------------------------------------------------------------------------------


def unpacked(packed: np.ndarray, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """The int8 values (N, K) and the scales (N,)."""
    return packed[:rows].view(np.int8), packed[rows:].reshape(-1)[: 4 * rows].view(np.float32)


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (7, 3), (5, 64), (40, 131)])
def test_int8_is_the_nearest_of_255_numbers(rows, columns):
    weight = np.random.RandomState(rows).randn(rows, columns).astype("f")
    weight[rows // 2] *= 1000
    if rows > 1:
        weight[0] = 0
        weight[-1] *= 1e-37
    packed = mx.nd.kogpt2_pack_int8(mx.nd.array(weight)).asnumpy()
    values, scales = unpacked(packed, rows)
    assert values.min() >= -127
    largest = abs(weight).max(axis=1)
    tiny = largest < 1e-35
    np.testing.assert_array_equal(scales[tiny], 1)
    np.testing.assert_allclose(scales[~tiny], largest[~tiny] / 127, rtol=1e-6)
    assert (abs(values[~tiny]).max(axis=1) == 127).all()
    error = abs(values * scales[:, None].astype(np.float64) - weight)
    assert (error <= np.where(tiny, 1e-35, scales * 0.50001)[:, None]).all()


def test_a_weight_that_is_not_finite_is_refused():
    for wrong in (np.nan, np.inf):
        weight = mx.nd.array([[1, 2], [3, wrong]])
        call = lambda weight=weight: mx.nd.kogpt2_pack_int8(weight)  # noqa: E731
        check_refused("kogpt2_pack_int8", call, "^row 1 of the weight is not finite$")


@pytest.mark.parametrize(("inner", "outer"), [(1, 1), (6, 4), (65, 7), (200, 50)])
@pytest.mark.parametrize("rows", [1, 2, 6, 7, 13, 32, 40])
def test_int8_products(rows, inner, outer):
    """Against float64 with the restored weight; the error of rounding is that of each row's half a step."""
    rng = np.random.RandomState(rows)
    data, weight = rng.randn(rows, inner).astype("f"), rng.randn(outer, inner).astype("f")
    packed = mx.nd.kogpt2_pack_int8(mx.nd.array(weight))
    values, scales = unpacked(packed.asnumpy(), outer)
    out = mx.nd.kogpt2_decode_linear(mx.nd.array(data), packed, mx.nd.zeros(outer)).asnumpy()
    assert_close(out, data.astype(np.float64) @ (values * scales[:, None].astype(np.float64)).T)
    bound = abs(data).sum(axis=1)[:, None] * scales / 2
    assert (abs(out - data.astype(np.float64) @ weight.T) <= 1.0001 * bound + 1e-5).all()


@needs_bfloat16
def test_many_rows_with_int8_in_bfloat16():
    rng = np.random.RandomState(0)
    data, weight = rng.randn(60, 128).astype("f"), rng.randn(50, 128).astype("f")
    packed, bias = mx.nd.kogpt2_pack_int8(mx.nd.array(weight)), mx.nd.zeros(50)
    values, scales = unpacked(packed.asnumpy(), 50)
    out = mx.nd.kogpt2_decode_linear(mx.nd.array(data), packed, bias, precision="bfloat16").asnumpy()
    assert_close(out, rounded(data).astype(np.float64) @ rounded(values * scales[:, None]).T)


@pytest.mark.parametrize("form", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize(("inner", "outer"), [(6, 4), (65, 7), (200, 51)])
def test_a_row_does_not_depend_on_the_others(form, inner, outer):
    """Up to 32 rows, to the last bit, whatever the number of rows and of threads."""
    rng = np.random.RandomState(inner)
    data, weight = mx.nd.array(rng.randn(32, inner)), mx.nd.array(rng.randn(outer, inner))
    convert = {"float32": mx.nd.array, "bfloat16": mx.nd.kogpt2_pack_bfloat16, "int8": mx.nd.kogpt2_pack_int8}[form]
    operand, bias = convert(weight), mx.nd.zeros(outer)
    every = mx.nd.kogpt2_decode_linear(data, operand, bias).asnumpy()
    for begin, end in ((0, 1), (31, 32), (3, 5), (2, 8), (1, 9), (10, 27)):
        part = mx.nd.kogpt2_decode_linear(data[begin:end], operand, bias).asnumpy()
        np.testing.assert_array_equal(part, every[begin:end])
    with threads(3):
        np.testing.assert_array_equal(mx.nd.kogpt2_decode_linear(data, operand, bias).asnumpy(), every)


# ---- the whole network ----------------------------------------------------------------------------------------------

V, POSITIONS, INNER = 11, 12, 24
SHAPES = {
    "tokens": (3,),
    "runs": (2, 3),
    "embed": (V, 6),
    "pos_embed": (POSITIONS, 6),
    "final_gamma": (6,),
    "final_beta": (6,),
    "key_cache": (4, 2, 20, 3),
    "value_cache": (4, 2, 20, 3),
    "attn_gamma": (6,),
    "attn_beta": (6,),
    "qkv_weight": (18, 6),
    "qkv_bias": (18,),
    "out_weight": (6, 6),
    "out_bias": (6,),
    "ffn_gamma": (6,),
    "ffn_beta": (6,),
    "hidden_weight": (INNER, 6),
    "hidden_bias": (INNER,),
    "out_map_weight": (6, INNER),
    "out_map_bias": (6,),
}


def decode(runs=((1, 0, 2), (3, 4, 1)), tokens=(1, 2, 3), **changes):
    shapes = {**SHAPES, **{name: shape for name, shape in changes.items() if name in SHAPES}}
    arrays = {name: mx.nd.ones(shape) for name, shape in shapes.items()}
    arrays["tokens"], arrays["runs"] = mx.nd.array(tokens, dtype="int32"), mx.nd.array(runs, dtype="int32")
    rest = {name: value for name, value in changes.items() if name not in SHAPES}
    return mx.nd.kogpt2_decoder(*arrays.values(), **{"num_layers": 1, "num_heads": 2, **rest})


def test_the_decoder_gives_all_tokens_or_the_last_of_each_run():
    """The numbers are tested in tests/model/test_slots.py, against the network."""
    assert decode().shape == (3, 6)
    assert decode(last_only=1).shape == (2, 6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokens": (1, 2, V)}, f"^id {V} at place 2 is outside of 0 .. {V - 1}: another tokenizer's\\?$"),
        ({"tokens": (-1, 2, 3)}, f"^id -1 at place 0 is outside of 0 .. {V - 1}: another tokenizer's\\?$"),
        ({"runs": ((1, 11, 2), (3, 4, 1))}, f"^place {POSITIONS} of a text is beyond {POSITIONS} positions$"),
        ({"runs": ((1, 0, 1), (3, 4, 1))}, "^runs have 2 tokens together, the pass has 3$"),
        ({"pos_embed": (POSITIONS, 5)}, r"^pos_embed has shape \(12, 5\), expected \(12, 6\)$"),
        ({"final_beta": (5,)}, r"^final_beta has shape \(5\), expected \(6\)$"),
        (
            {"value_cache": (4, 2, 19, 3)},
            r"^value_cache of array 0 has shape \(4, 2, 19, 3\), expected \(4, 2, 20, 3\)$",
        ),
        ({"out_map_weight": (6, 23)}, r"^out_map_weight of array 0 has shape \(6, 23\), expected \(6, 24\)$"),
        ({"num_heads": 4}, r"^qkv has shape \(1, 3, 18\): 18 columns are not 3 times 4 heads$"),
        ({"activation": "relu"}, "^activation='relu': none, gelu or gelu_tanh$"),
    ],
    ids=str,
)
def test_what_the_decoder_refuses(changes, message):
    check_refused("kogpt2_decoder", lambda: decode(**changes), message)
