"""The operator set of the fused CPU operators (ops/src/cpu, which ops/build.py compiles and loads).

Each operator's file there says what it computes, forward and backward, and what it keeps.
"""

from __future__ import annotations

from typing import Any

from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.ops.parameters import requests, shared_request, value
from kogpt2_gluon.ops.stock import StockOps

SEED_SIZE = 64  # as the operators want it


def draw_seed(F: Any, dropout: float) -> Any:
    """64 values, each 0 or 2 in training, drawn by MXNet's generator; all 1 in prediction mode, or without dropout.

    MXNet tells an operator of a library neither whether this is training nor a seed that `mx.random.seed` repeats.

    No gradient goes through it: every operator with dropout reads this array, and none of their gradients is wanted.
    """
    ones = F.ones((SEED_SIZE,))
    return F.BlockGrad(F.Dropout(ones, p=0.5)) if dropout else ones


class EmbeddingRows:
    """The gradient of an embedding that shares its matrix with the output projection, as one row a token.

    Left to itself MXNet makes two gradients of the matrix's size, all but a few rows of the embedding's own being
    zeros, and then their sum: at 2 x 256 tokens of KoGPT-2 base a twentieth of a step, and 315 MB.

    Parameters
    ----------
    embed : nn.Embedding
    """

    def __init__(self, embed: Any):
        self._weight = embed.weight
        self._pass: tuple[Any, Any] | None = None  # tokens, and the array whose gradient are their rows

    def inputs(self, tokens: Any) -> tuple[Any, Any]:
        """What `embedding` takes as `rows` for these tokens (B, T): the matrix (V, C) and an array (B, T, C)."""
        weight = self._weight.data()
        array = mx.nd.zeros((*tokens.shape, weight.shape[1]), ctx=weight.context)  # whose values are not read
        if mx.autograd.is_recording():
            assert self._pass is None, "a recorded pass before this one still lacks its call of add()"
            array.attach_grad()
            self._pass = tokens, array
        return weight.detach(), array

    def add(self) -> None:
        """After the backward pass of the pass recorded last: adds its rows to the matrix's gradient."""
        assert self._pass is not None, "add() comes once after each recorded pass"
        (tokens, array), self._pass = self._pass, None
        if self._weight.grad_req != "null":
            mx.nd.kogpt2_add_rows(self._weight.grad(), tokens, array.grad)


class FusedCpuOps(StockOps):
    """Fused operators on CPU; ``build.load_cpu_operators`` comes first. Methods as :class:`StockOps` has them.

    Arrays and parameters are float32 either way. Generation takes its logits, and positions after a past, from MXNet's
    own operators: so few numbers gain nothing by fusing.

    Parameters
    ----------
    precision : str
        Of the matrix products: 'float32', or 'bfloat16', whose factors are rounded and whose sums are float32.
    dropout : float
        Probability, on embeddings, attention weights, attention output and feed-forward output. Its random numbers
        come from Philox seeded by MXNet's generator: `mx.random.seed` repeats them, they are not StockOps' own.
    """

    name = "fused"

    def __init__(self, precision: str = "float32", dropout: float = 0.0):
        assert precision in ("float32", "bfloat16"), precision
        super().__init__("float32", dropout)
        self.precision = precision

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
            weight, gradient = rows
            req = requests("null", "null", pos_embed.weight, "null", "write")
            return F.kogpt2_embedding_rows(
                tokens, weight, positions, seed, gradient, p=self.dropout, site=site, req=req
            )
        weight = value(F, embed.weight)
        # embed.weight is the output projection's too.
        req = requests("null", shared_request(embed.weight), pos_embed.weight, "null")
        return F.kogpt2_embedding(tokens, weight, positions, seed, p=self.dropout, site=site, req=req)

    def layer_norm(self, F: Any, data: Any, layer: Any) -> Any:
        req = requests("write", layer.gamma, layer.beta)
        return F.kogpt2_layer_norm(data, value(F, layer.gamma), value(F, layer.beta), req=req)

    def linear(self, F: Any, data: Any, layer: Any) -> Any:
        weight, bias = value(F, layer.weight), value(F, layer.bias)
        req = requests("write", layer.weight, layer.bias)
        return F.kogpt2_linear(data, weight, bias, precision=self.precision, req=req)

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

    def feed_forward(
        self, F: Any, data: Any, hidden_map: Any, out_map: Any, residual: Any, seed: Any, site: int
    ) -> Any:
        return F.kogpt2_feed_forward(
            data,
            value(F, hidden_map.weight),
            value(F, hidden_map.bias),
            value(F, out_map.weight),
            value(F, out_map.bias),
            residual,
            seed,
            p=self.dropout,
            site=site,
            precision=self.precision,
            req=requests("write", hidden_map.weight, hidden_map.bias, out_map.weight, out_map.bias, "write", "null"),
        )[0]

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
        req = requests("write", layer.weight if rows else shared_request(layer.weight), "null")
        weight = value(F, layer.weight)
        return F.kogpt2_cross_entropy(hidden, weight, labels, precision=self.precision, req=req)
