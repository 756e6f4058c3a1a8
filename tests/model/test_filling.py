"""A new network is given its weights: those of a file, as they are, and nothing that does not fit."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.model.filling import fill_network, fill_network_from, memory_of
from kogpt2_gluon.model.gpt2 import GPT2Model, structural_parameters
from tests.model.model_helpers import SIZES, make_net, tokens_of

TIED = "_logits_proj.weight"


class InMemory:
    """Weights that are "read" from arrays."""

    def __init__(self, arrays: Mapping[str, np.ndarray], fault: Exception | None = None):
        self.arrays, self.fault = arrays, fault

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: array.shape for name, array in self.arrays.items()}

    def read_into(self, arrays: Mapping[str, np.ndarray]) -> None:
        for name, array in arrays.items():
            array[...] = self.arrays[name]
        if self.fault:
            raise self.fault


@pytest.fixture(scope="module")
def trained() -> GPT2Model:
    return make_net()


@pytest.fixture
def arrays(trained: GPT2Model) -> dict[str, np.ndarray]:
    return {name: parameter.data().asnumpy() for name, parameter in structural_parameters(trained).items()}


def filled(arrays: Mapping[str, np.ndarray], way: str = "read") -> GPT2Model:
    net = GPT2Model(**SIZES)
    if way == "read":
        fill_network(net, InMemory(arrays), mx.cpu(), "the file")
    else:
        tied = {} if TIED in arrays else {TIED: arrays["_embed.weight"]}
        fill_network_from(net, {**arrays, **tied}, mx.cpu(), "the file")
    return net


@pytest.mark.parametrize("way", ["read", "copied"])
def test_it_computes_the_same_and_has_no_gradients(trained, arrays, way):
    net = filled(arrays, way)
    tokens = tokens_of((3, 17))
    expected = trained(tokens)[0].asnumpy()
    assert np.array_equal(net(tokens)[0].asnumpy(), expected)
    net.hybridize(static_alloc=True)
    assert np.array_equal(net(tokens)[0].asnumpy(), expected)
    assert net._logits_proj.weight is net._embed.weight
    for parameter in structural_parameters(net).values():
        with pytest.raises(RuntimeError, match="grad_req='null'"):
            parameter.grad()
    # What is copied stays as it is when the arrays change, and what is cast too.
    arrays["_embed.weight"][...] = 0
    for parameter in structural_parameters(net).values():
        parameter.cast("float64")
        parameter.cast("float32")
    assert np.array_equal(net(tokens)[0].asnumpy(), expected)


def test_other_dtypes_are_converted(arrays):
    halves = {name: array.astype(np.float16) for name, array in arrays.items()}
    net = filled(halves, "copied")
    for name, parameter in structural_parameters(net).items():
        assert np.array_equal(parameter.data().asnumpy(), halves[name].astype(np.float32))


@pytest.mark.parametrize("way", ["read", "copied"])
def test_what_does_not_fit_is_refused_by_name(arrays, way):
    with pytest.raises(DataError, match=r"the file: parameter _ffn_ln\.1\.beta is in the model only"):
        filled({name: array for name, array in arrays.items() if name != "_ffn_ln.1.beta"}, way)
    with pytest.raises(DataError, match=r"the file: parameter another is in the file only"):
        filled({**arrays, "another": np.ones(3, np.float32)}, way)
    with pytest.raises(DataError, match=r"the file: _final_ln\.gamma has shape \(47,\), the model needs \(48,\)"):
        filled({**arrays, "_final_ln.gamma": np.ones(47, np.float32)}, way)


def test_a_network_whose_weights_could_not_be_read_cannot_be_used(arrays):
    net = GPT2Model(**SIZES)
    with pytest.raises(DataError, match="damaged"):
        fill_network(net, InMemory(arrays, DataError("damaged")), mx.cpu(), "the file")
    with pytest.raises(RuntimeError, match="has not been initialized"):
        net(tokens_of((1, 3)))


def test_memory_is_that_of_the_array():
    array = mx.nd.empty((3, 5), ctx=mx.cpu())
    memory = memory_of(array)
    assert memory.shape == (3, 5) and memory.dtype == np.float32 and memory.flags.writeable
    assert memory.ctypes.data % 64 == 0  # so that no vector of 64 bytes lies in two lines of the cache
    memory[...] = np.arange(15).reshape(3, 5)
    assert np.array_equal(array.asnumpy(), memory) and float(array.sum().asscalar()) == 105
