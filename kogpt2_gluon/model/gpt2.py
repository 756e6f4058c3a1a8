"""GPT-2 (Radford et al., 2019) as KoGPT2 v1 defined it: the whole network in one file.

A pre-LayerNorm transformer decoder with learned positions and a tied output projection. Parameter names are those of
the released KoGPT2 weights (SKT-AI/KoGPT2, model/gpt.py), so a released `.params` file loads as it is.

In the comments B is the batch size, T the length of the input, P that of the cached past, C `units`, H `num_heads`,
D = C / H, and V `vocab_size`.
"""

from __future__ import annotations

from typing import Any

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.recipe import ModelRecipe
from kogpt2_gluon.runtime import mx, nlp

nn = mx.gluon.nn

MASKED = -1e4  # added to the scores of later positions; exp() of it is 0 in float32 and in float16


def _linear(units: int, in_units: int, prefix: str, **kwargs: Any) -> Any:
    return nn.Dense(
        units,
        in_units=in_units,
        flatten=False,
        weight_initializer=mx.init.Normal(0.02),
        bias_initializer="zeros",
        prefix=prefix,
        **kwargs,
    )


class CausalSelfAttention(mx.gluon.HybridBlock):
    """Masked multi-head self-attention.

    Inputs:
        - **data**: hidden states of shape (batch_size, length, units)
        - **states**: None, or keys and values of the past, each (batch_size, num_heads, past_length, units/num_heads)

    Outputs:
        - **out**: shape (batch_size, length, units)
        - **new_states**: keys and values of past and input, (batch_size, num_heads, past_length + length,
          units/num_heads) each
    """

    def __init__(self, units: int, num_heads: int, dropout: float, prefix: str | None = None, params=None):
        super().__init__(prefix=prefix, params=params)
        assert units % num_heads == 0
        self._num_heads = num_heads
        self._scale = (units // num_heads) ** -0.5
        with self.name_scope():
            self._multi_head_qkv_proj = _linear(3 * units, units, "qkv_proj_")
            self._attn_drop = nn.Dropout(dropout)
            self._out_proj = _linear(units, units, "out_proj_")
            self._drop = nn.Dropout(dropout)

    def hybrid_forward(self, F, data, states=None):
        qkv = self._multi_head_qkv_proj(data)  # (B, T, 3C)
        query, key, value = (self._split_heads(part) for part in F.split(qkv, num_outputs=3, axis=2))  # (B, H, T, D)
        if states is not None:
            key = F.concat(states[0], key, dim=2)  # (B, H, P + T, D)
            value = F.concat(states[1], value, dim=2)
        merge = {"shape": (-3, 0, 0)}  # batch and heads into one axis, as batch_dot wants
        scores = F.batch_dot(query.reshape(**merge) * self._scale, key.reshape(**merge), transpose_b=True)
        weights = F.softmax(F.broadcast_add(scores, self._mask(F, query, key)), axis=-1)  # (BH, T, P + T)
        context = F.batch_dot(self._attn_drop(weights), value.reshape(**merge))  # (BH, T, D)
        context = context.reshape((-4, -1, self._num_heads, 0, 0)).transpose((0, 2, 1, 3))  # (B, T, H, D)
        return self._drop(self._out_proj(context.reshape((0, 0, -3)))), [key, value]

    def _split_heads(self, data):
        return data.reshape((0, 0, -4, self._num_heads, -1)).transpose((0, 2, 1, 3))

    @staticmethod
    def _mask(F, query, key):
        """0 where a query may look, MASKED where the key comes later: (1, T, P + T)."""
        key_position = F.contrib.arange_like(key, axis=2)  # 0 .. P + T - 1
        # The queries are the last T of these positions.
        query_position = F.reverse(
            F.slice_like(F.reverse(key_position, axis=0), F.contrib.arange_like(query, axis=2)), axis=0
        )
        later = F.broadcast_greater(key_position.expand_dims(0), query_position.expand_dims(1))
        return later.expand_dims(0) * MASKED


class FeedForward(mx.gluon.HybridBlock):
    """Two linear maps around a GELU (the erf form); `hidden_size` between them.

    Inputs:
        - **data**: hidden states of shape (batch_size, length, units)

    Outputs:
        - **out**: shape (batch_size, length, units)
    """

    def __init__(self, units: int, hidden_size: int, dropout: float, prefix: str | None = None, params=None):
        super().__init__(prefix=prefix, params=params)
        with self.name_scope():
            self._hidden_map = _linear(hidden_size, units, "hidden_map_")
            self._act = nlp.model.GELU()
            self._out_map = _linear(units, hidden_size, "out_map_")
            self._drop = nn.Dropout(dropout)

    def hybrid_forward(self, F, data):
        return self._drop(self._out_map(self._act(self._hidden_map(data))))


class GPT2Model(mx.gluon.HybridBlock):
    """GPT-2 with a language-model head.

    Parameters
    ----------
    units : int
        Width of the hidden states; the feed-forward layers are four times as wide.
    vocab_size : int
        Rows of the embedding.
    max_length : int
        Longest sequence, cached past included.
    num_layers, num_heads : int
        Blocks, and attention heads in each.
    dropout : float
        On embeddings, attention weights, attention output and feed-forward output.

    Inputs:
        - **tokens**: ids of shape (batch_size, length)
        - **states**: None, or the list of 2 * num_layers arrays that an earlier call returned

    Outputs:
        - **logits**: shape (batch_size, length, vocab_size)
        - **new_states**: key and value of each layer, each (batch_size, num_heads, past_length + length,
          units/num_heads)

    A hybridized net keeps to the kind of `states`, None or list, of its first call.
    """

    def __init__(
        self,
        units: int,
        vocab_size: int,
        max_length: int,
        num_layers: int,
        num_heads: int,
        dropout: float = 0.0,
        prefix: str | None = None,
        params=None,
    ):
        super().__init__(prefix=prefix, params=params)
        self.max_length = max_length
        self._num_layers = num_layers
        self._sizes = (units, vocab_size, max_length, num_layers, num_heads, dropout)
        with self.name_scope():
            self._pos_embed = nn.Embedding(
                max_length, units, weight_initializer=mx.init.Normal(0.01), prefix="pos_embed_"
            )
            self._embed = nn.Embedding(vocab_size, units, weight_initializer=mx.init.Normal(0.02), prefix="embed_")
            self._drop = nn.Dropout(dropout)
            self._logits_proj = nn.Dense(
                vocab_size, in_units=units, use_bias=False, flatten=False, params=self._embed.params
            )
            self._self_attention_layers = nn.HybridSequential()
            self._ffn_layers = nn.HybridSequential()
            self._attn_ln = nn.HybridSequential()
            self._ffn_ln = nn.HybridSequential()
            for i in range(num_layers):
                self._self_attention_layers.add(CausalSelfAttention(units, num_heads, dropout, prefix=f"self_attn{i}_"))
                self._ffn_layers.add(FeedForward(units, 4 * units, dropout, prefix=f"ffn{i}_"))
                self._attn_ln.add(nn.LayerNorm(epsilon=1e-5, in_channels=units, prefix=f"attn_ln{i}_"))
                self._ffn_ln.add(nn.LayerNorm(epsilon=1e-5, in_channels=units, prefix=f"ffn_ln{i}_"))
            # The released files carry the last layer's number in this name.
            self._final_ln = nn.LayerNorm(epsilon=1e-5, in_channels=units, prefix=f"final_ln{num_layers - 1}_")

    def hybrid_forward(self, F, tokens, states=None):
        embedded = self._embed(tokens)  # (B, T, C)
        positions = F.contrib.arange_like(embedded, axis=1)  # (T,)
        if states is not None:
            past_positions = F.contrib.arange_like(states[0], axis=2)  # (P,)
            positions = F.broadcast_add(positions, F.max(past_positions) + 1)
        hidden = self._drop(F.broadcast_add(embedded, self._pos_embed(positions).expand_dims(0)))
        new_states = []
        for i in range(self._num_layers):
            layer_states = None if states is None else states[2 * i : 2 * i + 2]
            attended, key_value = self._self_attention_layers[i](self._attn_ln[i](hidden), layer_states)
            hidden = hidden + attended
            hidden = hidden + self._ffn_layers[i](self._ffn_ln[i](hidden))
            new_states += key_value
        return self._logits_proj(self._final_ln(hidden)), new_states

    def for_decoding(self) -> GPT2Model:
        """A net over the same parameters that is not hybridized, so that it takes any `states` and any length.

        Ask before the parameters' `grad_req` is changed: Gluon shares only what was declared alike.
        """
        return GPT2Model(*self._sizes, prefix=self.prefix, params=self.collect_params())


def build_model(recipe: ModelRecipe) -> GPT2Model:
    """The network that a recipe describes, not yet initialized."""
    return GPT2Model(
        units=recipe.units,
        vocab_size=recipe.vocab_size,
        max_length=recipe.max_length,
        num_layers=recipe.num_layers,
        num_heads=recipe.num_heads,
        dropout=recipe.dropout,
    )


def named_parameters(net: GPT2Model) -> dict:
    """{structural name: Parameter}, the names of a `.params` file; the tied matrix stands under both of its names."""
    return dict(net._collect_params_with_prefix())  # what Block.save_parameters uses; Gluon has no public name for it


def structural_parameters(net: GPT2Model) -> dict:
    """{structural name: Parameter}, each parameter once: the tied matrix under its embedding's name."""
    once: dict = {}
    for name, parameter in named_parameters(net).items():
        once.setdefault(id(parameter), (name, parameter))
    return dict(once.values())


def load_arrays(net: GPT2Model, arrays: dict, source: str) -> None:
    """Copies {structural name: array} into an initialized network; DataError names what does not fit."""
    parameters = named_parameters(net)
    for name in sorted(parameters.keys() ^ arrays.keys()):
        side = "the model" if name in parameters else "the file"
        raise DataError(f"{source}: parameter {name} is in {side} only; it was saved by another network")
    for name, parameter in parameters.items():
        if tuple(parameter.shape) != arrays[name].shape:
            raise DataError(
                f"{source}: {name} has shape {arrays[name].shape}, the model wants {tuple(parameter.shape)}"
            )
        parameter.set_data(mx.nd.array(arrays[name]))
