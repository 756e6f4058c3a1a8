"""Runs the network one token at a time, with cached keys and values of the tokens before. Generation uses it.

B is the batch size, T the number of new tokens, C `units`, H `num_heads`, D = C / H, V `vocab_size`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.model.gpt2 import GPT2Model
from kogpt2_gluon.ops.fused_cpu import FusedCpuOps

FEW_TEXTS = 4  # at once; with more, products cost more than reading the rows, and tiles are faster


class Decoder:
    """Decodes with any network by its own `states`; every step copies the past into longer arrays.

    Parameters
    ----------
    net : GPT2Model
        Not hybridized, as :meth:`GPT2Model.for_decoding` makes it.
    """

    def __init__(self, net: GPT2Model):
        self._net, self._states = net, None

    def next_logits(self, tokens: Any) -> np.ndarray:
        """Feeds new tokens (B, T), int32; returns the logits (B, V), float32, of the token after the last of them."""
        logits, self._states = self._net(tokens, self._states)
        last: np.ndarray = logits[:, -1].astype("float32").asnumpy()
        return last


class FusedWeights:
    """The parameters of a network with fused CPU operators in the form that decoders use, made once for many texts.

    If the operator set's precision is bfloat16, matrices are copied into that format, with the values of this moment,
    because a step spends its time on reading them. For a few texts at once they are kept row by row; for more, in the
    tiles that oneDNN works with. Otherwise they are the network's own arrays.

    Parameters
    ----------
    net : GPT2Model
        Initialized.
    """

    def __init__(self, net: GPT2Model):
        self._net: GPT2Model = net
        self._made: dict[str, _Matrices] = {}
        self._rounded = net.ops.precision == "bfloat16"
        self.shared = {"num_heads": net.num_heads, "activation": net.ops.activation}  # by all layers
        self.num_heads = net.num_heads
        self.embed, self.pos_embed = net._embed.weight.data(), net._pos_embed.weight.data()

    def matrices(self, batch_size: int) -> _Matrices:
        """The matrices in the form for `batch_size` texts at once."""
        convert = mx.nd.kogpt2_pack_bfloat16 if batch_size <= FEW_TEXTS else mx.nd.kogpt2_tile_bfloat16
        form = convert.__name__ if self._rounded else ""
        if form not in self._made:
            self._made[form] = _Matrices(self._net, convert if self._rounded else lambda weight: weight)
        return self._made[form]


class _Matrices:
    """All layers and the map to logits, with weights that `convert` has converted."""

    def __init__(self, net: GPT2Model, convert: Callable[[Any], Any]):
        def linear(layer: Any) -> tuple[Any, Any]:
            return convert(layer.weight.data()), layer.bias.data()

        blocks = zip(net._attn_ln, net._self_attention_layers, net._ffn_ln, net._ffn_layers)
        # A layer's parameters in the order of kogpt2_decoder_layer.
        self.layers = [
            (
                *_layer_norm(attn_ln),
                *linear(attention._multi_head_qkv_proj),
                *linear(attention._out_proj),
                *_layer_norm(ffn_ln),
                *linear(ffn._hidden_map),
                *linear(ffn._out_map),
            )
            for attn_ln, attention, ffn_ln, ffn in blocks
        ]
        self.final_ln = _layer_norm(net._final_ln)
        embed = net._embed.weight.data()
        self.logits_proj = (convert(embed), mx.nd.zeros(embed.shape[0]))


def _layer_norm(layer: Any) -> tuple[Any, Any]:
    return layer.gamma.data(), layer.beta.data()


class FusedDecoder(Decoder):
    """Decodes on a CPU with the fused operators: one cache, written in place, and no graph.

    Parameters
    ----------
    weights : FusedWeights
    batch_size : int
        B of every call.
    capacity : int
        The most tokens of a sequence, prompt included.
    """

    def __init__(self, weights: FusedWeights, batch_size: int, capacity: int):
        self._weights, self._matrices, self._position = weights, weights.matrices(batch_size), 0
        units = weights.embed.shape[1]
        cache = (
            batch_size,
            weights.num_heads,
            capacity,
            units // weights.num_heads,
        )  # (B, H, capacity, D)
        self._caches = [(mx.nd.zeros(cache), mx.nd.zeros(cache)) for _ in self._matrices.layers]  # keys, values

    def next_logits(self, tokens: Any) -> np.ndarray:
        nd, weights, matrices, length = mx.nd, self._weights, self._matrices, tokens.shape[1]
        position = nd.array([self._position], dtype="int32")
        positions = weights.pos_embed[self._position : self._position + length].expand_dims(0)
        hidden = nd.Embedding(tokens, weights.embed, *weights.embed.shape) + positions  # (B, T, C)
        for layer, cache in zip(matrices.layers, self._caches):
            hidden = nd.kogpt2_decoder_layer(hidden, *cache, position, *layer, **weights.shared)
        self._position += length
        last = hidden[:, -1]  # (B, C)
        logits = nd.kogpt2_decode_linear(last, *matrices.logits_proj, *matrices.final_ln, layer_norm=1)
        scores: np.ndarray = logits.asnumpy()
        return scores


def weights_for(net: GPT2Model) -> FusedWeights | None:
    """The weights that decoders of this network share, made once; None if they use the network itself."""
    return FusedWeights(net) if isinstance(net.ops, FusedCpuOps) else None


def decoder_for(net: GPT2Model, batch_size: int, capacity: int, weights: FusedWeights | None = None) -> Decoder:
    """The fastest decoder for the operators of a network, which is initialized and not hybridized.

    `weights` is the result of :func:`weights_for`; None: they are made now.
    """
    weights = weights or weights_for(net)
    return FusedDecoder(weights, batch_size, capacity) if weights else Decoder(net)
