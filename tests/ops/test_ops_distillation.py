"""kogpt2_distillation against the definition in float64, gradients included."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import log_softmax

from kogpt2_gluon.machine.runtime import mx, num_threads
from tests.ops.ops_helpers import (
    BFLOAT16,
    FLOAT32,
    LIBRARY,
    array,
    assert_close,
    assert_same,
    needs_bfloat16,
    round_to_bfloat16,
)

# shape of the labels, units of the student and the teacher, vocabulary; the last ones go over several strips of it
SIZES = [
    ((1, 1), 7, 3, 2),
    ((2, 3), 5, 5, 11),
    ((1, 33), 65, 20, 3072),
    ((3, 5), 17, 31, 3073),
    ((5,), 6, 9, 4609),
    ((2, 2, 2), 9, 4, 12345),
]
REQUESTS = "write,write,null,null,null"
Arrays = list[NDArray]


def inputs_of(rows, units, wide, vocab, ids=np.int32) -> Arrays:
    """The student's states and matrix, the labels, the teacher's states and matrix."""
    rng = np.random.RandomState(units)
    matrices = array(rng, *rows, units), array(rng, vocab, units), array(rng, *rows, wide), array(rng, vocab, wide)
    return [*matrices[:2], rng.randint(0, vocab, rows).astype(ids), *matrices[2:]]


def from_above(rows) -> Arrays:
    """Gradients of both results, different for each row and of both signs."""
    rng = np.random.RandomState(1)
    return [array(rng, *rows), array(rng, *rows)]


def fused(inputs: Arrays, temperature: float, req: str = REQUESTS, **attributes) -> Arrays:
    """Cross-entropy, divergence, and the gradients of states and matrix; arrays for these begin with ones."""
    arrays = [mx.nd.array(each, dtype=each.dtype) for each in inputs]
    for each, word in zip(arrays, req.split(",")):
        if word != "null":
            each.attach_grad(word)
            each.grad[:] = 1
    above = [mx.nd.array(each) for each in from_above(inputs[2].shape)]
    with mx.autograd.record():
        out = mx.nd.kogpt2_distillation(*arrays, temperature=temperature, req=req, **attributes)
        total = out[0] * above[0] + out[1] * above[1]
    total.backward()
    gradients = [each.grad.asnumpy() for each, word in zip(arrays, req.split(",")) if word != "null"]
    return [*(each.asnumpy() for each in out), *gradients]


def exact(inputs: Arrays, temperature: float) -> Arrays:
    """Returns the same in float64, by the definitions."""
    hidden, weight, labels, states, matrix = (each.astype(np.float64) for each in inputs)
    ours, theirs = hidden @ weight.T, states @ matrix.T
    labels, above = labels.astype(int), from_above(labels.shape)
    own, warm, teachers = (log_softmax(each, -1) for each in (ours, ours / temperature, theirs / temperature))
    cross_entropy = -np.take_along_axis(own, labels[..., None], -1)[..., 0]
    divergence = (np.exp(teachers) * (teachers - warm)).sum(-1)
    gradient = np.exp(own)
    np.put_along_axis(gradient, labels[..., None], np.take_along_axis(gradient, labels[..., None], -1) - 1, -1)
    gradient = above[0][..., None] * gradient + above[1][..., None] / temperature * (np.exp(warm) - np.exp(teachers))
    flat = gradient.reshape(-1, len(weight))
    return [cross_entropy, divergence, gradient @ weight, flat.T @ hidden.reshape(len(flat), -1)]


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_values_and_gradients_in_float64(sizes, temperature):
    for ids in (np.int32, np.float32):
        inputs = inputs_of(*sizes, ids=ids)
        for one, other in zip(fused(inputs, temperature), exact(inputs, temperature)):
            assert_close(one, other, 2 * FLOAT32, scale=1.0)


@needs_bfloat16
def test_bfloat16_rounds_the_factors():
    inputs = inputs_of((3, 5), 17, 31, 3073)
    rounded = [each if place == 2 else round_to_bfloat16(each) for place, each in enumerate(inputs)]
    found, expected = fused(inputs, 2.0, precision="bfloat16"), exact(rounded, 2.0)
    for one, other in zip(found[:2], expected[:2]):
        assert_close(one, other, 2 * FLOAT32, scale=1.0)
    for one, other in zip(found[2:], expected[2:]):  # the gradient of the logits is rounded, too
        assert_close(one, other, BFLOAT16)


@pytest.mark.parametrize("shift", [-300.0, 300.0])
def test_large_logits(shift):
    """exp() of the logits overflows or vanishes in float32. The greatest is in the last strip."""
    inputs = inputs_of((1, 4), 3, 3, 9000)
    for states, matrix in (inputs[:2], inputs[3:]):
        states[..., 0], matrix[:, 0] = 1.0, shift
        matrix[8999, 0] += 30.0
    found, expected = fused(inputs, 2.0), exact(inputs, 2.0)
    for one, other in zip(found[:2], expected[:2]):
        assert_close(one, other, scale=1.0)  # which is little: a logit of 300 has an error of 1.5e-5 in float32
    for one, other in zip(found[2:], expected[2:]):
        assert_close(one, other, 1e-4)


def test_a_teacher_that_is_the_student_changes_nothing():
    inputs = inputs_of((2, 5), 13, 13, 3500)
    inputs[3:] = inputs[:2]
    _, divergence, *with_teacher = fused(inputs, 3.0)
    assert np.abs(divergence).max() < 1e-5
    for one, other in zip(with_teacher, exact(inputs, 3.0)[2:]):
        assert_close(one, other, 2 * FLOAT32)


@pytest.mark.parametrize("place", [1, 4])
def test_logits_that_are_not_finite(place):
    """They must not come out as a finite divergence."""
    for bad in (np.nan, np.inf):
        inputs = inputs_of((1, 3), 4, 4, 5000)
        inputs[0][..., 0] = inputs[3][..., 0] = 1.0
        inputs[place][4500, 0] = bad
        assert not np.isfinite(fused(inputs, 2.0)[1]).any()


def test_gradients_are_written_added_or_left_alone():
    inputs = inputs_of((2, 5), 13, 8, 3500)
    _, _, hidden, weight = fused(inputs, 2.0)
    for one, other in zip(fused(inputs, 2.0, "add,add,null,null,null")[2:], (hidden, weight)):
        assert_close(one, other + 1, scale=1.0)
    assert_same(fused(inputs, 2.0, "write,null,null,null,null")[2:], [hidden])
    assert_same(fused(inputs, 2.0, "null,write,null,null,null")[2:], [weight])


def test_results_do_not_depend_on_the_number_of_threads():
    library, results = ctypes.CDLL(str(LIBRARY)), []
    inputs = inputs_of((7, 5), 16, 24, 4000)
    try:
        for threads in (1, 2, 3):
            library.kogpt2_set_num_threads(threads)
            results.append(fused(inputs, 2.0)[:2])
    finally:
        library.kogpt2_set_num_threads(num_threads())
    for other in results[1:]:
        for one, two in zip(results[0], other):
            assert_close(one, two.astype(np.float64))


@pytest.mark.parametrize(
    ("change", "temperature", "words"),
    [
        (lambda inputs: inputs, 0.0, "temperature=0 is not above 0"),
        (lambda inputs: inputs, float("nan"), "temperature"),
        (lambda inputs: [*inputs[:4], inputs[4][:-1]], 2.0, "matrix"),
        (lambda inputs: [*inputs[:3], inputs[3][:1], inputs[4]], 2.0, "states"),
        (lambda inputs: [*inputs[:2], inputs[2] + 99, *inputs[3:]], 2.0, "outside"),
    ],
)
def test_what_does_not_fit_is_refused(change, temperature, words):
    with pytest.raises(mx.MXNetError, match=words):
        fused(change(inputs_of((2, 5), 13, 8, 40)), temperature)
