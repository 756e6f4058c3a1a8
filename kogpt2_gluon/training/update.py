"""One optimizer update: accumulated gradients in, mean over the workers, clip, step."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.model.gpt2 import GPT2Model, structural_parameters
from kogpt2_gluon.recipe import TrainingRecipe
from kogpt2_gluon.runtime import mx, nlp
from kogpt2_gluon.training.worker import Worker

NORM_SLICE = 1 << 16


class AdamW(mx.optimizer.Optimizer):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019), over MXNet's `contrib.adamw_update` operator.

    MXNet 1.9.1 has the operator but no class for it. For step t::

        m = beta1 * m + (1 - beta1) * g;  v = beta2 * v + (1 - beta2) * g**2
        w = w - lr * (m / (1 - beta1**t) / (sqrt(v / (1 - beta2**t)) + epsilon) + wd * w)
    """

    def __init__(self, learning_rate: float, beta1: float, beta2: float, epsilon: float, **kwargs: Any):
        super().__init__(learning_rate=learning_rate, **kwargs)
        self.beta1, self.beta2, self.epsilon = beta1, beta2, epsilon

    def create_state(self, index: int, weight: Any) -> tuple:
        """Zeros for both moments."""
        return mx.nd.zeros_like(weight), mx.nd.zeros_like(weight)

    def update(self, index: int, weight: Any, grad: Any, state: tuple) -> None:
        """One step of one parameter, in place."""
        self._update_count(index)
        step = self._index_update_count[index]
        rate, decay = self._get_lr(index), self._get_wd(index)
        root = math.sqrt(1 - self.beta2**step)
        # The operator has no bias correction: the rate carries it, and epsilon so that sqrt(v) + epsilon stays right.
        mx.nd.contrib.adamw_update(
            weight,
            grad,
            *state,
            mx.nd.full((1,), self.rescale_grad, ctx=weight.context),
            out=weight,
            lr=rate * root / (1 - self.beta1**step),
            eta=1.0,
            wd=rate * decay,
            beta1=self.beta1,
            beta2=self.beta2,
            epsilon=self.epsilon * root,
        )


def create_optimizer(recipe: TrainingRecipe) -> Any:
    """The recipe's optimizer: GluonNLP's BERTAdam, MXNet's Adam or LAMB, or AdamW above."""
    classes = {"bertadam": nlp.optimizer.BERTAdam, "adamw": AdamW, "adam": mx.optimizer.Adam, "lamb": mx.optimizer.LAMB}
    extra = {"lazy_update": False} if recipe.optimizer == "adam" else {}
    return classes[recipe.optimizer](
        learning_rate=recipe.learning_rate,
        beta1=recipe.beta1,
        beta2=recipe.beta2,
        epsilon=recipe.epsilon,
        wd=recipe.weight_decay,
        **extra,
    )


class Update:
    """Gradients and optimizer state of a network.

    Parameters
    ----------
    net : GPT2Model
        Initialized. Its gradients add up over the micro steps of an update.
    recipe : TrainingRecipe
    worker : Worker
    accumulate : int
        Micro steps of an update.
    step : int
        Updates already made.
    """

    def __init__(self, net: GPT2Model, recipe: TrainingRecipe, worker: Worker, accumulate: int, step: int = 0):
        self.parameters = structural_parameters(net)
        self._clip_norm, self._worker, self._accumulate = recipe.clip_norm, worker, accumulate
        for parameter in self.parameters.values():
            parameter.grad_req = "add" if accumulate > 1 else "write"
            if len(parameter.shape) == 1:  # biases and LayerNorm
                parameter.wd_mult = 0.0
        self.optimizer = create_optimizer(recipe)
        self.optimizer.begin_num_update = step  # Adam's bias correction counts from here
        self.optimizer.param_dict = dict(enumerate(self.parameters.values()))
        # Views of at most NORM_SLICE elements: multi_sum_sq adds up each array in float32, one element after the other,
        # which loses 9% of the sum over 38 million of them, and 1e-5 over a slice.
        flat = [parameter.grad().reshape((-1,)) for parameter in self.parameters.values()]
        self._slices = [g[i : i + NORM_SLICE] for g in flat for i in range(0, g.size, NORM_SLICE)]
        self._states = [self.optimizer.create_state(i, p.data()) for i, p in enumerate(self.parameters.values())]

    def start(self) -> None:
        """Clears the gradients for a new update."""
        if self._accumulate > 1:
            for parameter in self.parameters.values():
                parameter.zero_grad()

    def reduce(self) -> float:
        """Averages the gradients over the workers; returns the square of their global norm, as added up here.

        On GPUs the last bits of that sum differ from worker to worker: agree on one before anything is decided by it.
        """
        self._worker.mean_gradients({name: parameter.grad() for name, parameter in self.parameters.items()})
        squares = mx.nd.multi_sum_sq(*self._slices, num_arrays=len(self._slices))
        with self._worker.waiting():
            return float(squares.asnumpy().sum(dtype=np.float64))

    def apply(self, learning_rate: float, norm: float) -> None:
        """Updates every parameter; gradients of a `norm` above the clipping norm are scaled down to it.

        Every worker must pass the same `norm`: parameters are not compared again.
        """
        self.optimizer.set_learning_rate(learning_rate)
        self.optimizer.rescale_grad = min(1.0, self._clip_norm / norm) if self._clip_norm and norm else 1.0
        for index, parameter in enumerate(self.parameters.values()):
            self.optimizer.update(index, parameter.data(), parameter.grad(), self._states[index])

    def arrays(self) -> dict[str, Any]:
        """The optimizer's arrays as NumPy: {structural name:k : array}."""
        return {
            f"{name}:{k}": array.asnumpy()
            for name, state in zip(self.parameters, self._states)
            for k, array in enumerate(state)
        }

    def load_arrays(self, arrays: dict[str, Any]) -> None:
        """Takes over what :meth:`arrays` gave; DataError if names or shapes are those of another optimizer or model."""
        mine = {f"{name}:{k}": a for name, state in zip(self.parameters, self._states) for k, a in enumerate(state)}
        for name in sorted(mine.keys() ^ arrays.keys()):
            raise DataError(
                f"optimizer state {name}: on one side only; the checkpoint is of another optimizer or model"
            )
        for name, array in mine.items():
            if array.shape != arrays[name].shape:
                raise DataError(f"optimizer state {name}: shape {arrays[name].shape}, expected {array.shape}")
            array[:] = arrays[name]
