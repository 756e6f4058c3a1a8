"""The language-model loss: cross-entropy of each next token."""

from __future__ import annotations

from kogpt2_gluon.model.gpt2 import GPT2Model
from kogpt2_gluon.ops.parameters import RetracedBlock


class LanguageModelLoss(RetracedBlock):
    """A network and its loss as one graph, so that hybridizing it frees what lies between them early.

    Inputs:
        - **tokens**: ids of shape (batch_size, length + 1): inputs are all but the last, labels all but the first

    Outputs:
        - **loss**: natural-log cross-entropy of every label, shape (batch_size, length), float32
    """

    def __init__(self, net: GPT2Model, prefix: str | None = None, params=None):
        super().__init__(prefix=prefix, params=params)
        self.net = net

    def hybrid_forward(self, F, tokens):
        inputs = F.slice_axis(tokens, axis=1, begin=0, end=-1)
        labels = F.slice_axis(tokens, axis=1, begin=1, end=None)
        return self.net.token_losses(F, inputs, labels)
