"""The language-model loss: cross-entropy of each next token."""

from __future__ import annotations

from kogpt2_gluon.model.gpt2 import GPT2Model
from kogpt2_gluon.ops.parameters import RetracedBlock


class LanguageModelLoss(RetracedBlock):
    """A network and its loss as one graph, so that hybridizing it frees what lies between them early.

    Parameters
    ----------
    net : GPT2Model
    rows_apart : bool
        Where the operators can, the gradient of the tied matrix lacks the embedding's part after a backward pass, until
        :meth:`add_embedding_gradient` has added it: a fraction of the time and memory that MXNet's sum takes.

    Where gradients add up (grad_req "add"), or with `rows_apart`, each recorded pass wants its backward pass before the
    next one.

    Inputs:
        - **tokens**: ids of shape (batch_size, length + 1): inputs are all but the last, labels all but the first

    Outputs:
        - **loss**: natural-log cross-entropy of every label, shape (batch_size, length), float32
    """

    def __init__(self, net: GPT2Model, rows_apart: bool = False, prefix: str | None = None, params=None):
        super().__init__(prefix=prefix, params=params)
        self.net = net
        self._rows = net.embedding_rows() if rows_apart else None

    def forward(self, tokens):
        """As HybridBlock's."""
        inputs = tokens.slice_axis(axis=1, begin=0, end=-1)
        labels = tokens.slice_axis(axis=1, begin=1, end=None)
        rows = self._rows.inputs(inputs) if self._rows else ()
        return super().forward(inputs, labels, *rows)

    def hybrid_forward(self, F, inputs, labels, *rows):
        return self.net.token_losses(F, inputs, labels, rows or None)

    def add_embedding_gradient(self) -> None:
        """Completes the gradients of `rows_apart`, after each backward pass."""
        if self._rows:
            self._rows.add()
