"""GPT-2 (Radford et al., 2019) as KoGPT2 v1 defined it: the whole network in one file.

A pre-LayerNorm transformer decoder with learned positions and a tied output projection. Parameter names are those of
the released KoGPT2 weights (SKT-AI/KoGPT2, model/gpt.py), so a released `.params` file loads as it is. The blocks hold
the parameters and say what is computed; an operator set (:mod:`kogpt2_gluon.ops`) computes it.

In the comments B is the batch size, T the length of the input, P that of the cached past, C `units`, H `num_heads`,
D = C / H, and V `vocab_size`.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import Any, NamedTuple

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.ops.parameters import RetracedBlock
from kogpt2_gluon.ops.stock import StockOps
from kogpt2_gluon.recipe_sections import ModelRecipe

nn = mx.gluon.nn


def _linear(units: int, in_units: int, prefix: str) -> Any:
    return nn.Dense(
        units,
        in_units=in_units,
        flatten=False,
        weight_initializer=mx.init.Normal(0.02),
        bias_initializer="zeros",
        prefix=prefix,
    )


def _embedding(rows: int, units: int, deviation: float, prefix: str) -> Any:
    return nn.Embedding(rows, units, weight_initializer=mx.init.Normal(deviation), prefix=prefix)


class Norm(NamedTuple):
    """The parameters of a LayerNorm, for the block that begins with it; the network holds the nn.LayerNorm.

    As a second owner's child the nn.LayerNorm would have two names in a `.params` file.
    """

    gamma: Any
    beta: Any


class CausalSelfAttention(RetracedBlock):
    """LayerNorm and masked multi-head self-attention, added to the residual stream.

    Inputs:
        - **data**: the residual stream, shape (batch_size, length, units)
        - **seed**: the seed of dropout, from the operator set
        - **states**: None, or keys and values of the past, each (batch_size, num_heads, past_length, units/num_heads)

    Outputs:
        - **out**: shape (batch_size, length, units)
        - **new_states**: keys and values of past and input, (batch_size, num_heads, past_length + length,
          units/num_heads) each
    """

    def __init__(self, units: int, num_heads: int, norm: Norm, ops: Any, site: int, prefix: str | None = None):
        super().__init__(prefix=prefix)
        assert units % num_heads == 0
        self._units, self._num_heads = units, num_heads
        self._norm, self._ops, self._site = norm, ops, site
        with self.name_scope():
            self._multi_head_qkv_proj = _linear(3 * units, units, "qkv_proj_")
            self._out_proj = _linear(units, units, "out_proj_")

    def hybrid_forward(self, F, data, seed, states=None):
        ops, units, num_heads = self._ops, self._units, self._num_heads
        qkv = ops.norm_linear(F, data, self._norm, self._multi_head_qkv_proj)  # (B, T, 3C)
        if states is None:
            context = ops.attention(F, qkv, units, num_heads, seed, self._site)  # (B, T, C)
            new_states = ops.keys_and_values(F, qkv, num_heads)  # (B, H, T, D) each
        else:
            context, new_states = ops.attention_cached(F, qkv, units, num_heads, *states)  # (B, H, P + T, D) each
        return ops.linear_dropout_residual(F, context, self._out_proj, data, seed, self._site + 1), new_states


class FeedForward(RetracedBlock):
    """LayerNorm and two linear maps around a GELU, added to the residual stream.

    Inputs:
        - **data**: the residual stream, shape (batch_size, length, units)
        - **seed**: the seed of dropout, from the operator set

    Outputs:
        - **out**: shape (batch_size, length, units)
    """

    def __init__(self, units: int, hidden_size: int, norm: Norm, ops: Any, site: int, prefix: str | None = None):
        super().__init__(prefix=prefix)
        self._norm, self._ops, self._site = norm, ops, site
        with self.name_scope():
            self._hidden_map = _linear(hidden_size, units, "hidden_map_")
            self._out_map = _linear(units, hidden_size, "out_map_")

    def hybrid_forward(self, F, data, seed):
        return self._ops.feed_forward(F, data, self._norm, self._hidden_map, self._out_map, seed, self._site)


class GPT2Model(RetracedBlock):
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
        Applied to embeddings, attention weights, attention output and feed-forward output.
    ops : operator set, or None
        The operators to compute with, made for the same `dropout`; None: ``StockOps(dropout=dropout)``.

    Inputs:
        - **tokens**: ids of shape (batch_size, length)
        - **states**: None, or the list of 2 * num_layers arrays that an earlier call returned

    Outputs:
        - **logits**: shape (batch_size, length, vocab_size)
        - **new_states**: key and value of each layer, each (batch_size, num_heads, past_length + length,
          units/num_heads)

    A hybridized net accepts only the kind of `states`, None or list, that its first call had.
    """

    prompt_length = 0  # trained vectors in front of a text; model/prompt.py has networks with some

    def __init__(
        self,
        units: int,
        vocab_size: int,
        max_length: int,
        num_layers: int,
        num_heads: int,
        dropout: float = 0.0,
        ops: Any = None,
        prefix: str | None = None,
        params=None,
    ):
        super().__init__(prefix=prefix, params=params)
        self.max_length, self.num_heads = max_length, num_heads
        self.ops = ops or StockOps(dropout=dropout)
        assert self.ops.dropout == dropout, f"operators made for dropout {self.ops.dropout}, a network with {dropout}"
        self._num_layers = num_layers
        self._sizes = (units, vocab_size, max_length, num_layers, num_heads, dropout)
        with self.name_scope():
            self._pos_embed = _embedding(max_length, units, 0.01, prefix="pos_embed_")
            self._embed = _embedding(vocab_size, units, 0.02, prefix="embed_")
            self._logits_proj = nn.Dense(
                vocab_size, in_units=units, use_bias=False, flatten=False, params=self._embed.params
            )
            self._self_attention_layers = nn.HybridSequential()
            self._ffn_layers = nn.HybridSequential()
            self._attn_ln = nn.HybridSequential()
            self._ffn_ln = nn.HybridSequential()
            for i in range(num_layers):
                site = 3 * i + 1  # of three dropouts a layer; 0 is the embedding's
                norms = [nn.LayerNorm(in_channels=units, prefix=f"{name}_ln{i}_") for name in ("attn", "ffn")]
                attn_norm, ffn_norm = (Norm(each.gamma, each.beta) for each in norms)
                self._self_attention_layers.add(
                    CausalSelfAttention(units, num_heads, attn_norm, self.ops, site, prefix=f"self_attn{i}_")
                )
                self._ffn_layers.add(FeedForward(units, 4 * units, ffn_norm, self.ops, site + 2, prefix=f"ffn{i}_"))
                self._attn_ln.add(norms[0])
                self._ffn_ln.add(norms[1])
            # The released files carry the last layer's number in this name.
            self._final_ln = nn.LayerNorm(in_channels=units, prefix=f"final_ln{num_layers - 1}_")

    def hybrid_forward(self, F, tokens, states=None):
        hidden, new_states = self.hidden_states(F, tokens, states)
        return self.ops.logits(F, hidden, self._logits_proj), new_states

    def hidden_states(self, F, tokens, states=None, rows=None, choose=None):
        """The input of the output projection, (batch_size, length, units), and new_states.

        `choose`, if only some places are wanted, takes the hidden states after the last layer's attention to those of
        these places: from there on no place depends on another.
        """
        seed = self.ops.dropout_seed(F)
        embedded = self.embedded(F, tokens, _past_length(F, states), seed, rows)
        return self.layers(F, embedded, seed, states, choose)

    def embedded(self, F, tokens, past_length, seed, rows=None):
        """The input of the first layer, (batch_size, length, units); the arguments are those of the operator set."""
        return self.ops.embedding(F, tokens, self._embed, self._pos_embed, past_length, seed, site=0, rows=rows)

    def layers(self, F, hidden, seed, states=None, choose=None):
        """Returns what :meth:`hidden_states` does, given the input of the first layer."""
        new_states = []
        for i, (attention, ffn) in enumerate(zip(self._self_attention_layers, self._ffn_layers)):
            layer_states = None if states is None else states[2 * i : 2 * i + 2]
            hidden, key_value = attention(hidden, seed, layer_states)
            if choose and i == self._num_layers - 1:
                hidden = choose(hidden)
            hidden = ffn(hidden, seed)
            new_states += key_value
        return self.ops.layer_norm(F, hidden, self._final_ln), new_states

    def embedding_rows(self):
        """Keeps the gradient of the embedding apart from that of the projection; see the operator set."""
        return self.ops.embedding_rows(self._embed)

    def token_losses(self, F, tokens, labels, rows=None):
        """The cross-entropy of each label, (batch_size, length) in float32, without making the logits an output."""
        hidden, _ = self.hidden_states(F, tokens, rows=rows)
        return self.ops.cross_entropy(F, hidden, self._logits_proj, labels, rows)

    def for_decoding(self) -> GPT2Model:
        """A net over the same parameters that is not hybridized, so that it takes any `states` and any length."""
        return self.with_ops(self.ops)

    def with_ops(self, ops: Any) -> GPT2Model:
        """A net over the same parameters, and over the operator set `ops`.

        Call it before the parameters' `grad_req` is changed: Gluon shares only parameters that were declared alike.
        """
        return GPT2Model(*self._sizes, ops=ops, prefix=self.prefix, params=self.collect_params())


def _past_length(F, states):
    """The length of the cached past, an array of shape (1,) in float32; None without states."""
    if states is None:
        return None
    one_column = F.slice_axis(states[0], axis=3, begin=0, end=1)  # (B, H, P, 1): states may be float16
    return F.max(F.contrib.arange_like(F.cast(one_column, "float32"), axis=2)) + 1


def build_model(recipe: ModelRecipe, ops: Any = None) -> GPT2Model:
    """The network that a recipe describes, over an operator set (None: stock MXNet), not yet initialized."""
    return GPT2Model(
        units=recipe.units,
        vocab_size=recipe.vocab_size,
        max_length=recipe.max_length,
        num_layers=recipe.num_layers,
        num_heads=recipe.num_heads,
        dropout=recipe.dropout,
        ops=ops or StockOps(dropout=recipe.dropout, activation=recipe.activation),
    )


def named_parameters(net: GPT2Model) -> dict:
    """{structural name: Parameter}, by the names of a `.params` file; the tied matrix is there under both its names."""
    return dict(net._collect_params_with_prefix())  # what Block.save_parameters uses; Gluon has no public name for it


def structural_parameters(net: GPT2Model) -> dict:
    """{structural name: Parameter}, each parameter once; the tied matrix has the name of the embedding."""
    once: dict = {}
    for name, parameter in named_parameters(net).items():
        once.setdefault(id(parameter), (name, parameter))
    return dict(once.values())


def load_arrays(net: GPT2Model, arrays: Mapping, source: str, but_for: Container[str] = ()) -> None:
    """Copies {structural name: array} into an initialized network; DataError names what does not fit.

    Parameters `but_for` stay as they are, and arrays of these names are left out.
    """
    parameters = {name: each for name, each in named_parameters(net).items() if name not in but_for}
    check_names(parameters, [name for name in arrays if name not in but_for], source)
    for name, parameter in parameters.items():
        array = arrays[name]
        check_shape(name, parameter, array.shape, source)
        parameter.set_data(mx.nd.array(array))


def check_names(parameters: Mapping, arrays: Iterable[str], source: str) -> None:
    """DataError, naming a parameter, unless a network and a file have the same ones."""
    for name in sorted(parameters.keys() ^ set(arrays)):
        side = "the model" if name in parameters else "the file"
        raise DataError(f"{source}: parameter {name} is in {side} only; it was saved by another network")


def check_shape(name: str, parameter: Any, shape: tuple, source: str) -> None:
    """DataError unless a parameter has the shape of a file's array."""
    if tuple(parameter.shape) != shape:
        raise DataError(f"{source}: {name} has shape {shape}, the model needs {tuple(parameter.shape)}")
