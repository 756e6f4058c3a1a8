"""The language-model loss: cross-entropy of each next token."""

from __future__ import annotations

from kogpt2_gluon.model.gpt2 import GPT2Model
from kogpt2_gluon.ops.parameters import RetracedBlock


class LanguageModelLoss(RetracedBlock):
    """A network and its loss as one graph, so that a hybridized block can free the arrays between them early.

    Parameters
    ----------
    net : GPT2Model
    rows_apart : bool
        True, and the operators support it: after a backward pass the gradient of the tied matrix lacks the part of the
        embedding, until :meth:`complete_gradients` has added it. That takes a fraction of the time and memory of
        MXNet's own sum. The next pass of any kind may overwrite this gradient: it then holds the logits.

    If gradients add up (grad_req "add"), or with `rows_apart`, each recorded pass needs its backward pass before the
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
        """Splits `tokens` into inputs and labels and computes the loss."""
        inputs, labels = self.split(tokens)
        rows = self._rows.inputs(inputs) if self._rows else ()
        return super().forward(inputs, labels, *rows)

    def hybrid_forward(self, F, inputs, labels, *rows):
        return self.net.token_losses(F, inputs, labels, rows or None)

    @staticmethod
    def split(tokens):
        """All tokens but the last, and all but the first: (batch_size, length) each."""
        return tokens.slice_axis(axis=1, begin=0, end=-1), tokens.slice_axis(axis=1, begin=1, end=None)

    def complete_gradients(self) -> None:
        """Completes the gradients after a backward pass; with `rows_apart`, call it after each."""
        if self._rows:
            self._rows.add()
