"""kogpt2_attention and its twin of MXNet's own operators."""

from __future__ import annotations

import numpy as np
import pytest

from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.ops.build import load_cpu_operators
from tests.ops.ops_helpers import (
    BFLOAT16,
    FLOAT32,
    PREDICTION,
    Case,
    array,
    dropout_mask,
)

needs_bfloat16 = pytest.mark.skipif(
    not load_cpu_operators().isa.has_bfloat16, reason="oneDNN has bfloat16 products from AVX-512 on"
)
PRECISIONS = ["float32", pytest.param("bfloat16", marks=needs_bfloat16)]
TOLERANCES = [("float32", FLOAT32), pytest.param("bfloat16", BFLOAT16, marks=needs_bfloat16)]


def stock_attention(F, qkv, num_heads: int, mask: np.ndarray | None = None):
    """(B, T, 3C) to (B, T, C) by MXNet's batch_dot and softmax; mask: multipliers of the weights (B H, T, T)."""
    length, columns = qkv.shape[1], qkv.shape[2] // 3 // num_heads
    later = mx.nd.array(np.triu(np.full((1, length, length), -1e9, np.float32), 1))
    parts = F.split(qkv, num_outputs=3, axis=2)
    query, key, value = (
        part.reshape((0, 0, -4, num_heads, -1)).transpose((0, 2, 1, 3)).reshape((-3, 0, 0)) for part in parts
    )
    scores = F.batch_dot(query, key, transpose_b=True) / columns**0.5
    weights = F.softmax(F.broadcast_add(scores, later), axis=-1)
    if mask is not None:
        weights = weights * mx.nd.array(mask)
    context = F.batch_dot(weights, value).reshape((-4, -1, num_heads, 0, 0))
    return context.transpose((0, 2, 1, 3)).reshape((0, 0, -3))


def weight_mask(seed, site, p, batch, length, num_heads) -> np.ndarray:
    """Multipliers of the attention weights by NumPy's Philox: (B H, T, T)."""
    rows = batch * num_heads * length
    return dropout_mask(seed, site, p, rows, length).reshape(batch * num_heads, length, length)


def case(batch=2, length=70, num_heads=2, columns=8, seed=PREDICTION, size=1.0, **attributes) -> Case:
    """Normal queries, keys and values times `size`."""
    rng = np.random.RandomState(length + columns)
    qkv = size * array(rng, batch, length, 3 * num_heads * columns)
    mask = weight_mask(seed, attributes.get("site", 0), attributes.get("p", 0.0), batch, length, num_heads)
    return Case(
        "kogpt2_attention",
        lambda F, *inputs, **options: F.kogpt2_attention(*inputs, **options)[0],
        lambda F, qkv, seed: stock_attention(F, qkv, num_heads, mask),
        [qkv, seed],
        wanted=[0],
        attributes={"num_heads": num_heads, **attributes},
        # At length 1 the gradients of queries and keys are 0, and those of values are the output's.
        scale=1.0,
    )
