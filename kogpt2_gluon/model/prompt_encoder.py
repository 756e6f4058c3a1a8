"""A prompt as a function of trained numbers: the vectors themselves, or what an encoder makes of others (p-tuning).

P-tuning (Liu et al., "GPT Understands, Too", 2021) trains P input vectors and a small network that takes them to the
prompt. Once it is trained only the prompt is needed. The encoders, and the way in which their numbers are drawn at
first, are those of peft's PromptEncoder.

In the comments P is the length of the prompt, C `units`, and H the encoder's hidden units.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np

from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.model.reparameterised import ReparameterisedMatrix, trained_parameter

LSTM_LAYERS = 2


class PromptVectors(ReparameterisedMatrix):
    """A prompt (P, C) whose vectors are trained themselves.

    Parameters
    ----------
    name : str
        Structural name of the prompt.
    matrix : NDArray
        Its first values, (P, C).
    """

    def __init__(self, name: str, matrix: Any) -> None:
        super().__init__()
        self._vectors = trained_parameter(f"{name}.vectors", matrix.astype("float32", copy=True))
        self.trained = {f"{name}.vectors": self._vectors}

    def value(self) -> Any:
        return self._vectors.data()

    def backward(self, gradient: Any) -> None:
        self._vectors.grad()[:] = gradient


class EncodedPrompt(ReparameterisedMatrix):
    """A prompt (P, C) that an encoder makes; a subclass says how.

    Parameters
    ----------
    name : str
        Structural name of the prompt.
    matrix : NDArray
        An array of its shape and device.
    size : int
        H.
    seed : int
        Of the first values.
    """

    def __init__(self, name: str, matrix: Any, size: int, seed: int) -> None:
        super().__init__()
        draw = np.random.RandomState(seed)
        values = {"embedding": draw.normal(0, 1, matrix.shape), **self._first_values(matrix.shape[1], size, draw)}
        self._parts = {
            part: trained_parameter(f"{name}.{part}", mx.nd.array(array, ctx=matrix.context, dtype="float32"))
            for part, array in values.items()
        }
        self.trained = {f"{name}.{part}": parameter for part, parameter in self._parts.items()}

    def value(self) -> Any:
        return self._encode({part: parameter.data() for part, parameter in self._parts.items()})

    def backward(self, gradient: Any) -> None:
        arrays = {part: parameter.data().detach() for part, parameter in self._parts.items()}
        for array in arrays.values():
            array.attach_grad()
        with mx.autograd.record():
            prompt = self._encode(arrays)
        prompt.backward(gradient)
        for part, parameter in self._parts.items():
            parameter.grad()[:] = arrays[part].grad

    @abstractmethod
    def _first_values(self, units: int, size: int, draw: np.random.RandomState) -> dict[str, Any]:
        """Returns the values that training begins with, by their names."""

    @abstractmethod
    def _encode(self, arrays: Mapping[str, Any]) -> Any:
        """Returns the prompt (P, C)."""


class MlpPrompt(EncodedPrompt):
    """Three linear maps, C to H to H to C, with ReLU between them, of each vector by itself."""

    def _first_values(self, units: int, size: int, draw: np.random.RandomState) -> dict[str, Any]:
        return _linears(draw, [units, size, size, units])

    def _encode(self, arrays: Mapping[str, Any]) -> Any:
        return _through(arrays, 3, arrays["embedding"])


class LstmPrompt(EncodedPrompt):
    """An LSTM of two layers over the vectors in both directions, H units each, and two linear maps: 2H to 2H to C."""

    def __init__(self, name: str, matrix: Any, size: int, seed: int) -> None:
        self._size = size
        super().__init__(name, matrix, size, seed)

    def _first_values(self, units: int, size: int, draw: np.random.RandomState) -> dict[str, Any]:
        bound, values = 1 / math.sqrt(size), {}
        for layer in range(LSTM_LAYERS):
            for direction in ("forward", "backward"):
                width = 2 * size if layer else units
                for kind, shape in (
                    ("input.weight", (4 * size, width)),
                    ("hidden.weight", (4 * size, size)),
                    ("input.bias", (4 * size,)),
                    ("hidden.bias", (4 * size,)),
                ):
                    values[f"lstm{layer}.{direction}.{kind}"] = draw.uniform(-bound, bound, shape)
        return {**values, **_linears(draw, [2 * size, 2 * size, units])}

    def _encode(self, arrays: Mapping[str, Any]) -> Any:
        steps = arrays["embedding"].expand_dims(1)  # (P, 1, C): MXNet's LSTM has the time first, then the batch
        cells = [name for name in arrays if name.startswith("lstm")]
        flat = [arrays[name].reshape(-1) for kind in ("weight", "bias") for name in cells if name.endswith(kind)]
        zeros = mx.nd.zeros((2 * LSTM_LAYERS, 1, self._size), ctx=steps.context)
        out = mx.nd.RNN(
            steps,
            mx.nd.concat(*flat, dim=0),
            zeros,
            zeros,
            mode="lstm",
            state_size=self._size,
            num_layers=LSTM_LAYERS,
            bidirectional=True,
        )
        return _through(arrays, 2, out.reshape((-1, 2 * self._size)))


def _linears(draw: np.random.RandomState, sizes: list[int]) -> dict[str, Any]:
    """The first values of linear maps, by the rule of torch.nn.Linear: uniform, up to 1 / sqrt(in_units)."""
    values = {}
    for number, (in_units, units) in enumerate(zip(sizes, sizes[1:])):
        bound = 1 / math.sqrt(in_units)
        values[f"linear{number}.weight"] = draw.uniform(-bound, bound, (units, in_units))
        values[f"linear{number}.bias"] = draw.uniform(-bound, bound, units)
    return values


def _through(arrays: Mapping[str, Any], count: int, data: Any) -> Any:
    """Sends data through linear maps, with ReLU between them."""
    for number in range(count):
        weight, bias = arrays[f"linear{number}.weight"], arrays[f"linear{number}.bias"]
        data = mx.nd.FullyConnected(data, weight, bias, num_hidden=weight.shape[0])
        data = mx.nd.relu(data) if number + 1 < count else data
    return data


def make_prompt(name: str, matrix: Any, encoder: str, size: int, seed: int) -> ReparameterisedMatrix:
    """The prompt that begins as `matrix` (P, C), with encoder "none", or an encoded one; H of 0 is C."""
    if encoder == "none":
        return PromptVectors(name, matrix)
    return {"mlp": MlpPrompt, "lstm": LstmPrompt}[encoder](name, matrix, size or matrix.shape[1], seed)
