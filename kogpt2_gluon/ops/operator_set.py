"""The operators that the network is written over (model/gpt2.py), and what all sets of them share.

In the comments B is the batch size, T the length of the input, P that of the cached past, C `units`, H `num_heads`,
D = C / H, and V `vocab_size`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

from kogpt2_gluon.ops.parameters import value

EPSILON = 1e-5  # of LayerNorm
GELU_TANH = 2 * math.sqrt(2 / math.pi)  # (1 + tanh u) / 2 is the logistic function of 2u
SEED_SIZE = 64  # the length of the seed that fused operators with dropout take


def draw_seed(F: Any, dropout: float) -> Any:
    """Returns the seed of fused operators with dropout: 64 values, each 0 or 2 in training, drawn by MXNet's generator.

    In prediction mode, or without dropout, all are 1. An operator of a library does not learn from MXNet if
    this is training, and gets no seed that `mx.random.seed` repeats; this array says both.

    No gradient goes through it: every operator with dropout reads this array, and nobody needs its gradient.
    """
    ones = F.ones((SEED_SIZE,))
    return F.BlockGrad(F.Dropout(ones, p=0.5)) if dropout else ones


class OperatorSet(ABC):
    """The operators of a network, on one kind of device and in one precision.

    Every method takes `F`, ``mx.nd`` or ``mx.sym``. A `layer` is a Gluon block that holds parameters (``nn.Dense``,
    ``nn.LayerNorm``, ``nn.Embedding``); only its parameters are used. `seed` is the result of :meth:`dropout_seed`,
    `site` a number that no other dropout of the network has: MXNet's own dropout needs neither.

    Attributes
    ----------
    name : str
        "stock" or "fused".
    precision : str
        Each set lists its own.
    dropout : float
        Probability, on embeddings, attention weights, attention output and feed-forward output.
    activation : str
        Of the feed-forward layers: "gelu", the erf form, or "gelu_tanh", which approximates it.
    """

    name: str
    precisions: tuple[str, ...]

    def __init__(self, precision: str = "float32", dropout: float = 0.0, activation: str = "gelu"):
        assert precision in self.precisions, precision
        self.precision, self.dropout, self.activation = precision, dropout, activation

    # ---- what the network asks for ---------------------------------------------------------------------------------

    def dropout_seed(self, F: Any) -> Any:
        """Returns the array with the seed of fused operators, which also says if this is training; else None."""
        return None

    def embedding_rows(self, embed: Any) -> Any:
        """Returns the object that keeps a tied embedding's gradient apart, as rows.

        None if MXNet adds that gradient to the output projection's.
        """
        return None

    def embedding(
        self,
        F: Any,
        tokens: Any,
        embed: Any,
        pos_embed: Any,
        past_length: Any,
        seed: Any,
        site: int,
        rows: Any = None,
    ) -> Any:
        """Embeddings of tokens (B, T) and of their positions, with dropout: (B, T, C).

        The positions begin at `past_length`, an array of shape (1,), or at 0 when it is None. `rows` is what
        ``inputs()`` of :meth:`embedding_rows` returned, or None where there is no such object.
        """
        assert rows is None
        positions = F.contrib.arange_like(F.cast(tokens, "float32"), axis=1)  # (T,)
        if past_length is not None:
            positions = F.broadcast_add(positions, past_length)
        return self._positioned(F, self.lookup(F, tokens, embed), positions, pos_embed)

    def vectors_embedding(self, F: Any, vectors: Any, pos_embed: Any) -> Any:
        """Does what :meth:`embedding` does without a past, with vectors (B, T, C) in the place of the tokens' own."""
        one_column = F.slice_axis(vectors, axis=2, begin=0, end=1)  # (B, T, 1): vectors may be float16
        positions = F.contrib.arange_like(F.cast(one_column, "float32"), axis=1)  # (T,)
        return self._positioned(F, vectors, positions, pos_embed)

    def lookup(self, F: Any, rows: Any, layer: Any) -> Any:
        """The rows of an embedding's matrix with these numbers."""
        input_dim, output_dim = layer.weight.shape
        weight = self._rounded(F, value(F, layer.weight))
        embedded = F.Embedding(rows, weight, input_dim=input_dim, output_dim=output_dim, dtype=layer.weight.dtype)
        return self._rounded(F, embedded)

    @abstractmethod
    def layer_norm(self, F: Any, data: Any, layer: Any) -> Any:
        """LayerNorm over the last axis, epsilon 1e-5."""

    def linear(self, F: Any, data: Any, layer: Any) -> Any:
        """data weight^T + bias, over the last axis."""
        weight, bias = value(F, layer.weight), value(F, layer.bias)
        if layer.weight.grad_req == "null" and layer.bias.grad_req != "null":
            # On CPU, MXNet 1.9.1 does not write the bias's gradient where the weight's is not requested.
            return self._compute(F, F.broadcast_add, self._product(F, data, layer), bias)
        return self._compute(F, F.FullyConnected, data, weight, bias, num_hidden=layer.weight.shape[0], flatten=False)

    def norm_linear(self, F: Any, data: Any, norm: Any, layer: Any) -> Any:
        """linear(layer_norm(data))."""
        return self.linear(F, self.layer_norm(F, data, norm), layer)

    @abstractmethod
    def linear_dropout_residual(self, F: Any, data: Any, layer: Any, residual: Any, seed: Any, site: int) -> Any:
        """residual + dropout(linear(data))."""

    @abstractmethod
    def feed_forward(self, F: Any, data: Any, norm: Any, hidden_map: Any, out_map: Any, seed: Any, site: int) -> Any:
        """data + dropout(out_map(gelu(hidden_map(layer_norm(data))))), with the form of GELU of `activation`."""

    @abstractmethod
    def attention(self, F: Any, qkv: Any, units: int, num_heads: int, seed: Any, site: int) -> Any:
        """Causal self-attention of packed queries, keys and values (B, T, 3C), dropout on its weights: (B, T, C)."""

    def keys_and_values(self, F: Any, qkv: Any, num_heads: int) -> list:
        """The keys and the values in qkv (B, T, 3C), in the layout that `attention_cached` takes: (B, H, T, D) each."""
        return self._split(F, qkv, num_heads)[1:]

    @abstractmethod
    def attention_cached(
        self, F: Any, qkv: Any, units: int, num_heads: int, past_key: Any, past_values: Any
    ) -> tuple[Any, list]:
        """Attention that also looks at a past: (B, T, C), and keys and values of past and input, (B, H, P + T, D) each.

        It is for prediction: the fused operator has neither dropout nor a gradient.
        """

    def logits(self, F: Any, hidden: Any, layer: Any) -> Any:
        """hidden weight^T: (B, T, V)."""
        return self._product(F, hidden, layer)

    @abstractmethod
    def cross_entropy(self, F: Any, hidden: Any, layer: Any, labels: Any, rows: Any = None) -> Any:
        """Natural-log cross-entropy of labels (B, T), given the last hidden states (B, T, C): (B, T), float32.

        `rows` is the embedding's. With it, the projection's is the only gradient of the matrix in the graph.
        """

    def distillation(
        self,
        F: Any,
        hidden: Any,
        layer: Any,
        labels: Any,
        states: Any,
        matrix: Any,
        temperature: float,
        rows: Any = None,
    ) -> tuple[Any, Any]:
        """The cross-entropy of labels (B, T), and KL(teacher || student) at a temperature: (B, T) each, float32.

        `hidden`, `layer` and `rows` are those of :meth:`cross_entropy`, `states` (B, T, C') and `matrix` (V, C') the
        teacher's, which get no gradient. Both logits are divided by `temperature` for the divergence alone.
        """
        size = layer.weight.shape[0]
        theirs = self._compute(F, F.FullyConnected, states, matrix, num_hidden=size, no_bias=True, flatten=False)
        theirs = F.log_softmax(F.BlockGrad(F.cast(theirs, "float32")), axis=-1, temperature=temperature)
        logits = F.cast(self.logits(F, hidden, layer), "float32")  # (B, T, V)
        cross_entropy = -F.pick(F.log_softmax(logits, axis=-1), labels, axis=-1)
        ours = F.log_softmax(logits, axis=-1, temperature=temperature)
        divergence = F.sum(F.BlockGrad(F.exp(theirs)) * (F.BlockGrad(theirs) - ours), axis=-1)
        return cross_entropy, divergence

    # ---- parts, by MXNet's own operators ---------------------------------------------------------------------------

    def _compute(self, F: Any, operator: Any, *inputs: Any, **attributes: Any) -> Any:
        """The result of one of MXNet's own operators, its inputs and the result rounded by the hook below."""
        return self._rounded(F, operator(*(self._rounded(F, each) for each in inputs), **attributes))

    def _rounded(self, F: Any, data: Any) -> Any:
        """`data` as it is; a set that emulates another precision rounds it here."""
        return data

    def _positioned(self, F: Any, embedded: Any, positions: Any, pos_embed: Any) -> Any:
        """The sum of (B, T, C) and the embeddings of positions (T,), with dropout."""
        position_rows = self.lookup(F, positions, pos_embed).expand_dims(0)  # (1, T, C)
        return self._dropout(F, self._compute(F, F.broadcast_add, embedded, position_rows))

    def _product(self, F: Any, data: Any, layer: Any) -> Any:
        """data weight^T, over the last axis."""
        weight, units = value(F, layer.weight), layer.weight.shape[0]
        return self._compute(F, F.FullyConnected, data, weight, num_hidden=units, no_bias=True, flatten=False)

    def _gelu(self, F: Any, data: Any) -> Any:
        """GELU in the form of `activation`, inside one rounding as an operator of its own has."""
        if self.activation == "gelu":
            return self._compute(F, F.LeakyReLU, data, act_type="gelu")
        return self._compute(F, lambda x: x * F.sigmoid(GELU_TANH * (x + 0.044715 * x * x * x)), data)

    def _dropout(self, F: Any, data: Any) -> Any:
        return self._compute(F, F.Dropout, data, p=self.dropout) if self.dropout else data

    @staticmethod
    def _split(F: Any, qkv: Any, num_heads: int) -> list:
        """Queries, keys and values, each (B, H, T, D)."""
        parts = F.split(qkv, num_outputs=3, axis=2)
        return [part.reshape((0, 0, -4, num_heads, -1)).transpose((0, 2, 1, 3)) for part in parts]

    @staticmethod
    def _merge_batch(data: Any) -> Any:
        """(B, H, T, D) as (BH, T, D), which batch_dot takes."""
        return data.reshape((-3, 0, 0))

    @staticmethod
    def _merge_heads(context: Any, num_heads: int) -> Any:
        """(BH, T, D) as (B, T, C)."""
        return context.reshape((-4, -1, num_heads, 0, 0)).transpose((0, 2, 1, 3)).reshape((0, 0, -3))
