"""The operator set of the fused CPU operators, which are in ops/src/cpu; ops/build.py compiles and loads them.

Each operator's file there says what it computes, forward and backward, and what it keeps.
"""

from __future__ import annotations

from typing import Any

from kogpt2_gluon.ops.embedding_rows import EmbeddingRows
from kogpt2_gluon.ops.operator_set import OperatorSet, draw_seed
from kogpt2_gluon.ops.parameters import requests, shared_request, value


class FusedCpuOps(OperatorSet):
    """Fused operators on CPU. Call ``build.load_cpu_operators`` first.

    Arrays and parameters are float32 in both precisions. The logits of generation, and the embedding after a past, come
    from MXNet's own operators: so few numbers gain nothing by fusing.

    Parameters
    ----------
    precision : str
        The precision of matrix products: 'float32', or 'bfloat16', which rounds the factors and sums in float32.
    dropout : float
        Probability, on embeddings, attention weights, attention output and feed-forward output. Its random numbers
        come from Philox, seeded by MXNet's generator: `mx.random.seed` repeats them, but they are not StockOps' own.
    """

    name = "fused"
    precisions = ("float32", "bfloat16")

    def dropout_seed(self, F: Any) -> Any:
        return draw_seed(F, self.dropout)

    def embedding_rows(self, embed: Any) -> EmbeddingRows:
        return EmbeddingRows(embed)

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
        if past_length is not None:
            return super().embedding(F, tokens, embed, pos_embed, past_length, seed, site)
        positions = value(F, pos_embed.weight)
        if rows:
            weight, gradient, _ = rows
            req = requests("null", "null", pos_embed.weight, "null", "write")
            return F.kogpt2_embedding_rows(
                tokens, weight, positions, seed, gradient, p=self.dropout, site=site, req=req
            )
        weight = value(F, embed.weight)
        # The output projection shares embed.weight.
        req = requests("null", shared_request(embed.weight), pos_embed.weight, "null")
        return F.kogpt2_embedding(tokens, weight, positions, seed, p=self.dropout, site=site, req=req)

    def layer_norm(self, F: Any, data: Any, layer: Any) -> Any:
        req = requests("write", layer.gamma, layer.beta)
        return F.kogpt2_layer_norm(data, value(F, layer.gamma), value(F, layer.beta), req=req)

    def linear(self, F: Any, data: Any, layer: Any) -> Any:
        weight, bias = value(F, layer.weight), value(F, layer.bias)
        req = requests("write", layer.weight, layer.bias)
        return F.kogpt2_linear(data, weight, bias, precision=self.precision, req=req)

    def norm_linear(self, F: Any, data: Any, norm: Any, layer: Any) -> Any:
        parameters = norm.gamma, norm.beta, layer.weight, layer.bias
        values = (value(F, parameter) for parameter in parameters)
        return F.kogpt2_norm_linear(data, *values, precision=self.precision, req=requests("write", *parameters))

    def linear_dropout_residual(self, F: Any, data: Any, layer: Any, residual: Any, seed: Any, site: int) -> Any:
        return F.kogpt2_linear_dropout_residual(
            data,
            value(F, layer.weight),
            value(F, layer.bias),
            residual,
            seed,
            p=self.dropout,
            site=site,
            precision=self.precision,
            req=requests("write", layer.weight, layer.bias, "write", "null"),
        )

    def feed_forward(self, F: Any, data: Any, norm: Any, hidden_map: Any, out_map: Any, seed: Any, site: int) -> Any:
        return F.kogpt2_gelu_linear_dropout_residual(
            self.norm_linear(F, data, norm, hidden_map),
            value(F, out_map.weight),
            value(F, out_map.bias),
            data,
            seed,
            p=self.dropout,
            site=site,
            precision=self.precision,
            activation=self.activation,
            req=requests("write", out_map.weight, out_map.bias, "write", "null"),
        )

    def attention(self, F: Any, qkv: Any, units: int, num_heads: int, seed: Any, site: int) -> Any:
        return F.kogpt2_attention(qkv, seed, num_heads=num_heads, p=self.dropout, site=site, precision=self.precision)[
            0
        ]

    def attention_cached(
        self, F: Any, qkv: Any, units: int, num_heads: int, past_key: Any, past_values: Any
    ) -> tuple[Any, list]:
        out, key, values = F.kogpt2_attention_cached(
            qkv, past_key, past_values, num_heads=num_heads, precision=self.precision
        )
        return out, [key, values]

    def cross_entropy(self, F: Any, hidden: Any, layer: Any, labels: Any, rows: Any = None) -> Any:
        weight = value(F, layer.weight)
        if rows:
            req = requests("write", layer.weight, "null", "null")
            return F.kogpt2_cross_entropy(
                hidden, weight, labels, rows[2], has_memory=1, precision=self.precision, req=req
            )
        req = requests("write", shared_request(layer.weight), "null")
        return F.kogpt2_cross_entropy(hidden, weight, labels, precision=self.precision, req=req)

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
        own = layer.weight if rows else shared_request(layer.weight)
        found = F.kogpt2_distillation(
            hidden,
            value(F, layer.weight),
            labels,
            states,
            matrix,
            temperature=temperature,
            precision=self.precision,
            req=requests("write", own, "null", "null", "null"),
        )
        return found[0], found[1]
