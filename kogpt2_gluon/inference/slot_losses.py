"""The language-model loss with the weights that texts are written by: what int8 and the like cost in bits per byte."""

from __future__ import annotations

from typing import Any

import numpy as np

from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.model.gpt2 import GPT2Model
from kogpt2_gluon.model.slots import Run, slots_for

ROWS = 128  # of logits at a time


class SlotLosses:
    """Computes the loss of each token as a LanguageModelLoss in prediction mode does, one sequence after another.

    Parameters
    ----------
    net : GPT2Model
        Not hybridized, as :func:`~kogpt2_gluon.inference.loading.load_checkpoint` returns it.
    ctx : mx.Context
    weights : str
        As :func:`~kogpt2_gluon.model.slots.slots_for` takes it. RecipeError if the operators do not have them.
    """

    def __init__(self, net: GPT2Model, ctx: Any, weights: str) -> None:
        self._slots = slots_for(net, 1, net.max_length, ctx, weights)

    def __call__(self, tokens: Any) -> Any:
        """Returns the natural-log cross-entropy (batch_size, length), float32, of all but the first of tokens."""
        return mx.nd.array(np.stack([self._losses(row) for row in tokens.asnumpy()]))

    def _losses(self, row: np.ndarray) -> np.ndarray:
        self._slots.begin(0, "")
        hidden = self._slots.hidden([Run(0, row[:-1].tolist())])[0]
        self._slots.clear(0)
        parts = [
            _cross_entropy(self._slots.logits(hidden[begin : begin + ROWS]), row[begin + 1 : begin + 1 + ROWS])
            for begin in range(0, len(hidden), ROWS)
        ]
        return np.concatenate(parts)


def _cross_entropy(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns the cross-entropy (R,) of labels (R,), given logits (R, V)."""
    largest = logits.max(axis=1, keepdims=True)
    log_sums = np.log(np.exp(logits - largest).sum(axis=1)) + largest[:, 0]
    return log_sums - logits[np.arange(len(labels)), labels]
