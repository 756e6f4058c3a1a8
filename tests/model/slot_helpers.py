"""A small network that reads slots, by any operators."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.model.gpt2 import GPT2Model
from kogpt2_gluon.ops.build import instruction_set
from kogpt2_gluon.ops.stock import StockOps

VOCAB_SIZE, CAPACITY, NUM_SLOTS = 91, 240, 4
MATRICES = ("qkv_proj", "out_proj", "hidden_map", "out_map")


def network(precision: str = "stock", change=lambda values: values) -> GPT2Model:
    """A network of 72 units; `change` is applied to the matrices of its layers."""
    from kogpt2_gluon.ops.build import load_cpu_operators
    from kogpt2_gluon.ops.fused_cpu import FusedCpuOps

    load_cpu_operators()
    ops = StockOps() if precision == "stock" else FusedCpuOps(precision)
    net = GPT2Model(units=72, vocab_size=VOCAB_SIZE, max_length=CAPACITY, num_layers=2, num_heads=4, ops=ops)
    net.initialize()
    random = np.random.RandomState(3)
    for name, parameter in net.collect_params().items():
        offset = parameter.data().asnumpy() if len(parameter.shape) == 1 else 0
        values = (offset + random.randn(*parameter.shape) * 0.2).astype("f")
        is_matrix = name.endswith("weight") and any(part in name for part in MATRICES)
        parameter.set_data(mx.nd.array(change(values) if is_matrix else values))
    return net


def needs_bfloat16(precision: str) -> None:
    if precision == "bfloat16" and not instruction_set().has_bfloat16:
        pytest.skip("oneDNN has bfloat16 products from AVX-512 on")


@cache
def shared_network(precision: str) -> GPT2Model:
    return network(precision)


def random_tokens(count: int, seed: int = 0) -> list:
    return np.random.RandomState(seed).randint(0, VOCAB_SIZE, count).tolist()
