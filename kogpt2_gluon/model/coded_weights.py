"""The binary codes of a network's matrices, for generation: those that it came with, or made of it now."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from kogpt2_gluon.binary_codes import MAX_BITS, PackedCodes, check_finite, quantise
from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.machine.runtime import mx, num_threads
from kogpt2_gluon.model.gpt2 import GPT2Model, structural_parameters

CODES = "codes"  # those of the network
IN_BITS = {f"{bits}bit": bits for bits in range(1, MAX_BITS + 1)}  # made now, with scales for each row
CODED = (*IN_BITS, CODES)
MATRICES = (  # of layer {}, in the order of kogpt2_decoder
    "_self_attention_layers.{}._multi_head_qkv_proj.weight",
    "_self_attention_layers.{}._out_proj.weight",
    "_ffn_layers.{}._hidden_map.weight",
    "_ffn_layers.{}._out_map.weight",
)

_given: WeakKeyDictionary[GPT2Model, Mapping[str, PackedCodes]] = WeakKeyDictionary()


def give_codes(net: GPT2Model, codes: Mapping[str, PackedCodes]) -> None:
    """Says of which codes the matrices of a network are made, {structural name: codes}; others are not quantised."""
    _given[net] = codes


def codes_for(net: GPT2Model, form: str) -> Mapping[str, PackedCodes]:
    """Returns the codes of a network's matrices for a form of CODED.

    RecipeError for codes that it does not have, and for a network that is quantised already and would be again;
    DataError for a matrix with NaN or infinity.
    """
    given = _given.get(net)
    if form == CODES:
        if not given:
            raise RecipeError(
                "weights=codes: the checkpoint has no codes; weights=3bit makes some each time, and `kogpt2 convert "
                "--to codes` once"
            )
        return given
    if given:
        bits = sorted({each.bits for each in given.values()})
        raise RecipeError(
            f"weights={form}: the checkpoint is quantised already, in {' and '.join(map(str, bits))} bits: take "
            "weights=codes"
        )
    every = structural_parameters(net)
    names = [name.format(layer) for layer in range(len(net._ffn_layers)) for name in MATRICES]

    def coded(matrix: NDArray[np.float32]) -> PackedCodes:
        return PackedCodes.of(quantise(matrix, IN_BITS[form]))

    matrices = [every[name].data().asnumpy().astype(np.float32, copy=False) for name in names]
    for name, matrix in zip(names, matrices):
        check_finite(matrix, f"weights={form}: {name}")
    with ThreadPoolExecutor(num_threads()) as pool:
        return dict(zip(names, pool.map(coded, matrices)))


def packed(codes: PackedCodes) -> Any:
    """Returns codes in the order of the operators (ops/src/cpu/binary_codes.h), bytes on the CPU."""
    planes, scales = mx.nd.array(codes.planes, dtype="uint8"), mx.nd.array(codes.scales)
    return mx.nd.kogpt2_pack_codes(planes, scales, columns=codes.columns)


def note_on(codes: Mapping[str, PackedCodes], num_matrices: int, logits: str, precision: str) -> str:
    """Says in a line how large the matrices are and what is not quantised.

    Parameters
    ----------
    codes : mapping
    num_matrices : int
        Of all layers.
    logits : str
        The form and size of the logits' matrix.
    precision : str
        Of matrices without codes.
    """
    bits = "/".join(map(str, sorted({each.bits for each in codes.values()})))
    size, plain = (sum(values) / 1e6 for values in zip(*((each.nbytes, 2 * _count(each)) for each in codes.values())))
    others = f"{num_matrices - len(codes)} other matrices ({precision}), " if num_matrices > len(codes) else ""
    return (
        f"{len(codes)} matrices in {bits} bits: {size:,.1f} MB, in bfloat16 {plain:,.1f}; not quantised: {others}the "
        f"embedding and the logits' matrix, which is the same ({logits}), positions, biases and LayerNorms"
    )


def _count(codes: PackedCodes) -> int:
    rows, columns = codes.shape
    return rows * columns
