"""Texts by codes are those of the network whose matrices the codes are; which codes a network has, and in what size."""

from __future__ import annotations

import numpy as np
import pytest

from kogpt2_gluon.binary_codes import PackedCodes, quantise
from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.inference.generation import Generator
from kogpt2_gluon.inference.sampling import Sampling
from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.model.binary_coding import BinaryCodedMatrix
from kogpt2_gluon.model.coded_weights import give_codes
from kogpt2_gluon.model.decoding import weights_for, weights_note
from kogpt2_gluon.model.gpt2 import structural_parameters
from kogpt2_gluon.model.slots import Run, slots_for
from tests.model.slot_helpers import CAPACITY, MATRICES, needs_bfloat16, network, random_tokens, shared_network

BY_HAND = {"3bit": 3, "1bit": 1}


def restored(bits: int, group_size: int = 0):
    """A change of matrices into what their codes are."""
    return lambda values: PackedCodes.of(quantise(values, bits, group_size)).matrix()


def codes_of(net, bits: int, group_size: int, names=MATRICES) -> dict:
    """The codes of those matrices of the layers that have some of these names."""
    return {
        name: PackedCodes.of(quantise(parameter.data().asnumpy(), bits, group_size))
        for name, parameter in structural_parameters(net).items()
        if name.endswith("weight") and any(part in name for part in names)
    }


def check_same(slots, exact, tolerance: float = 1e-5) -> None:
    for runs in ([Run(0, random_tokens(120)), Run(1, random_tokens(5))], [Run(1, [3]), Run(0, [4])]):
        found, expected = slots.next_logits(runs), exact.next_logits(runs)
        assert abs(found - expected).max() < tolerance * abs(expected).max()


@pytest.mark.parametrize("weights", BY_HAND)
def test_logits_are_those_of_the_restored_matrices(weights):
    """In float32, by MXNet's own operators over the restored matrices: few rows, and 120."""
    slots = slots_for(shared_network("float32"), 2, CAPACITY, weights=weights)
    check_same(slots, slots_for(network("stock", restored(BY_HAND[weights])), 2, CAPACITY))


@pytest.mark.parametrize(("bits", "group_size"), [(2, 8), (4, 24), (3, 36)])
def test_codes_that_a_network_was_given(bits, group_size):
    net = network("float32")
    give_codes(net, codes_of(net, bits, group_size))
    check_same(
        slots_for(net, 2, CAPACITY, weights="codes"),
        slots_for(network("stock", restored(bits, group_size)), 2, CAPACITY),
    )


def test_matrices_without_codes_have_the_precision_of_the_operators():
    net = network("float32")
    given = codes_of(net, 2, 0, ["qkv_proj"])
    give_codes(net, given)
    slots = slots_for(net, 2, CAPACITY, weights="codes")
    mixed = network("stock")
    for name, parameter in structural_parameters(mixed).items():
        if name in given:
            parameter.set_data(mx.nd.array(given[name].matrix()))
    check_same(slots, slots_for(mixed, 2, CAPACITY))
    assert "2 matrices in 2 bits" in weights_note(net, "codes") and "6 other matrices (float32)" in weights_note(
        net, "codes"
    )


def test_in_bfloat16_the_logits_matrix_is_rounded_and_the_caches_are():
    needs_bfloat16("bfloat16")
    slots = slots_for(shared_network("bfloat16"), 2, CAPACITY, weights="3bit")
    check_same(slots, slots_for(network("stock", restored(3)), 2, CAPACITY), 3e-2)


@pytest.mark.parametrize("bits", [2, 3])
def test_greedy_texts_are_those_of_the_restored_network(bits):
    """Alone and several at once, in float32."""
    coded, plain = network("float32"), network("float32", restored(bits))
    for net in (coded, plain):
        net.collect_params().setattr("grad_req", "null")
    for prompt in (random_tokens(4, 1), random_tokens(50, 2)):
        texts = [
            Generator(net, weights=weights).ids(prompt, 0, Sampling(40, temperature=0))
            for net, weights in ((coded, f"{bits}bit"), (plain, ""))
        ]
        assert texts[0] == texts[1]
    drawn = [
        Generator(net, weights=weights).ids(random_tokens(3), 0, Sampling(20, seed=1), num_samples=5)
        for net, weights in ((coded, f"{bits}bit"), (plain, ""))
    ]
    assert drawn[0] == drawn[1]


def test_which_codes_there_are():
    net = network("float32")
    with pytest.raises(RecipeError, match=r"^weights=codes: the checkpoint has no codes"):
        weights_for(net, "codes")
    with pytest.raises(RecipeError, match=r"^weights=3bit: only the fused operators of CPUs have them"):
        weights_for(shared_network("stock"), "3bit")
    given = codes_of(net, 2, 0)
    give_codes(net, given)
    assert weights_for(net, "codes").codes is given
    for form in ("2bit", "3bit"):
        with pytest.raises(RecipeError, match=f"^weights={form}: the checkpoint is quantised already, in 2 bits"):
            weights_for(net, form)
    assert weights_for(net, "int8").codes == {}


def test_the_note_has_the_sizes():
    """8 matrices of 72 units: 2 bits and 8 bytes of scales for each of 2 x 576 rows."""
    net = network("float32")
    net.collect_params().setattr("grad_req", "null")
    rows = 2 * (3 + 1 + 4 + 1) * 72
    numbers = 2 * 12 * 72 * 72
    assert sum(each.nbytes for each in weights_for(net, "2bit").codes.values()) == numbers // 4 + 8 * rows
    note = weights_note(net, "2bit")
    assert note.startswith("8 matrices in 2 bits: 0.0 MB, in bfloat16 0.2;") and "(float32, 0.0 MB)" in note
    assert weights_note(net, "int8") == ""
    assert np.isfinite(slots_for(net, 1, 8, weights="2bit").next_logits([Run(0, [1])])).all()


@pytest.mark.parametrize("form", ["1bit", "4bit"])
def test_a_matrix_that_diverged_has_no_codes(form):
    name = "_self_attention_layers.1._multi_head_qkv_proj.weight"
    net = network("float32")
    matrix = structural_parameters(net)[name].data()
    matrix[2, 3] = np.nan
    with pytest.raises(DataError, match=rf"^weights={form}: {name}: 1 of its [0-9,]+ numbers are NaN or infinite"):
        weights_for(net, form)
    with pytest.raises(DataError, match=rf"^{name}: 1 of its"):
        BinaryCodedMatrix(name, matrix, 2, 0, "first")
