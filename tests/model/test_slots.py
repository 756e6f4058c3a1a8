"""Slots: texts of any lengths, read in any order, get the logits that each of them gets alone."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.model.decoding import weights_for
from kogpt2_gluon.model.gpt2 import GPT2Model
from kogpt2_gluon.model.slots import FusedSlots, Run, Slots, slots_for
from tests.model.slot_helpers import (
    CAPACITY,
    NUM_SLOTS,
    VOCAB_SIZE,
    needs_bfloat16,
    network,
    random_tokens,
    shared_network,
)

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")

# precision of the operators, form of the weights
FUSED = [("float32", ""), ("bfloat16", ""), ("float32", "int8"), ("bfloat16", "int8"), ("float32", "bfloat16")]
FUSED += [("float32", "3bit"), ("bfloat16", "2bit")]


@cache
def whole_logits(text: tuple) -> np.ndarray:
    """The logits after a text, by MXNet's own operators, which read all of it at once."""
    return shared_network("stock")(mx.nd.array([text], dtype="int32"))[0][0, -1].asnumpy()


# ---- any order of reading, copying and cutting ----------------------------------------------------------------------

COUNTS = st.sampled_from([1, 1, 1, 1, 2, 3, 7, 32, 33, 70, 129])
SLOT = st.integers(0, NUM_SLOTS - 1)
ACTIONS = st.one_of(
    st.tuples(st.just("read"), st.dictionaries(SLOT, COUNTS, min_size=1)),
    st.tuples(st.just("read"), st.dictionaries(SLOT, st.just(1), min_size=3)),
    st.tuples(st.just("rearrange"), st.dictionaries(SLOT, SLOT, min_size=1)),
    st.tuples(st.just("copy"), SLOT, SLOT, st.floats(0, 1)),
    st.tuples(st.just("truncate"), SLOT, st.floats(0, 1)),
    st.tuples(st.just("clear"), SLOT),
)


def apply(slots: Slots, texts: list, action: tuple, seed: int) -> dict:
    """Applies an action to slots, and to lists of their tokens; returns {slot: logits} if it reads."""
    kind, *rest = action
    if kind == "read":
        runs = []
        for slot, count in rest[0].items():
            if len(texts[slot]) + count <= CAPACITY:
                runs.append(Run(slot, random_tokens(count, seed + slot)))
                texts[slot] = texts[slot] + runs[-1].tokens
        return dict(zip([run.slot for run in runs], slots.next_logits(runs))) if runs else {}
    if kind == "rearrange":
        slots.rearrange(rest[0])
        texts[:] = [texts[rest[0].get(slot, slot)] for slot in range(NUM_SLOTS)]
    elif kind == "copy":
        source, target, share = rest
        length = int(share * len(texts[source]))
        slots.copy(source, target, None if share == 1 else length)
        texts[target] = texts[source][:length]
    elif kind == "truncate":
        slot, share = rest
        length = int(share * len(texts[slot]))
        slots.truncate(slot, length)
        texts[slot] = texts[slot][:length]
    else:
        slots.clear(rest[0])
        texts[rest[0]] = []
    return {}


@pytest.mark.parametrize("precision", ["stock", "float32"])
@settings(max_examples=40, deadline=None)
@given(actions=st.lists(ACTIONS, min_size=1, max_size=9))
def test_logits_are_those_of_the_whole_text(precision, actions):
    slots = slots_for(shared_network(precision), NUM_SLOTS, CAPACITY)
    assert isinstance(slots, FusedSlots) == (precision == "float32")
    texts: list = [[] for _ in range(NUM_SLOTS)]
    for seed, action in enumerate(actions):
        found = apply(slots, texts, action, 10 * seed)
        assert slots.lengths == [len(text) for text in texts]
        for slot, logits in found.items():
            expected = whole_logits(tuple(texts[slot]))
            np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5 * abs(expected).max())


@pytest.mark.parametrize(("precision", "weights"), FUSED)
@settings(max_examples=10, deadline=None)
@given(
    counts=st.lists(COUNTS, min_size=1, max_size=4),
    others=st.lists(st.dictionaries(st.integers(1, NUM_SLOTS - 1), COUNTS), min_size=4, max_size=4),
    slot=SLOT,
)
def test_what_else_is_read_does_not_change_a_bit(precision, weights, counts, others, slot):
    """A text alone in the first slot, and in another slot among other texts."""
    needs_bfloat16(precision)
    net = shared_network(precision)
    alone, crowded = slots_for(net, 1, CAPACITY, weights=weights), slots_for(net, 4, CAPACITY, weights=weights)
    for seed, (count, beside) in enumerate(zip(counts, others)):
        if alone.lengths[0] + count > CAPACITY:
            break
        tokens = random_tokens(count, seed)
        runs = {slot: Run(slot, tokens)}
        for distance, length in beside.items():
            neighbour = (slot + distance) % NUM_SLOTS
            if crowded.lengths[neighbour] + length <= CAPACITY:
                runs[neighbour] = Run(neighbour, random_tokens(length, 50 + neighbour))
        order = list(runs) if seed % 2 else list(runs)[::-1]
        found = crowded.next_logits([runs[each] for each in order])[order.index(slot)]
        np.testing.assert_array_equal(found, alone.next_logits([Run(0, tokens)])[0])


def test_greedy_texts_are_those_written_alone():
    """Texts of different lengths and with different ends, in one pass each, against one text at a time."""
    net, prompts = shared_network("float32"), [random_tokens(count, count) for count in (1, 40, 5, 100)]

    def write(prompts: list) -> list:
        slots, runs = slots_for(net, len(prompts), CAPACITY), list(map(Run, range(len(prompts)), prompts))
        texts: list = [[] for _ in prompts]
        while runs:
            for run, logits in zip(runs, slots.next_logits(runs)):
                texts[run.slot].append(int(logits.argmax()))
            runs = [Run(run.slot, texts[run.slot][-1:]) for run in runs if len(texts[run.slot]) < 20 + 3 * run.slot]
        return texts

    together = write(prompts)
    assert [len(text) for text in together] == [20, 23, 26, 29]
    assert together == [write([prompt])[0] + text[20:] for prompt, text in zip(prompts, together)]


# ---- forms of weights -----------------------------------------------------------------------------------------------


def rounded_to_bfloat16(values: np.ndarray) -> np.ndarray:
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)


def rounded_to_int8(values: np.ndarray) -> np.ndarray:
    scale = abs(values).max(axis=1, keepdims=True) / np.float32(127)
    return (np.rint(values / scale) * scale).astype("f")


@pytest.mark.parametrize(("precision", "weights", "tolerance"), [("float32", "int8", 1e-5), ("bfloat16", "int8", 2e-2)])
def test_int8_logits_are_those_of_the_rounded_matrices(precision, weights, tolerance):
    """In float32 but for the matrices; operators in bfloat16 round caches, and the data of long runs."""
    needs_bfloat16(precision)
    check_rounded(precision, weights, rounded_to_int8, tolerance)


def test_bfloat16_logits_are_those_of_the_rounded_matrices():
    """The data is rounded too where the processor multiplies bfloat16, and the caches are."""
    needs_bfloat16("bfloat16")
    check_rounded("bfloat16", "", rounded_to_bfloat16, 2e-2)


def check_rounded(precision: str, weights: str, rounded, tolerance: float) -> None:
    slots = slots_for(shared_network(precision), 2, CAPACITY, weights=weights)
    exact = slots_for(network("stock", rounded), 2, CAPACITY)
    # The embedding is the matrix of the logits, too, but is not rounded where rows are looked up.
    embed = rounded(shared_network("stock")._embed.weight.data().asnumpy())
    unrounded = slots_for(shared_network("stock"), 2, CAPACITY)
    for runs in ([Run(0, random_tokens(120)), Run(1, random_tokens(5))], [Run(1, [3]), Run(0, [4])]):
        found, expected = slots.next_logits(runs), exact.next_hidden(runs) @ embed.T
        scale = abs(expected).max()
        assert abs(found - expected).max() < tolerance * scale
        assert abs(found - unrounded.next_logits(runs)).max() > 1e-4 * scale


def test_weights_are_chosen_by_name():
    net = shared_network("float32")
    assert weights_for(net).form == "float32"
    assert weights_for(net, "int8").form == "int8"
    with pytest.raises(
        RecipeError, match=r"^weights=int4: one of float32, bfloat16, int8, 1bit, 2bit, 3bit, 4bit, codes$"
    ):
        slots_for(net, 1, 8, weights="int4")
    with pytest.raises(RecipeError, match=r"^weights=int8: only the fused operators of CPUs have them"):
        slots_for(shared_network("stock"), 1, 8, weights="int8")
    assert type(slots_for(shared_network("stock"), 1, 8, weights="float32")) is Slots


def test_weights_of_a_network_that_does_not_learn_are_made_once():
    net = network("float32")
    assert weights_for(net, "int8") is not weights_for(net, "int8")
    before = slots_for(net, 1, 8, weights="int8").next_logits([Run(0, [1])])
    matrix = net._ffn_layers[0]._hidden_map.weight
    matrix.set_data(2 * matrix.data())
    after = slots_for(net, 1, 8, weights="int8").next_logits([Run(0, [1])])
    assert abs(after - before).max() > 1e-3
    net.collect_params().setattr("grad_req", "null")
    assert weights_for(net, "int8") is weights_for(net, "int8")
    assert weights_for(net) is weights_for(net, "float32")


# ---- hidden states, faults, memory ----------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["stock", "float32"])
def test_hidden_states_are_what_the_logits_come_from(precision):
    net = shared_network(precision)
    slots, twin = slots_for(net, 3, CAPACITY), slots_for(net, 3, CAPACITY)
    runs = [Run(2, random_tokens(50)), Run(0, random_tokens(3)), Run(1, random_tokens(1))]
    every, last = slots.hidden(runs), twin.next_hidden(runs)
    assert [each.shape for each in every] == [(50, 72), (3, 72), (1, 72)]
    for (_, tokens), states, end in zip(runs, every, last):
        expected, _ = net.hidden_states(mx.nd, mx.nd.array([tokens], dtype="int32"))
        np.testing.assert_allclose(states, expected[0].asnumpy(), rtol=0, atol=3e-5)
        np.testing.assert_allclose(end, states[-1], rtol=0, atol=3e-5)
    expected = np.stack([whole_logits(tuple(tokens)) for _, tokens in runs])
    np.testing.assert_allclose(twin.logits(last), expected, rtol=0, atol=1e-5 * abs(expected).max())
    many = twin.logits(every[0])
    assert many.shape == (50, VOCAB_SIZE)
    np.testing.assert_allclose(many[-1], expected[0], rtol=0, atol=1e-5 * abs(expected).max())


@pytest.mark.parametrize("precision", ["stock", "float32"])
@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ([Run(1, [1]), Run(0, [5] * 7)], "slot 0 has 3 tokens and room for 9: 7 more do not fit"),
        ([Run(1, [1]), Run(1, [2])], "two runs of one slot"),
        ([Run(1, [1]), Run(0, [])], "a run of slot 0 without tokens"),
        ([Run(1, [1]), Run(0, [VOCAB_SIZE])], "a token for slot 0 is outside of 0 .. 90"),
        ([Run(1, [1]), Run(0, [-1])], "a token for slot 0 is outside of 0 .. 90"),
        ([Run(1, [1]), Run(2, [1])], "there is no slot 2"),
        ([Run(1, [1]), Run(-1, [1])], "there is no slot -1"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_read(precision, runs, message):
    slots = slots_for(shared_network(precision), 2, 9)
    slots.next_logits([Run(0, [1, 2, 3])])
    with pytest.raises(ValueError, match=f"^{message}$"):
        slots.next_logits(runs)
    assert slots.lengths == [3, 0]
    slots.next_logits([Run(0, [5] * 6)])
    expected = whole_logits((1, 2, 3, 5, 5, 5, 5, 5, 5))
    slots.truncate(0, 8)
    np.testing.assert_allclose(slots.next_logits([Run(0, [5])])[0], expected, rtol=0, atol=1e-5 * abs(expected).max())


def test_caches_take_memory_only_as_texts_grow():
    """Caches for 64 texts of 1,024 tokens: 201 MB, of which a short text in each slot needs little."""
    from kogpt2_gluon.ops.fused_cpu import FusedCpuOps

    shared_network("float32")  # its operators
    net = GPT2Model(units=96, vocab_size=VOCAB_SIZE, max_length=1024, num_layers=4, num_heads=2, ops=FusedCpuOps())
    net.initialize()
    slots_for(net, 1, 8).next_logits([Run(0, [1])])
    before = resident_mb()
    slots = slots_for(net, 64, 1024)
    slots.next_logits([Run(slot, [1] * 30) for slot in range(64)])
    assert resident_mb() - before < 60


def resident_mb() -> float:
    text = Path("/proc/self/statm").read_text(encoding="utf-8")
    return int(text.split()[1]) * 4096 / 2**20
