"""The language-model loss: cross-entropy of each next token."""

from __future__ import annotations

from kogpt2_gluon.model.gpt2 import GPT2Model
from kogpt2_gluon.runtime import mx


class LanguageModelLoss(mx.gluon.HybridBlock):
    """A network and its loss as one graph, so that hybridizing it frees what lies between them early.

    Inputs:
        - **tokens**: ids of shape (batch_size, length + 1): inputs are all but the last, labels all but the first

    Outputs:
        - **loss**: natural-log cross-entropy of every label, shape (batch_size, length)
    """

    def __init__(self, net: GPT2Model, prefix: str | None = None, params=None):
        super().__init__(prefix=prefix, params=params)
        self.net = net

    def hybrid_forward(self, F, tokens):
        inputs = F.slice_axis(tokens, axis=1, begin=0, end=-1)
        labels = F.slice_axis(tokens, axis=1, begin=1, end=None)
        logits, _ = self.net(inputs)
        return -F.pick(F.log_softmax(logits, axis=-1), labels, axis=-1)
