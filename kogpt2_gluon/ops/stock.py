"""The operator set of MXNet's own operators: the reference of the fused ones, and what runs where they cannot.

In the comments B is the batch size, T the length of the input, P that of the cached past, C `units`, H `num_heads`,
D = C / H, and V `vocab_size`.
"""

from __future__ import annotations

from typing import Any

from kogpt2_gluon.ops.parameters import value

MASKED = -1e4  # added to the scores of later positions; exp() of it is 0 in float32 and in float16
EPSILON = 1e-5  # of LayerNorm
PRECISIONS = ("float32", "float16", "float16_emulated")


class StockOps:
    """MXNet's own operators, on any device.

    Every method takes `F`, ``mx.nd`` or ``mx.sym``. A `layer` is a Gluon block that holds parameters (``nn.Dense``,
    ``nn.LayerNorm``, ``nn.Embedding``); only its parameters are used. `seed` is what :meth:`dropout_seed` gave, `site`
    a number that no other dropout of the network has: MXNet's own dropout needs neither.

    Parameters
    ----------
    precision : str
        'float32'. 'float16': the parameters are float16, cast by the caller, and so is what lies between; the loss is
        float32. For GPUs: MXNet has no float16 products on CPU. There 'float16_emulated' rounds inputs and output of
        every operator, and their gradients, to float16 with its range (65,504, and 6e-8), in float32 arrays; inside an
        operator it is float32, as on a GPU. It is slow and meant for tests.
    dropout : float
        Probability, on embeddings, attention weights, attention output and feed-forward output.
    """

    name = "stock"

    def __init__(self, precision: str = "float32", dropout: float = 0.0):
        assert precision in PRECISIONS, precision
        self.precision, self.dropout = precision, dropout

    def dropout_seed(self, F: Any) -> Any:
        """The array that tells fused operators the random seed and whether this is training; None here."""
        return None

    def embedding_rows(self, embed: Any) -> Any:
        """What keeps the gradient of a tied embedding apart, as rows; None here: MXNet adds it to the projection's."""
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

        The positions begin at `past_length`, an array of shape (1,), or at 0 when it is None. `rows` are the inputs
        that :meth:`embedding_rows` wants, None where it gave None.
        """
        assert rows is None
        embedded = self._lookup(F, tokens, embed)  # (B, T, C)
        positions = F.contrib.arange_like(F.cast(tokens, "float32"), axis=1)  # (T,)
        if past_length is not None:
            positions = F.broadcast_add(positions, past_length)
        position_rows = self._lookup(F, positions, pos_embed).expand_dims(0)  # (1, T, C)
        return self._dropout(F, self._compute(F, F.broadcast_add, embedded, position_rows))

    def layer_norm(self, F: Any, data: Any, layer: Any) -> Any:
        """LayerNorm over the last axis, epsilon 1e-5."""
        gamma, beta = value(F, layer.gamma), value(F, layer.beta)
        return self._compute(F, F.LayerNorm, data, gamma, beta, axis=-1, eps=EPSILON)

    def linear(self, F: Any, data: Any, layer: Any) -> Any:
        """data weight^T + bias, over the last axis."""
        weight, bias = value(F, layer.weight), value(F, layer.bias)
        if layer.weight.grad_req == "null" and layer.bias.grad_req != "null":
            # On CPU, MXNet 1.9.1 leaves the bias's gradient as it was where the weight's is not wanted.
            return self._compute(F, F.broadcast_add, self._product(F, data, layer), bias)
        return self._compute(F, F.FullyConnected, data, weight, bias, num_hidden=layer.weight.shape[0], flatten=False)

    def linear_dropout_residual(self, F: Any, data: Any, layer: Any, residual: Any, seed: Any, site: int) -> Any:
        """residual + dropout(linear(data))."""
        return self._compute(F, F.elemwise_add, residual, self._dropout(F, self.linear(F, data, layer)))

    def feed_forward(
        self, F: Any, data: Any, hidden_map: Any, out_map: Any, residual: Any, seed: Any, site: int
    ) -> Any:
        """residual + dropout(out_map(gelu(hidden_map(data)))), with the erf form of GELU."""
        hidden = self._compute(F, F.LeakyReLU, self.linear(F, data, hidden_map), act_type="gelu")
        return self.linear_dropout_residual(F, hidden, out_map, residual, seed, site)

    def attention(self, F: Any, qkv: Any, units: int, num_heads: int, seed: Any, site: int) -> Any:
        """Causal self-attention of packed queries, keys and values (B, T, 3C), dropout on its weights: (B, T, C)."""
        query, key, values = self._split(F, qkv, num_heads)
        return self._attend(F, query, key, values, units, num_heads)

    def keys_and_values(self, F: Any, qkv: Any, num_heads: int) -> list:
        """The keys and the values in qkv (B, T, 3C), as `attention_cached` wants them later: (B, H, T, D) each."""
        return self._split(F, qkv, num_heads)[1:]

    def attention_cached(
        self, F: Any, qkv: Any, units: int, num_heads: int, past_key: Any, past_values: Any
    ) -> tuple[Any, list]:
        """Attention that also looks at a past: (B, T, C), and keys and values of past and input, (B, H, P + T, D) each.

        For prediction: the fused operator has neither dropout nor a gradient.
        """
        query, key, values = self._split(F, qkv, num_heads)
        key, values = F.concat(past_key, key, dim=2), F.concat(past_values, values, dim=2)
        return self._attend(F, query, key, values, units, num_heads), [key, values]

    def logits(self, F: Any, hidden: Any, layer: Any) -> Any:
        """hidden weight^T: (B, T, V)."""
        return self._product(F, hidden, layer)

    def cross_entropy(self, F: Any, hidden: Any, layer: Any, labels: Any, rows: Any = None) -> Any:
        """Natural-log cross-entropy of labels (B, T), given the last hidden states (B, T, C): (B, T), float32.

        `rows` is what the embedding got: with it, the projection's is the only gradient of the matrix in the graph.
        """
        logits = self.logits(F, hidden, layer)
        if self.precision == "float16":
            logits = F.cast(logits, "float32")
        return -F.pick(F.log_softmax(logits, axis=-1), labels, axis=-1)

    # ---- parts of these --------------------------------------------------------------------------------------------

    def _lookup(self, F: Any, rows: Any, layer: Any) -> Any:
        input_dim, output_dim = layer.weight.shape
        weight = self._rounded(F, value(F, layer.weight))
        embedded = F.Embedding(rows, weight, input_dim=input_dim, output_dim=output_dim, dtype=layer.weight.dtype)
        return self._rounded(F, embedded)

    def _product(self, F: Any, data: Any, layer: Any) -> Any:
        """data weight^T, over the last axis."""
        weight, units = value(F, layer.weight), layer.weight.shape[0]
        return self._compute(F, F.FullyConnected, data, weight, num_hidden=units, no_bias=True, flatten=False)

    def _dropout(self, F: Any, data: Any) -> Any:
        return self._compute(F, F.Dropout, data, p=self.dropout) if self.dropout else data

    def _split(self, F: Any, qkv: Any, num_heads: int) -> list:
        """Queries, keys and values, each (B, H, T, D)."""
        parts = F.split(qkv, num_outputs=3, axis=2)
        return [part.reshape((0, 0, -4, num_heads, -1)).transpose((0, 2, 1, 3)) for part in parts]

    def _attend(self, F: Any, query: Any, key: Any, values: Any, units: int, num_heads: int) -> Any:
        mask = self._mask(F, query, key)  # (1, T, P + T)
        query, key, values = (self._merge_batch(part) for part in (query, key, values))
        query = self._rounded(F, query * (units // num_heads) ** -0.5)
        scores = self._compute(F, F.batch_dot, query, key, transpose_b=True)  # (BH, T, P + T)
        weights = self._compute(F, F.softmax, self._compute(F, F.broadcast_add, scores, mask), axis=-1)
        context = self._compute(F, F.batch_dot, self._dropout(F, weights), values)  # (BH, T, D)
        return self._merge_heads(context, num_heads)

    @staticmethod
    def _merge_batch(data: Any) -> Any:
        """(B, H, T, D) as (BH, T, D), which batch_dot wants."""
        return data.reshape((-3, 0, 0))

    @staticmethod
    def _merge_heads(context: Any, num_heads: int) -> Any:
        """(BH, T, D) as (B, T, C)."""
        return context.reshape((-4, -1, num_heads, 0, 0)).transpose((0, 2, 1, 3)).reshape((0, 0, -3))

    def _mask(self, F: Any, query: Any, key: Any) -> Any:
        """0 where a query may look, MASKED where the key comes later: (1, T, P + T)."""
        key_position = self._positions(F, key)  # 0 .. P + T - 1
        # The queries are the last T of these positions.
        query_position = F.reverse(F.slice_like(F.reverse(key_position, axis=0), self._positions(F, query)), axis=0)
        later = F.broadcast_greater(key_position.expand_dims(0), query_position.expand_dims(1)).expand_dims(0)
        return (F.cast(later, "float16") if self.precision == "float16" else later) * MASKED

    @staticmethod
    def _positions(F: Any, data: Any) -> Any:
        """0, 1, .. along the third axis, in float32: float16 has no odd numbers above 2,048."""
        return F.contrib.arange_like(F.cast(F.slice_axis(data, axis=3, begin=0, end=1), "float32"), axis=2)

    def _compute(self, F: Any, operator: Any, *inputs: Any, **attributes: Any) -> Any:
        """One MXNet operator, emulated as if its arrays were float16 where that is asked for."""
        return self._rounded(F, operator(*(self._rounded(F, each) for each in inputs), **attributes))

    def _rounded(self, F: Any, data: Any) -> Any:
        """`data` through float16, and its gradient on the way back: Cast's gradient is a cast."""
        if self.precision != "float16_emulated":
            return data
        return F.cast(F.cast(data, "float16"), "float32")
