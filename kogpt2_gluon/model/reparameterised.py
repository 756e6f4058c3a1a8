"""Weights as functions of fewer numbers: what LoRA, scales-only tuning and the like have in common.

A network keeps its matrices and knows nothing of this. Before a step they are written from the numbers that are
trained, and after the backward pass the gradient of a matrix becomes the gradient of those numbers by the chain rule.
Any operator set, any objective and any tool that reads a checkpoint therefore works as it is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from kogpt2_gluon.machine.runtime import mx


class ReparameterisedMatrix(ABC):
    """One matrix (out_units, in_units) of a network, as a function of trained numbers and of constants.

    Attributes
    ----------
    trained : dict
        {name: gluon Parameter}, float32, initialised on the matrix's device.
    constants : dict
        {name: float32 NDArray}: what the matrix needs besides, kept by checkpoints; every number is finite.
    """

    def __init__(self) -> None:
        self.trained: dict[str, Any] = {}
        self.constants: dict[str, Any] = {}

    @abstractmethod
    def value(self) -> Any:
        """Returns the matrix, float32."""

    @abstractmethod
    def backward(self, gradient: Any) -> None:
        """Writes the gradients of the trained numbers, given that of the matrix, float32."""

    def load(self, constants: Mapping[str, Any]) -> None:
        """Takes over the constants of a checkpoint, and what follows from them."""
        for name, array in self.constants.items():
            array[:] = constants[name]


def trained_parameter(name: str, values: Any) -> Any:
    """Returns a gluon Parameter that holds `values` (float32 NDArray) and has a gradient array."""
    parameter = mx.gluon.Parameter(name, shape=values.shape, dtype="float32", init=mx.init.Zero())
    parameter.initialize(ctx=values.context)
    parameter.set_data(values)
    return parameter
