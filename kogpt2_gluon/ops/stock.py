"""The operator set of MXNet's own operators: the reference for the fused ones, and what runs where these cannot.

The letters in the comments are those of operator_set.py.
"""

from __future__ import annotations

from typing import Any

from kogpt2_gluon.ops.operator_set import EPSILON, OperatorSet
from kogpt2_gluon.ops.parameters import value

MASKED = -1e4  # added to the scores of later positions; exp() of it is 0 in float32 and in float16


class StockOps(OperatorSet):
    """MXNet's own operators, on any device.

    Parameters
    ----------
    precision : str
        'float32'. 'float16': the parameters are float16, cast by the caller, and so are the arrays between operators;
        the loss is float32. It is for GPUs: MXNet has no float16 products on CPU. There 'float16_emulated' rounds the
        inputs and the output of every operator, and their gradients, to float16 with its range (65,504, and 6e-8), in
        float32 arrays; inside an operator the arithmetic is float32, as on a GPU. It is slow and meant for tests.
    dropout : float
        Probability, on embeddings, attention weights, attention output and feed-forward output.
    """

    name = "stock"
    precisions = ("float32", "float16", "float16_emulated")

    def layer_norm(self, F: Any, data: Any, layer: Any) -> Any:
        gamma, beta = value(F, layer.gamma), value(F, layer.beta)
        return self._compute(F, F.LayerNorm, data, gamma, beta, axis=-1, eps=EPSILON)

    def linear_dropout_residual(self, F: Any, data: Any, layer: Any, residual: Any, seed: Any, site: int) -> Any:
        return self._compute(F, F.elemwise_add, residual, self._dropout(F, self.linear(F, data, layer)))

    def feed_forward(self, F: Any, data: Any, norm: Any, hidden_map: Any, out_map: Any, seed: Any, site: int) -> Any:
        hidden = self._gelu(F, self.norm_linear(F, data, norm, hidden_map))
        return self.linear_dropout_residual(F, hidden, out_map, data, seed, site)

    def attention(self, F: Any, qkv: Any, units: int, num_heads: int, seed: Any, site: int) -> Any:
        query, key, values = self._split(F, qkv, num_heads)
        return self._attend(F, query, key, values, units, num_heads)

    def attention_cached(
        self, F: Any, qkv: Any, units: int, num_heads: int, past_key: Any, past_values: Any
    ) -> tuple[Any, list]:
        query, key, values = self._split(F, qkv, num_heads)
        key, values = F.concat(past_key, key, dim=2), F.concat(past_values, values, dim=2)
        return self._attend(F, query, key, values, units, num_heads), [key, values]

    def cross_entropy(self, F: Any, hidden: Any, layer: Any, labels: Any, rows: Any = None) -> Any:
        logits = self.logits(F, hidden, layer)
        if self.precision == "float16":
            logits = F.cast(logits, "float32")
        return -F.pick(F.log_softmax(logits, axis=-1), labels, axis=-1)

    # ---- attention -------------------------------------------------------------------------------------------------

    def _attend(self, F: Any, query: Any, key: Any, values: Any, units: int, num_heads: int) -> Any:
        mask = self._mask(F, query, key)  # (1, T, P + T)
        query, key, values = (self._merge_batch(part) for part in (query, key, values))
        query = self._rounded(F, query * (units // num_heads) ** -0.5)
        scores = self._compute(F, F.batch_dot, query, key, transpose_b=True)  # (BH, T, P + T)
        weights = self._compute(F, F.softmax, self._compute(F, F.broadcast_add, scores, mask), axis=-1)
        context = self._compute(F, F.batch_dot, self._dropout(F, weights), values)  # (BH, T, D)
        return self._merge_heads(context, num_heads)

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

    # ---- emulation of float16 --------------------------------------------------------------------------------------

    def _rounded(self, F: Any, data: Any) -> Any:
        """`data` through float16. Its gradient takes the same way back, because Cast's gradient is a cast."""
        if self.precision != "float16_emulated":
            return data
        return F.cast(F.cast(data, "float16"), "float32")
