"""Gives a new network its weights without a second copy: they are read straight into the arrays that it computes with.

`net.initialize` and :func:`~kogpt2_gluon.model.gpt2.load_arrays` would draw every weight at random first, make a
gradient for each, and copy each once more: at 124 million parameters three seconds, and a gigabyte.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from kogpt2_gluon.errors import OutOfMemoryError
from kogpt2_gluon.machine.limits import host_memory
from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.model.gpt2 import GPT2Model, check_names, check_shape, named_parameters, structural_parameters
from kogpt2_gluon.wording import gib


class WeightsToRead(Protocol):
    """Weights on disk; :class:`~kogpt2_gluon.runs.checkpoint.Weights` are some."""

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """{structural name: shape}; the tied matrix has the name of the embedding."""

    def read_into(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Reads every array into the one of its name."""


def fill_network(net: GPT2Model, weights: WeightsToRead, ctx: Any, source: str) -> None:
    """Gives a network that is not initialized its weights, in float32. It has no gradients and cannot be trained.

    DataError names what does not fit; OutOfMemoryError if memory does not suffice. `source` is what their messages call
    the weights.
    """
    parameters, shapes = structural_parameters(net), weights.shapes
    check_names(parameters, shapes, source)
    for name, parameter in parameters.items():
        check_shape(name, parameter, shapes[name], source)
    arrays = _new_arrays(parameters, source)
    weights.read_into({name: memory_of(array) for name, array in arrays.items()})
    for name, parameter in parameters.items():
        _give(parameter, arrays.pop(name).as_in_context(ctx), ctx)


def fill_network_from(net: GPT2Model, arrays: Mapping[str, NDArray[Any]], ctx: Any, source: str) -> None:
    """Does what fill_network does with arrays of any dtype, which are copied; the tied matrix has both names."""
    check_names(named_parameters(net), arrays, source)
    for name, parameter in structural_parameters(net).items():
        array = arrays[name]
        check_shape(name, parameter, array.shape, source)
        _give(parameter, mx.nd.array(array, ctx=ctx, dtype="float32"), ctx)


def _new_arrays(parameters: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Makes a float32 array on the CPU for each parameter; what they hold is undefined."""
    memory = host_memory()
    try:
        return {name: mx.nd.empty(parameter.shape, ctx=mx.cpu()) for name, parameter in parameters.items()}
    except mx.MXNetError as error:
        if "Failed to allocate" not in str(error):
            raise
    size = 4 * sum(math.prod(parameter.shape) for parameter in parameters.values())
    there = f"{memory.whose} has {gib(memory.free)} free"
    raise OutOfMemoryError(f"out of memory: the weights of {source} take {gib(size)}, and {there}")


def _give(parameter: Any, array: Any, ctx: Any) -> None:
    parameter.grad_req = "null"
    # Gluon has no public way to take an array as it is: set_data and initialize copy.
    parameter._init_impl(_NotCopied(array), [ctx])


def memory_of(array: Any) -> NDArray[np.float32]:
    """Returns the memory of a new float32 array on the CPU, valid while that is alive: who writes to it fills it."""
    address = ctypes.c_void_p()
    mx.base.check_call(mx.base._LIB.MXNDArrayGetData(array.handle, ctypes.byref(address)))
    return np.ctypeslib.as_array(ctypes.cast(address, ctypes.POINTER(ctypes.c_float)), shape=array.shape)


class _NotCopied:
    """Stands for an array where a parameter asks for a copy of it."""

    def __init__(self, array: Any) -> None:
        self._array = array

    def copyto(self, ctx: Any) -> Any:
        """Returns the array itself, which is on `ctx` already."""
        assert self._array.context == ctx, (self._array.context, ctx)
        return self._array
