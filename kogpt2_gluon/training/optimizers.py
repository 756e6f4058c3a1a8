"""The optimizers: one registration for each, and the three ways to make an update with one.

To add an optimizer: its name and meaning in :data:`kogpt2_gluon.recipe.OPTIMIZERS`, an entry in :data:`OPTIMIZERS`
below, its rule in the fused operators (ops/src, for CPU and CUDA), and its formula in tests/training/test_update.py,
which runs it stock and fused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kogpt2_gluon.machine.runtime import mx, nlp
from kogpt2_gluon.recipe_sections import TrainingRecipe

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
        """Makes one step of one parameter, in place."""
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


@dataclass(frozen=True)
class OptimizerKind:
    """An optimizer as MXNet has it. :data:`kogpt2_gluon.recipe.OPTIMIZERS` has its meaning and number of arrays.

    The fused operators know it by the same name; they keep two arrays for each parameter, the moments.

    Attributes
    ----------
    stock : callable
        The MXNet optimizer class.
    settings : dict
        More arguments of the stock class.
    """

    stock: Any
    settings: dict[str, Any] = field(default_factory=dict)


OPTIMIZERS = {
    "bertadam": OptimizerKind(nlp.optimizer.BERTAdam),
    "adamw": OptimizerKind(AdamW),
    "adam": OptimizerKind(mx.optimizer.Adam, settings={"lazy_update": False}),  # lazy is for sparse gradients
    "lamb": OptimizerKind(mx.optimizer.LAMB),
}


def create_optimizer(recipe: TrainingRecipe) -> Any:
    """The MXNet optimizer of a recipe, with its settings."""
    kind = OPTIMIZERS[recipe.optimizer]
    return kind.stock(
        learning_rate=recipe.learning_rate,
        beta1=recipe.beta1,
        beta2=recipe.beta2,
        epsilon=recipe.epsilon,
        wd=recipe.weight_decay,
        **kind.settings,
    )


def _slices(gradients: list) -> list:
    """Views of at most NORM_SLICE elements of float32 arrays.

    multi_sum_sq adds up each array in its own format, one element after the other: float32 loses 9% of the sum over 38
    million elements that way, and 1e-5 over a slice; float16 would overflow.
    """
    flat = [gradient.reshape((-1,)) for gradient in gradients]
    return [g[i : i + NORM_SLICE] for g in flat for i in range(0, g.size, NORM_SLICE)]


class StockOptimizer:
    """Updates by MXNet's own operators: one call for each parameter, and another reading of the gradients for the norm.

    Parameters
    ----------
    parameters : dict
        {structural name: Parameter}, with gradients.
    masters : dict
        {structural name: float32 NDArray}: the parameters' own arrays, or the arrays that they are rounded copies of.
    recipe : TrainingRecipe
    step : int
        Updates already made.
    """

    def __init__(self, parameters: dict[str, Any], masters: dict[str, Any], recipe: TrainingRecipe, step: int):
        self._parameters, self._masters = parameters, masters
        self._gradients = [parameter.grad() for parameter in parameters.values()]
        self._slices = _slices(self._gradients) if self._gradients[0].dtype == np.float32 else None
        self._rule = create_optimizer(recipe)
        self._rule.begin_num_update = step  # Adam's bias correction counts from here
        self._rule.param_dict = dict(enumerate(parameters.values()))
        self.moments = {name: self._rule.create_state(i, masters[name]) for i, name in enumerate(parameters)}

    def squared_norm(self) -> float:
        """The square of the global norm of the gradients; infinite or NaN if one of them is."""
        slices = self._slices or _slices([gradient.astype("float32") for gradient in self._gradients])
        squares = mx.nd.multi_sum_sq(*slices, num_arrays=len(slices))
        return float(squares.asnumpy().sum(dtype=np.float64))

    def apply(self, learning_rate: float, scale: float) -> None:
        """Updates every parameter by its gradient times `scale`."""
        self._rule.set_learning_rate(learning_rate)
        self._rule.rescale_grad = scale
        for index, (name, parameter) in enumerate(self._parameters.items()):
            master, working = self._masters[name], parameter.data()
            self._rule.update(index, master, parameter.grad().astype("float32", copy=False), self.moments[name])
            if working.dtype != master.dtype:
                mx.nd.cast(master, dtype=working.dtype, out=working)


class FusedOptimizer:
    """Updates by two fused operators, each over all parameters at once; the arguments are :class:`StockOptimizer`'s.

    This one is for CPUs, where masters and parameters are the same float32 arrays.
    """

    def __init__(self, parameters: dict[str, Any], masters: dict[str, Any], recipe: TrainingRecipe, step: int):
        self._parameters = [parameter.data() for parameter in parameters.values()]
        self._gradients = [parameter.grad() for parameter in parameters.values()]
        self._masters = list(masters.values())
        self._rule, self._step = recipe.optimizer, step
        self._settings = {
            "beta1": recipe.beta1,
            "beta2": recipe.beta2,
            "epsilon": recipe.epsilon,
            "weight_decays": ",".join(repr(recipe.weight_decay * p.wd_mult) for p in parameters.values()),
        }
        self.moments = {name: (mx.nd.zeros_like(w), mx.nd.zeros_like(w)) for name, w in masters.items()}

    def squared_norm(self) -> float:
        """The square of the global norm of the gradients; infinite or NaN if one of them is."""
        return float(mx.nd.kogpt2_squared_norm(*self._gradients, num_arrays=len(self._gradients))[0].asscalar())

    def apply(self, learning_rate: float, scale: float) -> None:
        """Updates every parameter by its gradient times `scale`."""
        self._step += 1
        groups = zip(self._masters, self._gradients, self.moments.values())
        mx.nd.kogpt2_adam_update(
            *[array for master, gradient, moments in groups for array in (master, gradient, *moments)],
            num_arrays=len(self._masters),
            rule=self._rule,
            learning_rate=learning_rate,
            step=self._step,
            scale=scale,
            **self._settings,
        )


class FusedCudaOptimizer(FusedOptimizer):
    """Fused updates on a GPU: parameters and gradients may be float16; parameters are written with their masters."""

    def squared_norm(self) -> float:
        count = len(self._gradients)
        return float(mx.nd.kogpt2_cuda_gradient_norm(*self._gradients, num_tensors=count)[0].asscalar())

    def apply(self, learning_rate: float, scale: float) -> None:
        self._step += 1
        means, variances = zip(*self.moments.values())
        copies = self._parameters if self._parameters[0].dtype == np.float16 else []
        mx.nd.kogpt2_cuda_fused_update(
            *self._masters,
            *means,
            *variances,
            *self._gradients,
            *copies,
            num_tensors=len(self._masters),
            copies=int(bool(copies)),
            optimizer=self._rule,
            learning_rate=learning_rate,
            step=self._step,
            clip_factor=scale,
            **self._settings,
        )
