"""The whole network as one operator over cached keys and values, with its matrices in a smaller form: for generation.

model/slots.py keeps the caches of several texts. M is the number of tokens in a pass, R that of texts, C `units`, H
`num_heads`, D = C / H, V `vocab_size`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.machine.memory import in_huge_pages, untouched
from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.model.coded_weights import CODED, MATRICES, codes_for, note_on, packed
from kogpt2_gluon.model.gpt2 import GPT2Model
from kogpt2_gluon.ops.fused_cpu import FusedCpuOps

WEIGHTS = ("float32", "bfloat16", "int8", *CODED)


class FusedWeights:
    """The parameters of a network with fused CPU operators in the form that decoders use, made once for many texts.

    A step spends its time on reading matrices, so smaller ones are faster. They have the values of this moment.
    Those in float32 are the network's own arrays.

    Parameters
    ----------
    net : GPT2Model
        Initialized.
    weights : str
        The numbers of the matrices: 'float32'; 'bfloat16'; 'int8', with a float32 scale for each row; '1bit' to '4bit',
        binary codes made here; 'codes', those of the network (:mod:`.coded_weights`). With codes the logits' matrix,
        which is the embedding, is int8 if the operator set's precision is bfloat16, and float32 if it is that. The
        empty string: all have that precision.
    """

    def __init__(self, net: GPT2Model, weights: str = ""):
        if weights not in ("", *WEIGHTS):
            raise RecipeError(f"weights={weights}: one of {', '.join(WEIGHTS)}")
        self.form, self.precision = weights or net.ops.precision, net.ops.precision
        self.codes = codes_for(net, weights) if weights in CODED else {}
        self.num_heads, self.num_layers = net.num_heads, len(net._ffn_layers)
        self._settings = {"num_heads": net.num_heads, "activation": net.ops.activation, "precision": net.ops.precision}
        self.embed, self.pos_embed = net._embed.weight.data(), net._pos_embed.weight.data()
        no_bias = mx.nd.zeros(self.embed.shape[0])
        self._parameters = Matrices(_layers_of(net), _layer_norm(net._final_ln), (self.embed, no_bias))
        self._matrices: Matrices | None = None

    def matrices(self) -> Matrices:
        """The matrices in their form, made when they are first asked for."""
        if self._matrices is None:
            layers, final_ln, (logits_weight, no_bias) = self._parameters
            form = self.precision if self.codes else self.form
            projection = (*_converted([logits_weight], self._logits_form), no_bias)
            made = [self._layer(number, layer, form) for number, layer in enumerate(layers)]
            self._matrices = Matrices(made, final_ln, projection)
        return self._matrices

    @property
    def _logits_form(self) -> str:
        """The form of the logits' matrix, which takes the most time of a step with codes."""
        if not self.codes:
            return self.form
        return "int8" if self.precision == "bfloat16" else self.precision

    @property
    def note(self) -> str:
        """Says in a line how large codes are and what is not quantised; empty without codes."""
        if not self.codes:
            return ""
        logits_bytes = self.embed.size * {"int8": 1, "float32": 4}[self._logits_form]
        logits = f"{self._logits_form}, {logits_bytes / 1e6:,.1f} MB"
        return note_on(self.codes, self.num_layers * len(MATRICES), logits, self.precision)

    def _layer(self, number: int, arrays: Sequence[Any], form: str) -> list[Any]:
        """Returns the arrays of a layer, its matrices as codes where there are some, and else in a form."""
        places = [place for place, each in enumerate(arrays) if each.ndim == 2]
        names = {place: name.format(number) for place, name in zip(places, MATRICES)}
        coded = {place: self.codes[name] for place, name in names.items() if name in self.codes}
        plain = iter(_converted([each for place, each in enumerate(arrays) if place not in coded], form))
        codes = iter(_copied_to_huge_pages([packed(each) for each in coded.values()]))
        return [next(codes) if place in coded else next(plain) for place in range(len(arrays))]

    def caches(self, num_slots: int, capacity: int) -> list[tuple[Any, Any]]:
        """Keys and values of each layer, (num_slots, H, capacity, D) each, in the precision of the operators.

        They are not written yet, and take memory as texts grow.
        """
        units = self.embed.shape[1]
        shape, dtype = (num_slots, self.num_heads, capacity, units // self.num_heads), "float32"
        if self.precision == "bfloat16":
            shape, dtype = (*shape[:3], 2 * shape[3]), "uint8"
        return [(untouched(shape, dtype), untouched(shape, dtype)) for _ in range(self.num_layers)]

    def read(
        self,
        matrices: Matrices,
        caches: Sequence[tuple[Any, Any]],
        tokens: Any,
        runs: Sequence[tuple[int, int, int]],
        last_only: bool = False,
        embed: Any = None,
    ) -> Any:
        """Sends M tokens (M,) through the network: R runs, each of them (slot, position, number of tokens).

        `embed` are other vectors (rows, C) that the tokens number, in the place of the network's embedding. Returns the
        last layer's hidden states after the final LayerNorm, (M, C) or, of the runs' last tokens, (R, C).
        """
        layers = [each for cache, layer in zip(caches, matrices.layers) for each in (*cache, *layer)]
        return mx.nd.kogpt2_decoder(
            tokens,
            mx.nd.array(np.array(runs), dtype="int32"),
            self.embed if embed is None else embed,
            self.pos_embed,
            *matrices.final_ln,
            *layers,
            num_layers=self.num_layers,
            last_only=int(last_only),
            **self._settings,
        )


class Matrices(NamedTuple):
    """All layers, each with its parameters in the order of kogpt2_decoder, and the map to logits."""

    layers: Sequence[Sequence[Any]]
    final_ln: tuple[Any, Any]
    logits_proj: tuple[Any, Any]


def _layers_of(net: GPT2Model) -> list[tuple[Any, ...]]:
    """The parameters of each layer in the order of kogpt2_decoder."""

    def linear(layer: Any) -> tuple[Any, Any]:
        return layer.weight.data(), layer.bias.data()

    return [
        (
            *_layer_norm(attn_ln),
            *linear(attention._multi_head_qkv_proj),
            *linear(attention._out_proj),
            *_layer_norm(ffn_ln),
            *linear(ffn._hidden_map),
            *linear(ffn._out_map),
        )
        for attn_ln, attention, ffn_ln, ffn in zip(
            net._attn_ln, net._self_attention_layers, net._ffn_ln, net._ffn_layers
        )
    ]


def _layer_norm(layer: Any) -> tuple[Any, Any]:
    return layer.gamma.data(), layer.beta.data()


def _converted(arrays: Sequence[Any], form: str) -> list[Any]:
    """Arrays, of which those with two axes are matrices that get a form: 'float32', 'bfloat16' or 'int8'."""
    nd = mx.nd
    if form == "float32" or all(each.ndim == 1 for each in arrays):
        return list(arrays)
    convert = {"bfloat16": nd.kogpt2_pack_bfloat16, "int8": nd.kogpt2_pack_int8}[form]
    shapes = [_packed_shape(each.shape, form) if each.ndim == 2 else None for each in arrays]
    places = iter(in_huge_pages([shape for shape in shapes if shape]))
    return [convert(each, out=next(places)) if shape else each for each, shape in zip(arrays, shapes)]


def _copied_to_huge_pages(arrays: Sequence[Any]) -> list[Any]:
    """Returns copies of arrays of bytes that are read faster."""
    if not arrays:
        return []
    places = in_huge_pages([each.shape for each in arrays])
    return [each.copyto(place) for each, place in zip(arrays, places)]


def _packed_shape(shape: tuple[int, int], form: str) -> tuple[int, int]:
    """The shape of the bytes of a matrix."""
    rows, columns = shape
    return (rows, 2 * columns) if form == "bfloat16" else (rows + -(-4 * rows // columns), columns)


_kept: WeakKeyDictionary[GPT2Model, dict[str, FusedWeights]] = WeakKeyDictionary()


def weights_note(net: GPT2Model, weights: str) -> str:
    """Says in a line how large codes are and what is not quantised; empty for weights without codes."""
    made = weights_for(net, weights) if weights in CODED else None
    return made.note if made else ""


def weights_for(net: GPT2Model, weights: str = "") -> FusedWeights | None:
    """The weights that decoders of this network share, made once; None if they use the network itself.

    Those of a network without gradients, which stays as it is, are kept and given again. `weights` is as in
    :class:`FusedWeights`. RecipeError for a form that the network's operators do not have.
    """
    if not isinstance(net.ops, FusedCpuOps):
        if weights not in ("", net.ops.precision):
            raise RecipeError(f"weights={weights}: only the fused operators of CPUs have them; try ops=fused")
        return None
    if any(each.grad_req != "null" for each in net.collect_params().values()):
        return FusedWeights(net, weights)
    kept = _kept.setdefault(net, {})
    form = weights or net.ops.precision
    if form not in kept:
        kept[form] = FusedWeights(net, form)
    return kept[form]
