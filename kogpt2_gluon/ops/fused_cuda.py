"""The operator set of the fused CUDA operators, which are in ops/src/cuda; the products between them are cuBLAS's.

**It has never been run on a GPU.** MXNet 1.9.1 has code for V100, T4, A100 and A10G, and none of these was available.
The tests compare it with StockOps in float32, with the operators' own sources compiled for the host.
"""

from __future__ import annotations

import functools
from typing import Any

from kogpt2_gluon.errors import KoGPT2Error
from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.ops.build import OperatorsUnavailable, cache_folder
from kogpt2_gluon.ops.build_cuda import build_cuda
from kogpt2_gluon.ops.load import load_operators
from kogpt2_gluon.ops.operator_set import EPSILON, OperatorSet, draw_seed
from kogpt2_gluon.ops.parameters import requests, value


@functools.cache
def load_cuda_operators() -> None:
    """Registers the operators in this process's MXNet as ``mx.nd.kogpt2_cuda_*``, once; builds them first if needed.

    Raises OperatorsUnavailable if they cannot be built or loaded.
    """
    try:
        library = build_cuda(cache_folder()).mxnet_library
        assert library, "MXNet is imported, so its header is installed"
        load_operators(library)
    except (KoGPT2Error, OSError, mx.MXNetError) as error:
        raise OperatorsUnavailable(str(error).strip().partition("\n")[0]) from None


class FusedCudaOps(OperatorSet):
    """Fused operators on NVIDIA GPUs. Call `load_cuda_operators` first.

    The embedding and the products are MXNet's own operators.

    Parameters
    ----------
    precision : str
        'float32', or 'float16' for parameters that the caller has cast: arrays are float16, arithmetic is float32.
    dropout : float
        Probability, on embeddings, attention weights, attention output and feed-forward output. Random numbers are
        those of FusedCpuOps, but the embedding's are MXNet's.
    """

    name = "fused"
    precisions = ("float32", "float16")

    def dropout_seed(self, F: Any) -> Any:
        return draw_seed(F, self.dropout)

    def layer_norm(self, F: Any, data: Any, layer: Any) -> Any:
        gamma, beta = value(F, layer.gamma), value(F, layer.beta)
        req = requests("write", layer.gamma, layer.beta)
        return F.kogpt2_cuda_layer_norm(data, gamma, beta, epsilon=EPSILON, req=req)[0]

    def linear_dropout_residual(self, F: Any, data: Any, layer: Any, residual: Any, seed: Any, site: int) -> Any:
        return F.kogpt2_cuda_bias_dropout_residual(
            self._product(F, data, layer),
            value(F, layer.bias),
            residual,
            seed,
            p=self.dropout,
            site=site,
            req=requests("write", layer.bias, "write", "null"),
        )

    def feed_forward(self, F: Any, data: Any, norm: Any, hidden_map: Any, out_map: Any, seed: Any, site: int) -> Any:
        if self.activation == "gelu":
            product, bias = self._product(F, self.layer_norm(F, data, norm), hidden_map), value(F, hidden_map.bias)
            hidden = F.kogpt2_cuda_bias_gelu(product, bias, seed, req=requests("write", hidden_map.bias, "null"))
        else:  # there is no fused kernel for the other form
            hidden = self._gelu(F, self.norm_linear(F, data, norm, hidden_map))
        return self.linear_dropout_residual(F, hidden, out_map, data, seed, site)

    def attention(self, F: Any, qkv: Any, units: int, num_heads: int, seed: Any, site: int) -> Any:
        query, key, values = self._split(F, qkv, num_heads)
        return self._attend_fused(F, query, key, values, units, num_heads, seed, p=self.dropout, site=site)

    def attention_cached(
        self, F: Any, qkv: Any, units: int, num_heads: int, past_key: Any, past_values: Any
    ) -> tuple[Any, list]:
        query, key, values = self._split(F, qkv, num_heads)
        key, values = F.concat(past_key, key, dim=2), F.concat(past_values, values, dim=2)
        seed = draw_seed(F, dropout=0.0)
        return self._attend_fused(F, query, key, values, units, num_heads, seed), [key, values]

    def cross_entropy(self, F: Any, hidden: Any, layer: Any, labels: Any, rows: Any = None) -> Any:
        logits = self.logits(F, hidden, layer)
        return F.kogpt2_cuda_cross_entropy(logits, F.cast(labels, "int32"), req=requests("write", "null"))[0]

    def _attend_fused(
        self, F: Any, query: Any, key: Any, values: Any, units: int, num_heads: int, seed: Any, **dropout: Any
    ) -> Any:
        query, key, values = (self._merge_batch(part) for part in (query, key, values))
        scores = F.batch_dot(query, key, transpose_b=True)  # (BH, T, P + T)
        scale = (units // num_heads) ** -0.5
        weights = F.kogpt2_cuda_causal_softmax(scores, seed, scale=scale, req=requests("write", "null"), **dropout)[0]
        return self._merge_heads(F.batch_dot(weights, values), num_heads)
