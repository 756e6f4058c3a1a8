"""Losses with the weights that texts are written by."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from kogpt2_gluon.inference.slot_losses import SlotLosses
from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.model.gpt2 import GPT2Model
from kogpt2_gluon.model.loss import LanguageModelLoss
from kogpt2_gluon.ops.stock import StockOps


def network(ops: object) -> GPT2Model:
    mx.random.seed(3)
    np.random.seed(3)
    net = GPT2Model(units=36, vocab_size=91, max_length=200, num_layers=2, num_heads=4, ops=ops)
    net.initialize(mx.init.Normal(0.2), force_reinit=True)
    return net


TOKENS = np.random.RandomState(0).randint(0, 91, (3, 181))


def losses(net: GPT2Model, weights: str) -> np.ndarray:
    return SlotLosses(net, mx.cpu(), weights)(mx.nd.array(TOKENS, dtype="int32")).asnumpy()


def plain_losses() -> np.ndarray:
    return LanguageModelLoss(network(StockOps()))(mx.nd.array(TOKENS, dtype="int32")).asnumpy()


def test_stock_operators_give_the_loss_blocks_numbers() -> None:
    np.testing.assert_allclose(losses(network(StockOps()), ""), plain_losses(), atol=1e-4)


@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")
@pytest.mark.parametrize("weights, most", [("float32", 1e-4), ("bfloat16", 0.1), ("int8", 0.2)])
def test_smaller_weights_cost_little_and_not_nothing(weights: str, most: float) -> None:
    from kogpt2_gluon.ops.build import load_cpu_operators
    from kogpt2_gluon.ops.fused_cpu import FusedCpuOps

    load_cpu_operators()
    differ = abs(losses(network(FusedCpuOps()), weights) - plain_losses()).max()
    assert differ < most and (weights == "float32" or differ > 1e-4), differ
