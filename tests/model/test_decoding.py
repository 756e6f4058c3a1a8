"""Decoding one token at a time over the fused operators: the logits are the network's own."""

import itertools
import math
import shutil

import numpy as np
import pytest

from kogpt2_gluon.inference.generation import generate_ids
from kogpt2_gluon.inference.sampling import Sampling
from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.model.gpt2 import GPT2Model
from kogpt2_gluon.model.slots import FusedSlots, Run, Slots, slots_for
from kogpt2_gluon.ops.build import instruction_set
from kogpt2_gluon.ops.stock import StockOps

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")


def network(precision: str = "float32", fused: bool = True, activation: str = "gelu") -> GPT2Model:
    from kogpt2_gluon.ops.build import load_cpu_operators
    from kogpt2_gluon.ops.fused_cpu import FusedCpuOps

    load_cpu_operators()
    mx.random.seed(3)
    np.random.seed(3)
    ops = FusedCpuOps(precision, activation=activation) if fused else StockOps(activation=activation)
    net = GPT2Model(units=36, vocab_size=91, max_length=40, num_layers=3, num_heads=4, ops=ops)
    net.initialize(mx.init.Normal(0.2), force_reinit=True)
    return net


def read(slots: Slots, tokens: mx.nd.NDArray) -> np.ndarray:
    """The logits (B, V) after new tokens (B, T), a text in each slot."""
    return slots.next_logits([Run(slot, row.tolist()) for slot, row in enumerate(tokens.asnumpy())])


def pieces(tokens: np.ndarray, lengths: list) -> list:
    ends = np.cumsum(lengths)
    return [mx.nd.array(tokens[:, end - length : end], dtype="int32") for length, end in zip(lengths, ends)]


# One token, a few, and more than the few rows that are multiplied by hand.
@pytest.mark.parametrize("batch_size", [1, 3, 8, 9])
@pytest.mark.parametrize("lengths", [[1, 1, 1, 1], [5, 1, 1], [17, 1, 3, 1], [39, 1]])
def test_logits_are_those_of_the_whole_sequence(batch_size, lengths):
    tokens = np.random.RandomState(0).randint(0, 91, (batch_size, sum(lengths)))
    net = network()
    whole, _ = network(fused=False)(mx.nd.array(tokens, dtype="int32"))
    slots = slots_for(net, batch_size, capacity=sum(lengths))
    assert isinstance(slots, FusedSlots)
    for piece, end in zip(pieces(tokens, lengths), np.cumsum(lengths)):
        expected = whole[:, int(end) - 1].asnumpy()
        np.testing.assert_allclose(read(slots, piece), expected, rtol=0, atol=1e-5 * abs(expected).max())


def test_logits_with_the_tanh_form_of_gelu():
    """With weights ten times as large, so that the two forms differ by more than rounding."""
    tokens = mx.nd.array(np.random.RandomState(0).randint(0, 91, (2, 20)), dtype="int32")

    def larger(**options) -> GPT2Model:
        net = network(**options)
        for parameter in net.collect_params().values():
            parameter.set_data(parameter.data() * 10 ** (len(parameter.shape) == 2))
        return net

    expected = larger(fused=False, activation="gelu_tanh")(tokens)[0][:, -1].asnumpy()
    tolerance = 1e-5 * abs(expected).max()
    found = read(slots_for(larger(activation="gelu_tanh"), 2, 20), tokens)
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)
    assert abs(read(slots_for(larger(), 2, 20), tokens) - expected).max() > 5 * tolerance


def test_bfloat16_matrices_round_the_logits_and_no_more():
    tokens = np.random.RandomState(1).randint(0, 91, (2, 20))
    exact = network()
    rounded = network()
    for parameter in rounded.collect_params().values():
        if len(parameter.shape) == 2 and "embed" not in parameter.name:
            parameter.set_data(round_to_bfloat16(parameter.data().asnumpy()))
    bfloat16 = slots_for(network("bfloat16"), 2, 20)
    reference = slots_for(rounded, 2, 20)
    plain = slots_for(exact, 2, 20)
    got, want, unrounded = [], [], []
    for piece in pieces(tokens, [1] * 20):  # the matrices, and on some processors the data
        got.append(read(bfloat16, piece))
        unrounded.append(read(plain, piece))
        # The output projection is the embedding's matrix, which stays float32 where it is looked up.
        want.append(read(reference, piece))
    scale = np.abs(unrounded).max()
    assert np.abs(np.array(got) - np.array(want)).max() < 4e-3 * scale  # the projection's rounding
    assert 1e-5 * scale < np.abs(np.array(got) - np.array(unrounded)).max() < 3e-2 * scale


def round_to_bfloat16(values: np.ndarray) -> mx.nd.NDArray:
    bits = values.view(np.uint32)
    nearest = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    return mx.nd.array(nearest.astype(np.uint32).view(np.float32))


def test_packing_is_the_nearest_bfloat16():
    network()
    values = np.array([[1.0, -2.5, 3.1415927, 1e-40], [np.inf, -np.inf, 65504.0, 1.00390625]], np.float32)
    packed = mx.nd.kogpt2_pack_bfloat16(mx.nd.array(values)).asnumpy()
    assert packed.dtype == np.uint8
    assert packed.shape == (2, 8)
    unpacked = (packed.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_array_equal(unpacked, round_to_bfloat16(values).asnumpy())


def test_the_same_text_as_the_stock_network_writes():
    greedy = Sampling(max_new_tokens=30, temperature=0)
    fused = generate_ids(network(), [4, 7, 1], 2, greedy, num_samples=2)
    stock = generate_ids(network(fused=False), [4, 7, 1], 2, greedy, num_samples=2)
    assert fused == stock
    assert len(fused[0]) > 1


def test_a_stock_network_decodes_by_its_states():
    assert type(slots_for(network(fused=False), 1, 5)) is Slots


@pytest.mark.parametrize("weights", ["float32", "packed"])
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 6, 7, 8, 13, 32, 33, 129])
@pytest.mark.parametrize(("inner", "outer"), [(1, 1), (6, 4), (33, 7), (128, 50)])
def test_one_linear_map_in_all_its_forms(rows, inner, outer, weights):
    """LayerNorm before it, GELU and residual after it, with and without, against NumPy in float64."""
    network()
    by_onednn = weights == "packed" and rows > 32
    may_round = by_onednn or weights == "packed"  # the data to bfloat16, too, where the processor is fast at that
    if by_onednn and not instruction_set().has_bfloat16:
        pytest.skip("oneDNN has bfloat16 products from AVX-512 on")
    rng = np.random.RandomState(rows)
    data, residual = rng.randn(rows, inner).astype("f"), rng.randn(rows, outer).astype("f")
    weight, bias, gamma, beta = (rng.randn(*s).astype("f") for s in ((outer, inner), (outer,), (inner,), (inner,)))
    convert = {"float32": mx.nd.array, "packed": mx.nd.kogpt2_pack_bfloat16}
    operand = convert[weights](mx.nd.array(weight))
    matrix = weight if weights == "float32" else round_to_bfloat16(weight).asnumpy()
    for form in itertools.product((0, 1), (0, 1), ("none", "gelu")):
        layer_norm, add, activation = form
        inputs = [data, operand, bias, *((gamma, beta) if layer_norm else ()), *((residual,) if add else ())]
        arrays = [each if isinstance(each, mx.nd.NDArray) else mx.nd.array(each) for each in inputs]
        out = mx.nd.kogpt2_decode_linear(*arrays, layer_norm=layer_norm, has_residual=add, activation=activation)
        normal = data.astype(np.float64)
        if layer_norm:
            normal = (normal - normal.mean(1, keepdims=True)) / np.sqrt(normal.var(1, keepdims=True) + 1e-5)
            normal = normal * gamma + beta
        candidates = [round_to_bfloat16(normal.astype("f")).asnumpy()] if may_round else []
        errors = []
        for factor in [*candidates, *([] if by_onednn else [normal])]:
            expected = factor @ matrix.T.astype(np.float64) + bias
            if activation == "gelu":
                expected = expected * (1 + np.vectorize(math.erf)(expected / math.sqrt(2))) / 2
            expected += add * residual
            errors.append(np.abs(out.asnumpy() - expected).max() / max(1, np.abs(expected).max()))
        # What LayerNorm computed in float32 may round to the neighbour of what it is in float64.
        assert min(errors) <= (2e-2 if may_round and layer_norm else 1e-5)


def test_refusals():
    network()
    data, weight, bias = mx.nd.ones((2, 6)), mx.nd.ones((4, 6)), mx.nd.ones(4)
    with pytest.raises(mx.MXNetError, match=r"weight has shape \(4, 5\), expected \(4, 6\)"):
        mx.nd.kogpt2_decode_linear(data, mx.nd.ones((4, 5)), bias).wait_to_read()
    with pytest.raises(mx.MXNetError, match="weight has 12 columns, data has 6"):
        mx.nd.kogpt2_decode_linear(data, mx.nd.ones((4, 12)), bias).wait_to_read()
    with pytest.raises(mx.MXNetError, match=r"gamma has shape \(5\), expected \(6\)"):
        mx.nd.kogpt2_decode_linear(data, weight, bias, mx.nd.ones(5), mx.nd.ones(6), layer_norm=1).wait_to_read()
    with pytest.raises(mx.MXNetError, match=r"residual has shape \(2, 6\), expected \(2, 4\)"):
        mx.nd.kogpt2_decode_linear(data, weight, bias, data, has_residual=1).wait_to_read()
    with pytest.raises(mx.MXNetError, match="expects 6 inputs, but got 3"):
        mx.nd.kogpt2_decode_linear(data, weight, bias, layer_norm=1, has_residual=1)
    with pytest.raises(mx.MXNetError, match="activation='relu': none, gelu or gelu_tanh"):
        mx.nd.kogpt2_decode_linear(data, weight, bias, activation="relu").wait_to_read()
    data.attach_grad()
    with mx.autograd.record():
        out = mx.nd.kogpt2_decode_linear(data, weight, bias)
    with pytest.raises(mx.MXNetError, match="no gradient"):
        out.backward()
        mx.nd.waitall()
