"""GPT-2 with a head for a task, and the loss of its answers.

The head sits on the hidden states after the last LayerNorm: of the last token before the padding for an answer about
the whole text, which is the only one that has seen all of it; of each token for labels of tokens. Padding is at the
right: a token attends to itself and those before it, so padding needs no mask, and what it computes is not used.

The heads are those of transformers' GPT2ForSequenceClassification (no bias) and GPT2ForTokenClassification (a bias), so
that a converted network computes the same.

In the comments B is the batch size, T the longest length in it, C `units`, K the answers of a head.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.model.gpt2 import GPT2Model
from kogpt2_gluon.ops.parameters import RetracedBlock, value
from kogpt2_gluon.ops.stock import StockOps
from kogpt2_gluon.recipe_sections import ModelRecipe

nn = mx.gluon.nn


class HeadSizes(NamedTuple):
    """The sizes of the heads.

    `answers` is the number of classes, 1 for a number, 0 for no answer about the whole text; `tags` is the number of
    labels that a token can have, 0 if tokens have none.
    """

    answers: int
    tags: int
    is_number: bool = False


class TaskModel(GPT2Model):
    """GPT-2 with heads for a task; `sizes` are those of GPT2Model, by their names.

    Inputs:
        - **tokens**: ids of shape (batch_size, length)
        - **last**: the place of each text's last token, (batch_size,), float32

    Outputs:
        - **answers**: (batch_size, heads.answers), or None
        - **tags**: (batch_size, length, heads.tags), or None
    """

    def __init__(self, heads: HeadSizes, prefix: str | None = None, params: Any = None, **sizes: Any) -> None:
        super().__init__(prefix=prefix, params=params, **sizes)
        self.heads, units = heads, sizes["units"]
        init = mx.init.Normal(0.02)
        with self.name_scope():  # the attributes' names are those of runs/checkpoint.HEADS
            if heads.answers:
                self._head = nn.Dense(
                    heads.answers, in_units=units, use_bias=False, flatten=False, weight_initializer=init
                )
            if heads.tags:
                self._tag_head = nn.Dense(heads.tags, in_units=units, flatten=False, weight_initializer=init)

    def hybrid_forward(self, F, tokens, last):  # type: ignore[override]  # it has no states
        return self.answers(F, tokens, last)

    def answers(self, F, tokens, last, rows=None):
        """Returns what :meth:`hybrid_forward` does; `rows` are those of the embedding."""

        def at_last(hidden):
            """(B, 1, C) of (B, T, C)"""
            return F.SequenceLast(hidden, last + 1, use_sequence_length=True, axis=1).expand_dims(1)

        answers = tags = None
        # Without tags the last feed-forward layer, an eighteenth of KoGPT-2 base's work, has one token of each text.
        only_last = None if self.heads.tags else at_last
        hidden, _ = self.hidden_states(F, tokens, rows=rows, choose=only_last)  # (B, T, C) or (B, 1, C)
        if self.heads.answers:
            read = hidden if only_last else at_last(hidden)  # (B, 1, C)
            answers = self.ops.logits(F, read, self._head).reshape((0, -1))  # (B, K)
        if self.heads.tags:
            tags = self.ops.linear(F, hidden, self._tag_head)  # (B, T, K)
        return answers, tags


def build_task_model(recipe: ModelRecipe, heads: HeadSizes, ops: Any = None) -> TaskModel:
    """The network that a recipe describes, with heads, over an operator set (None: stock MXNet); not initialized."""
    return TaskModel(
        heads,
        units=recipe.units,
        vocab_size=recipe.vocab_size,
        max_length=recipe.max_length,
        num_layers=recipe.num_layers,
        num_heads=recipe.num_heads,
        dropout=recipe.dropout,
        ops=ops or StockOps(dropout=recipe.dropout, activation=recipe.activation),
    )


class MicroBatch(NamedTuple):
    """The rows of a micro step, as arrays of NumPy or MXNet.

    Attributes
    ----------
    tokens : (batch_size, length) int32
        Filled up at the right.
    last : (batch_size,) float32
        The place of each row's last token.
    answers : (batch_size,) float32
        The number of the class, or the number to predict, from 0 to 1.
    tags : (batch_size, length) float32
        The label of each token; -1 for those that have none.
    """

    tokens: Any
    last: Any
    answers: Any
    tags: Any


class TaskLoss(RetracedBlock):
    """A network with heads and its loss as one graph.

    The loss of a row is the cross-entropy of its class, or the squared error of its number, plus the mean cross-entropy
    of its tokens' labels, as far as the task has these. Each recorded pass needs its backward pass, and
    :meth:`complete_gradients` after it, before the next one.

    Inputs:
        - **batch**: a MicroBatch

    Outputs:
        - **loss**: of each row, (batch_size,), float32
    """

    def __init__(self, net: TaskModel, prefix: str | None = None, params: Any = None) -> None:
        super().__init__(prefix=prefix, params=params)
        self.net = net
        self._rows = net.embedding_rows()

    def forward(self, batch: MicroBatch) -> Any:
        """Computes the loss of each row."""
        return self.with_answers(batch)[0]

    def with_answers(self, batch: MicroBatch) -> list[Any]:
        """Returns the losses, then the outputs of the heads that there are; see TaskModel."""
        heads = self.net.heads
        rows = self._rows.inputs(batch.tokens)[1:2] if self._rows else ()
        truths = [batch.answers] * bool(heads.answers) + [batch.tags] * bool(heads.tags)
        last = [batch.last] * bool(heads.answers)  # MXNet warns of an input that is not used
        return super().forward(batch.tokens, *last, *truths, *rows)

    def hybrid_forward(self, F, tokens, *inputs):
        heads, given = self.net.heads, list(inputs)
        last = given.pop(0) if heads.answers else None
        answers = given.pop(0) if heads.answers else None
        tags = given.pop(0) if heads.tags else None
        rows = (value(F, self.net._embed.weight), given.pop(0), None) if given else None
        found, found_tags = self.net.answers(F, tokens, last, rows)
        losses, outputs = [], []
        if heads.answers:
            found = F.cast(found, "float32")
            outputs.append(found)
            losses.append(_number_loss(F, found, answers) if heads.is_number else _class_loss(F, found, answers))
        if heads.tags:
            found_tags = F.cast(found_tags, "float32")
            outputs.append(found_tags)
            losses.append(_tag_loss(F, found_tags, tags))
        return [sum(losses[1:], losses[0]), *outputs]

    def reserve(self, batch: MicroBatch) -> None:
        """Makes the memory of passes over a batch as long as this one, with a pass whose gradients nobody needs.

        MXNet plans the memory of each new length, in what there is for the one before. From a short batch to the
        longest it would take up to a fifth more in the end, in pieces; and too little memory shows here, at the start.
        """
        with mx.autograd.record():
            losses = self(batch)
        losses.backward()
        self.complete_gradients()

    def complete_gradients(self) -> None:
        """Completes the gradients after a backward pass: call it after each.

        The embedding's comes as rows, and nothing in this graph writes to the matrix's gradient.
        """
        if self._rows:
            weight = self.net._embed.weight
            if weight.grad_req == "write":
                weight.grad()[:] = 0
            self._rows.add()


def _class_loss(F, logits, classes):
    """Cross-entropy of `classes` (...,), given logits (..., K)."""
    return -F.pick(F.log_softmax(logits, axis=-1), classes, axis=-1)


def _number_loss(F, found, numbers):
    """Squared error of numbers (B,), given (B, 1)."""
    return F.square(F.reshape(found, (-1,)) - numbers)


def _tag_loss(F, logits, tags):
    """The mean cross-entropy of each row's labels (B, T), -1 for none, given logits (B, T, K): (B,)."""
    has_tag = tags >= 0
    losses = _class_loss(F, logits, F.relu(tags)) * has_tag
    return F.sum(losses, axis=1) / F.broadcast_maximum(F.sum(has_tag, axis=1), F.ones((1,)))
