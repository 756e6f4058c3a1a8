"""Distillation: a student learns from the text and from a teacher's predictions for it.

    loss = (1 - weight) cross_entropy + weight T^2 KL(teacher_T || student_T) + hidden_weight mean((P h_t - h_s)^2)

The index T means logits divided by the temperature T. The first two terms, with T^2 so that their gradients keep
their ratio at any T, are Hinton et al. (2015), Distilling the Knowledge in a Neural Network; the third, on the last
hidden states h, is the hint of Romero et al. (2015), FitNets. Where the widths differ, P is a fixed random projection
of the teacher's states, which nearly keeps their distances (Johnson and Lindenstrauss, 1984); else there is none.

In the comments B is the batch size, T the length, C the student's units, and V `vocab_size`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.model.filling import fill_network_from
from kogpt2_gluon.model.gpt2 import GPT2Model, build_model, structural_parameters
from kogpt2_gluon.model.loss import LanguageModelLoss
from kogpt2_gluon.model.precision import cast_network
from kogpt2_gluon.ops.parameters import RetracedBlock
from kogpt2_gluon.recipe_sections import ModelRecipe
from kogpt2_gluon.runs.checkpoint import EMBEDDING


@dataclass(frozen=True)
class Terms:
    """The terms of the loss: `temperature`, `weight` and `hidden_weight` of a recipe's section `distillation`."""

    temperature: float = 2.0
    weight: float = 0.5
    hidden_weight: float = 0.0


class Teacher:
    """A trained network that predicts, without dropout and without gradients.

    Parameters
    ----------
    model : ModelRecipe
        Its sizes.
    arrays : mapping
        {structural name: float32 array}.
    ops : operator set
        The student's; the teacher computes with the same operators in the same precision.
    ctx : mx.Context
    source : str
        Its name in messages. DataError if the arrays are not of these sizes.
    """

    def __init__(self, model: ModelRecipe, arrays: Mapping[str, NDArray[Any]], ops: Any, ctx: Any, source: str):
        model = replace(model, dropout=0.0)
        self.net = build_model(model, type(ops)(ops.precision, 0.0, model.activation))
        fill_network_from(self.net, arrays, ctx, source)
        cast_network(self.net, ops.precision)
        self._states = _LastStates(self.net)
        self._states.hybridize(static_alloc=True, static_shape=True)

    @property
    def units(self) -> int:
        return int(self.matrix.shape[1])

    @property
    def matrix(self) -> Any:
        """The matrix of its output projection, (V, units)."""
        return structural_parameters(self.net)[EMBEDDING].data()

    def last_states(self, tokens: Any) -> Any:
        """The input of its output projection, (B, T, units), for tokens (B, T)."""
        with mx.autograd.pause(train_mode=False):
            return self._states(tokens)


class _LastStates(RetracedBlock):
    """The last hidden states of a network."""

    def __init__(self, net: GPT2Model) -> None:
        super().__init__()
        self.net = net

    def hybrid_forward(self, F, tokens):
        return self.net.hidden_states(F, tokens)[0]


class _StudentLoss(RetracedBlock):
    """The graph of a recorded pass; see DistillationLoss."""

    def __init__(self, net: GPT2Model, terms: Terms) -> None:
        super().__init__()
        self.net, self._terms = net, terms

    def hybrid_forward(self, F, inputs, labels, states, matrix, *more):
        terms, net = self._terms, self.net
        target, rows = (more[0], more[1:]) if terms.hidden_weight else (None, more)
        # The memory for logits, the third of `rows`, is for the fused cross-entropy.
        hidden, _ = net.hidden_states(F, inputs, rows=(*rows, None) if rows else None)
        cross_entropy, divergence = net.ops.distillation(
            F, hidden, net._logits_proj, labels, states, matrix, terms.temperature, rows
        )  # (B, T) each
        loss = (1 - terms.weight) * cross_entropy + terms.weight * terms.temperature**2 * divergence
        if terms.hidden_weight:
            difference = F.cast(hidden, "float32") - F.cast(target, "float32")  # (B, T, C)
            loss = loss + terms.hidden_weight * F.mean(F.square(difference), axis=-1)
        return F.stack(F.BlockGrad(cross_entropy), 2 * loss, axis=0)  # (2, B, T)


class DistillationLoss(LanguageModelLoss):
    """A student and its loss. Passes that are not recorded are those of LanguageModelLoss, without the teacher.

    Parameters
    ----------
    net : GPT2Model
        The student.
    teacher : Teacher
    terms : Terms
    seed : int
        Of the projection, where the widths differ.

    A recorded pass needs its backward pass and :meth:`complete_gradients` before the next one.

    Inputs:
        - **tokens**: ids of shape (batch_size, length + 1): inputs are all but the last, labels all but the first

    Outputs:
        - **loss**: of a recorded pass (2, batch_size, length): the cross-entropy alone, through which no gradient
          goes, and twice the loss of distillation, so that the gradients of the mean of it all are those of the
          mean loss. Else the cross-entropy, (batch_size, length). All are float32
    """

    def __init__(self, net: GPT2Model, teacher: Teacher, terms: Terms, seed: int = 0):
        super().__init__(net, rows_apart=True)
        self._terms, self._teacher = terms, teacher
        self._student = _StudentLoss(net, terms)
        units = int(structural_parameters(net)[EMBEDDING].shape[1])
        self._projection = None
        if terms.hidden_weight and units != teacher.units:
            matrix = projection(units, teacher.units, seed)
            self._projection = mx.nd.array(matrix, ctx=teacher.matrix.context, dtype="float32")

    def forward(self, tokens):
        """Splits `tokens` into inputs and labels and computes the loss."""
        if not mx.autograd.is_recording():
            self._student._clear_cached_op()  # the two graphs never have memory at the same time
            return super().forward(tokens)
        self._clear_cached_op()
        inputs, labels = self.split(tokens)
        states = self._teacher.last_states(inputs)
        target = (self._target(states),) if self._terms.hidden_weight else ()
        rows = self._rows.inputs(inputs)[:2] if self._rows else ()
        return self._student(inputs, labels, states, self._teacher.matrix, *target, *rows)

    def _target(self, states: Any) -> Any:
        """The teacher's last hidden states in the student's width."""
        if self._projection is None:
            return states
        with mx.autograd.pause():
            states, rows = states.astype("float32", copy=False), self._projection.shape[0]
            return mx.nd.FullyConnected(states, self._projection, num_hidden=rows, no_bias=True, flatten=False)


def projection(units: int, wide: int, seed: int) -> NDArray[np.float32]:
    """Returns a random matrix (units, wide); what it makes of numbers of variance 1 has variance 1."""
    draw = np.random.Generator(np.random.PCG64(seed))
    return (draw.standard_normal((units, wide)) / np.sqrt(wide)).astype(np.float32)
