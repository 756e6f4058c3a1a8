"""GPT-2 as ONNX graphs, put together with the `onnx` package's helpers: neither MXNet nor torch is needed.

Two graphs share one file of weights. Inputs and outputs have the names that optimum, transformers.js and
onnxruntime-genai look for.

- The graph with a cache, for generation. It takes `input_ids`, `attention_mask` over past and input, and
  `past_key_values.N.key` and `.value`, whose past may have length 0; it returns `logits`, `present.N.key` and `.value`.
  The mask is there for prompts of several lengths, padded on the left; the positions count the tokens that it does not
  hide. So there is no input `position_ids`, which could contradict it.
- The graph without, for scoring. It takes `input_ids` and returns `logits`. It needs no mask: no token sees padding on
  its right, and for padding on the left there is the other graph.

What would give wrong numbers is an error. A sequence longer than max_length, or a mask that is not as long as past and
input, ends in a Reshape that cannot be done on any device; its name says what is wrong, and onnxruntime prints it. A
negative id, which Gather would count from the end, becomes one that the vocabulary does not have. onnxruntime refuses
such ids on a CPU, while other devices and runtimes may take a row of zeros.

In the comments B is the batch size, T the length of the input, P that of the past, S = P + T, C `units`, H `num_heads`,
D = C / H, and V `vocab_size`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from kogpt2_gluon import __version__
from kogpt2_gluon.convert.names import parameters_of
from kogpt2_gluon.recipe_sections import ModelRecipe

OPSET, IR_VERSION = 17, 8  # of ONNX 1.12, the first with LayerNormalization: onnxruntime 1.12 and later
EPSILON = 1e-5  # of LayerNorm
# Added to a score that must not count, as in training. -inf would make a row NaN that sees padding alone, and spoil
# static quantization.
MASKED = -1e4
LARGE, LARGE_START, START = 1 << 20, 1 << 16, 1 << 6  # bytes; a file is mapped from a multiple of LARGE_START anywhere
WTE = "transformer.wte.weight"
BATCH, LENGTH, PAST = "batch_size", "sequence_length", "past_sequence_length"
TOTAL = f"{PAST} + {LENGTH}"


class StoredArray(NamedTuple):
    """A float32 array in the file of weights: its name, its shape, and where it begins."""

    name: str
    shape: tuple[int, ...]
    offset: int

    @property
    def nbytes(self) -> int:
        return 4 * math.prod(self.shape)


def stored_arrays(model: ModelRecipe) -> list[StoredArray]:
    """Lays out the file of weights: the arrays as transformers names and turns them, the tied matrix once."""
    stored: list[StoredArray] = []
    end = 0
    for parameter in parameters_of(model):
        array = StoredArray(parameter.in_transformers, parameter.transformers_shape, 0)
        step = LARGE_START if array.nbytes >= LARGE else START
        array = array._replace(offset=-(-end // step) * step)
        stored.append(array)
        end = array.offset + array.nbytes
    return stored


def build_model(model: ModelRecipe, cached: bool, weights: str, metadata: Mapping[str, str]) -> ModelProto:
    """Builds the network that a recipe describes, without dropout.

    Parameters
    ----------
    model : ModelRecipe
        The sizes of the network.
    cached : bool
        Whether it takes and returns keys and values.
    weights : str
        The name of the file that :func:`stored_arrays` lays out; it is in the folder of the graph.
    metadata : mapping of str to str
        What the file says of itself.

    Inputs:
        - **input_ids**: int64, shape (batch_size, length)
        - **attention_mask**: with a cache; int64, 0 for padding, shape (batch_size, past_length + length)
        - **past_key_values.N.key**, **.value**: with a cache; float32, shape (batch_size, num_heads, past_length,
          units/num_heads)

    Outputs:
        - **logits**: float32, shape (batch_size, length, vocab_size)
        - **present.N.key**, **.value**: with a cache; those of past and input
    """
    graph = _Network(model).graph(cached)
    graph.initializer.extend(_external(array, weights) for array in stored_arrays(model))
    proto = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="kogpt2-gluon",
        producer_version=__version__,
    )
    helper.set_model_props(proto, dict(metadata))
    return proto


class _Network:
    """Collects the nodes of a graph. Each method adds those of one part and returns the names of its outputs."""

    def __init__(self, model: ModelRecipe) -> None:
        self._model, self._head_units = model, model.units // model.num_heads
        self._nodes: list[NodeProto] = []
        self._constants: dict[str, npt.NDArray[Any]] = {}
        self._scope = ""

    def graph(self, cached: bool) -> GraphProto:
        """Returns the whole graph, but for the weights."""
        model, layers = self._model, range(self._model.num_layers)
        inputs = [_info("input_ids", TensorProto.INT64, BATCH, LENGTH)]
        outputs = [_info("logits", TensorProto.FLOAT, BATCH, LENGTH, model.vocab_size)]
        if cached:
            inputs.append(_info("attention_mask", TensorProto.INT64, BATCH, TOTAL))
        positions, bias = self._cached_mask() if cached else self._plain_mask()
        hidden = self._embedding(positions)
        for layer in layers:
            self._scope = f"transformer.h.{layer}"
            hidden = self._attention(hidden, bias, f"{layer}" if cached else None)
            hidden = self._feed_forward(hidden)
        self._scope = "transformer"
        self._logits(self._layer_norm(hidden, "ln_f"))
        if cached:
            states = [f"{layer}.{part}" for layer in layers for part in ("key", "value")]
            inputs += [self._state(f"past_key_values.{each}", PAST) for each in states]
            outputs += [self._state(f"present.{each}", TOTAL) for each in states]
        constants = [numpy_helper.from_array(array, name) for name, array in self._constants.items()]
        return helper.make_graph(self._nodes, "gpt2", inputs, outputs, constants)

    # ---- which tokens see which, and where they are ----------------------------------------------------------------

    def _plain_mask(self) -> tuple[str, str]:
        """Returns the positions, (T,), and the bias of the scores, (T, T)."""
        columns = self._columns(self._shape_of("input_ids", 1))
        return columns, self._bias(self._not_later(columns, columns))

    def _cached_mask(self) -> tuple[str, str]:
        """Returns the positions, (B, T), and the bias of the scores, (B, 1, T, S)."""
        past = self._shape_of("past_key_values.0.key", 2)  # (1,): P
        total = self._op("Add", past, self._shape_of("input_ids", 1))
        columns = self._columns(total)
        masked = self._shape_of("attention_mask", 1)
        columns = self._op("Reshape", columns, masked, name="attention_mask_is_not_as_long_as_past_and_input")
        rows = self._op("Slice", columns, past, total)  # (T,): which of the columns are the input
        mask = self._op("Cast", "attention_mask", to=TensorProto.BOOL)  # (B, S)
        seen = self._op("And", self._not_later(rows, columns), self._op("Unsqueeze", mask, self._ints(1)))  # (B, T, S)
        bias = self._bias(self._op("Unsqueeze", seen, self._ints(1)))
        count = self._op("CumSum", self._op("Cast", mask, to=TensorProto.INT64), self._int(1))  # (B, S)
        count = self._op("Gather", count, rows, axis=1)  # (B, T)
        positions = self._op("Max", self._op("Sub", count, self._int(1)), self._int(0))  # 0 for padding in front
        return positions, bias

    def _columns(self, total: str) -> str:
        """0, 1, .. up to S - 1, (S,); no more than max_length."""
        numbers = self._constant(np.arange(self._model.max_length, dtype=np.int64))
        first = self._op("Slice", numbers, self._ints(0), total)
        return self._op("Reshape", first, total, name=f"sequence_is_longer_than_max_length_{self._model.max_length}")

    def _not_later(self, rows: str, columns: str) -> str:
        return self._op("LessOrEqual", columns, self._op("Unsqueeze", rows, self._ints(1)))

    def _bias(self, seen: str) -> str:
        return self._op("Where", seen, self._float(0), self._float(MASKED))

    # ---- the layers ------------------------------------------------------------------------------------------------

    def _embedding(self, positions: str) -> str:
        """(B, T, C)."""
        self._scope = "transformer"
        vocab_size = self._model.vocab_size
        negative = self._op("Less", "input_ids", self._int(0))
        ids = self._op("Where", negative, self._int(vocab_size), "input_ids")
        tokens = self._op("Gather", WTE, ids, name=f"ids_are_0_to_{vocab_size - 1}")
        return self._add(tokens, self._op("Gather", "transformer.wpe.weight", positions))

    def _attention(self, hidden: str, bias: str, layer: str | None) -> str:
        """Adds to the residual stream, (B, T, C). With a cache, `layer` is the layer's number."""
        units = self._model.units
        qkv = self._linear(self._layer_norm(hidden, "ln_1"), "attn.c_attn")  # (B, T, 3C)
        parts = self._split(qkv, self._ints(units, units, units))
        query, key, values = (self._heads(part) for part in parts)  # (B, H, T, D) each
        if layer is not None:
            key, values = (
                self._op("Concat", f"past_key_values.{layer}.{part}", new, axis=2, output=f"present.{layer}.{part}")
                for part, new in (("key", key), ("value", values))
            )  # (B, H, S, D) each
        query = self._op("Mul", query, self._float(self._head_units**-0.5))
        scores = self._op("MatMul", query, self._op("Transpose", key, perm=[0, 1, 3, 2]))  # (B, H, T, S)
        weights = self._op("Softmax", self._add(scores, bias), axis=-1)
        context = self._op("Transpose", self._op("MatMul", weights, values), perm=[0, 2, 1, 3])
        context = self._op("Reshape", context, self._ints(0, 0, units))  # (B, T, C)
        return self._add(hidden, self._linear(context, "attn.c_proj"))

    def _heads(self, data: str) -> str:
        """(B, T, C) -> (B, H, T, D)."""
        apart = self._op("Reshape", data, self._ints(0, 0, self._model.num_heads, self._head_units))
        return self._op("Transpose", apart, perm=[0, 2, 1, 3])

    def _feed_forward(self, hidden: str) -> str:
        """Adds to the residual stream, (B, T, C)."""
        data = self._linear(self._layer_norm(hidden, "ln_2"), "mlp.c_fc")  # (B, T, 4C)
        if self._model.activation == "gelu":
            odd = self._op("Erf", self._op("Div", data, self._float(math.sqrt(2))))
        else:  # the tanh form
            cube = self._op("Mul", data, self._op("Mul", data, data))
            inner = self._add(data, self._op("Mul", cube, self._float(0.044715)))
            odd = self._op("Tanh", self._op("Mul", inner, self._float(math.sqrt(2 / math.pi))))
        twice = self._op("Mul", data, self._add(odd, self._float(1)))
        return self._add(hidden, self._linear(self._op("Mul", twice, self._float(0.5)), "mlp.c_proj"))

    def _logits(self, hidden: str) -> None:
        """(B, T, V)."""
        # Gemm turns the embedding as it multiplies. A Transpose would be done when the file is loaded, and kept: a
        # second embedding in memory. Flatten, since onnxruntime's optimizer for GPT-2 breaks a Gemm after a Reshape.
        logits = self._op("Gemm", self._op("Flatten", hidden, axis=2), WTE, transB=1)
        shape = self._op("Concat", self._op("Shape", "input_ids"), self._ints(self._model.vocab_size), axis=0)
        self._op("Reshape", logits, shape, output="logits")

    def _layer_norm(self, data: str, name: str) -> str:
        gamma, beta = (f"{self._scope}.{name}.{part}" for part in ("weight", "bias"))
        return self._op("LayerNormalization", data, gamma, beta, axis=-1, epsilon=EPSILON)

    def _linear(self, data: str, name: str) -> str:
        weight, bias = (f"{self._scope}.{name}.{part}" for part in ("weight", "bias"))
        return self._add(self._op("MatMul", data, weight), bias)

    # ---- nodes and constants ---------------------------------------------------------------------------------------

    def _add(self, left: str, right: str) -> str:
        return self._op("Add", left, right)

    def _shape_of(self, name: str, axis: int) -> str:
        return self._op("Shape", name, start=axis, end=axis + 1)  # (1,)

    def _split(self, data: str, sizes: str) -> list[str]:
        names = [f"{self._name('Split')}.{part}" for part in range(3)]
        self._nodes.append(helper.make_node("Split", [data, sizes], names, self._name("Split"), axis=-1))
        return names

    def _op(self, kind: str, *inputs: str, name: str = "", output: str = "", **attributes: Any) -> str:
        """Adds a node with one output. Its names are made up unless they are given."""
        name = name or self._name(kind)
        self._nodes.append(helper.make_node(kind, inputs, [output or name], name, **attributes))
        return output or name

    def _name(self, kind: str) -> str:
        return f"{self._scope}/{kind}_{len(self._nodes)}"

    def _ints(self, *values: int) -> str:
        return self._constant(np.array(values, np.int64))

    def _int(self, value: int) -> str:
        return self._constant(np.array(value, np.int64))

    def _float(self, value: float) -> str:
        return self._constant(np.array(value, np.float32))

    def _constant(self, array: npt.NDArray[Any]) -> str:
        """Returns the name of a constant; one that is there already is taken again."""
        known = next((name for name, each in self._constants.items() if _same(each, array)), None)
        name = known or f"constant_{len(self._constants)}"
        self._constants[name] = array
        return name

    def _state(self, name: str, length: str) -> ValueInfoProto:
        return _info(name, TensorProto.FLOAT, BATCH, self._model.num_heads, length, self._head_units)


def _same(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and bool((one == other).all())


def _info(name: str, kind: int, *shape: int | str) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def _external(array: StoredArray, weights: str) -> TensorProto:
    """Describes an array of the file of weights."""
    tensor = TensorProto(name=array.name, data_type=TensorProto.FLOAT, dims=array.shape)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", weights), ("offset", array.offset), ("length", array.nbytes)):
        tensor.external_data.add(key=key, value=str(value))
    return tensor
