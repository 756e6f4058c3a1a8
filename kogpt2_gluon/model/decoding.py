"""The network one token at a time, with the keys and values of what came before: what generation asks of it.

B is the batch size, T the number of new tokens, C `units`, H `num_heads`, D = C / H, V `vocab_size`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from kogpt2_gluon.model.gpt2 import GPT2Model
from kogpt2_gluon.ops.fused_cpu import FusedCpuOps
from kogpt2_gluon.runtime import mx


class Decoder:
    """Any network, by its own `states`: every step copies the past into longer arrays.

    Parameters
    ----------
    net : GPT2Model
        Not hybridized (:meth:`GPT2Model.for_decoding` gives such a one).
    """

    def __init__(self, net: GPT2Model):
        self._net, self._states = net, None

    def next_logits(self, tokens: Any) -> np.ndarray:
        """Feeds new tokens (B, T), int32; the logits (B, V), float32, of what comes behind the last of them."""
        logits, self._states = self._net(tokens, self._states)
        last: np.ndarray = logits[:, -1].astype("float32").asnumpy()
        return last


@dataclass
class _Layer:
    """A layer's parameters as operators take them, and its cache."""

    attn_ln: tuple[Any, Any]  # gamma, beta
    qkv: tuple[Any, Any]  # weight, bias
    out: tuple[Any, Any]
    ffn_ln: tuple[Any, Any]
    hidden_map: tuple[Any, Any]
    out_map: tuple[Any, Any]
    keys: Any  # (B, H, capacity, D), of which the first places are used
    values: Any


class FusedDecoder(Decoder):
    """A network on CPU over the fused operators: one cache, written in place, and no graph.

    With the operator set's precision bfloat16, matrices are kept in that format for as long as this lives: reading them
    is what a step's time goes to.

    Parameters
    ----------
    net : GPT2Model
        Initialized, with fused CPU operators.
    batch_size : int
        B of every call.
    capacity : int
        Most tokens of a sequence, prompt included.
    """

    def __init__(self, net: GPT2Model, batch_size: int, capacity: int):
        super().__init__(net)
        self._position = 0
        self._num_heads = net.num_heads
        self._packed = net.ops.precision == "bfloat16"
        embed = net._embed.weight.data()
        cache = (batch_size, net.num_heads, capacity, embed.shape[1] // net.num_heads)
        self._embed, self._pos_embed = embed, net._pos_embed.weight.data()
        blocks = zip(net._attn_ln, net._self_attention_layers, net._ffn_ln, net._ffn_layers)
        self._layers = [
            _Layer(
                attn_ln=(attn_ln.gamma.data(), attn_ln.beta.data()),
                qkv=self._linear(attention._multi_head_qkv_proj),
                out=self._linear(attention._out_proj),
                ffn_ln=(ffn_ln.gamma.data(), ffn_ln.beta.data()),
                hidden_map=self._linear(ffn._hidden_map),
                out_map=self._linear(ffn._out_map),
                keys=mx.nd.zeros(cache),
                values=mx.nd.zeros(cache),
            )
            for attn_ln, attention, ffn_ln, ffn in blocks
        ]
        self._final_ln = (net._final_ln.gamma.data(), net._final_ln.beta.data())
        self._logits_proj = (self._matrix(embed), mx.nd.zeros(embed.shape[0]))

    def _linear(self, layer: Any) -> tuple[Any, Any]:
        return self._matrix(layer.weight.data()), layer.bias.data()

    def _matrix(self, weight: Any) -> Any:
        return mx.nd.kogpt2_pack_bfloat16(weight) if self._packed else weight

    def next_logits(self, tokens: Any) -> np.ndarray:
        nd, length = mx.nd, tokens.shape[1]
        position = nd.array([self._position], dtype="int32")
        positions = self._pos_embed[self._position : self._position + length]
        hidden = nd.Embedding(tokens, self._embed, *self._embed.shape) + positions.expand_dims(0)  # (B, T, C)
        linear = nd.kogpt2_decode_linear
        for layer in self._layers:
            qkv = linear(hidden, *layer.qkv, *layer.attn_ln, layer_norm=1)  # (B, T, 3C)
            context = nd.kogpt2_attention_step(qkv, layer.keys, layer.values, position, num_heads=self._num_heads)
            hidden = linear(context, *layer.out, hidden, residual=1)  # (B, T, C)
            inner = linear(hidden, *layer.hidden_map, *layer.ffn_ln, layer_norm=1, activation="gelu")  # (B, T, 4C)
            hidden = linear(inner, *layer.out_map, hidden, residual=1)
        self._position += length
        last = hidden[:, -1]  # (B, C)
        logits: np.ndarray = linear(last, *self._logits_proj, *self._final_ln, layer_norm=1).asnumpy()
        return logits


def decoder_for(net: GPT2Model, batch_size: int, capacity: int) -> Decoder:
    """The fastest decoder for a network's operators; a network that is not hybridized, and initialized."""
    if isinstance(net.ops, FusedCpuOps):
        return FusedDecoder(net, batch_size, capacity)
    return Decoder(net)
