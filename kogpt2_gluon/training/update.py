"""One optimizer update: accumulated gradients in, mean over the workers, clip, step."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.machine.runtime import mx, nlp
from kogpt2_gluon.model.gpt2 import GPT2Model, structural_parameters
from kogpt2_gluon.model.precision import take_masters
from kogpt2_gluon.recipe import TrainingRecipe
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


def _slices(gradients: list) -> list:
    """Views of at most NORM_SLICE elements of float32 arrays.

    multi_sum_sq adds up each array in its own format, one element after the other: float32 loses 9% of the sum over 38
    million elements that way, and 1e-5 over a slice; float16 would overflow.
    """
    flat = [gradient.reshape((-1,)) for gradient in gradients]
    return [g[i : i + NORM_SLICE] for g in flat for i in range(0, g.size, NORM_SLICE)]


class StockOptimizer:
    """The optimizer by MXNet's own operators: a call for each parameter, and the gradients read once more for the norm.

    Parameters
    ----------
    parameters : dict
        {structural name: Parameter}, with gradients.
    masters : dict
        {structural name: float32 NDArray}: the parameters' own arrays, or what they are rounded copies of.
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
    """The same as :class:`StockOptimizer` by two operators of ours, each over all parameters at once.

    This one is for CPUs, where masters and parameters are one, in float32.
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
    """On a GPU: parameters and gradients may be float16, and the parameters are written along with the masters."""

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


class Update:
    """Gradients, float32 parameters and optimizer state of a network.

    Parameters
    ----------
    net : GPT2Model
        Initialized, in float32. Its gradients add up over the micro steps of an update.
    recipe : TrainingRecipe
        Its `precision` may make the network's own arrays float16; `masters` stay float32.
    worker : Worker
    accumulate : int
        Micro steps of an update.
    step : int
        Updates already made.
    fused : bool
        By our operators, which must have been loaded, or by MXNet's: the same numbers to float32 rounding.
    """

    def __init__(
        self,
        net: GPT2Model,
        recipe: TrainingRecipe,
        worker: Worker,
        accumulate: int,
        step: int = 0,
        fused: bool = False,
    ):
        self.masters = take_masters(net, recipe.precision)
        self.parameters = structural_parameters(net)
        self._recipe, self._worker, self._accumulate = recipe, worker, accumulate
        for parameter in self.parameters.values():
            parameter.grad_req = "add" if accumulate > 1 else "write"
            if len(parameter.shape) == 1:  # biases and LayerNorm
                parameter.wd_mult = 0.0
        on_gpu = next(iter(self.masters.values())).context.device_type == "gpu"
        fused_optimizer = FusedCudaOptimizer if on_gpu else FusedOptimizer
        optimizer = fused_optimizer if fused else StockOptimizer
        self._optimizer = optimizer(self.parameters, self.masters, recipe, step)

    def start(self) -> None:
        """Clears the gradients for a new update."""
        if self._accumulate > 1:
            for parameter in self.parameters.values():
                parameter.zero_grad()

    def reduce(self) -> float:
        """Averages the gradients over the workers; returns the square of their global norm, as added up here.

        On GPUs the last bits of that sum differ from worker to worker: agree on one before anything is decided by it.

        The allreduce overlaps the backward pass: both are queued in MXNet's engine long before they run, a hybridized
        graph is some twenty entries of that queue and not one, and each gradient goes to Horovod when the entry that
        makes it has run, whatever the order here.
        """
        gradients = {name: parameter.grad() for name, parameter in self.parameters.items()}
        self._worker.mean_gradients(gradients, as_float16=self._recipe.precision == "float16")
        with self._worker.waiting():
            return self._optimizer.squared_norm()

    def apply(self, learning_rate: float, norm: float, loss_scale: float = 1.0) -> None:
        """Updates every parameter; gradients of a `norm` above the clipping norm are scaled down to it.

        The gradients are `loss_scale` times too large; `norm` is what they have without it. Every worker must pass the
        same `norm`: parameters are not compared again.
        """
        clip_norm = self._recipe.clip_norm
        clip = min(1.0, clip_norm / norm) if clip_norm and norm else 1.0
        self._optimizer.apply(learning_rate, clip / loss_scale)

    def arrays(self) -> dict[str, Any]:
        """The optimizer's arrays as NumPy, {structural name:k : array}; the same with and without fused operators."""
        return {name: array.asnumpy() for name, array in self._moments().items()}

    def load_arrays(self, arrays: dict[str, Any]) -> None:
        """Takes over what :meth:`arrays` gave; DataError if names or shapes are those of another optimizer or model."""
        mine = self._moments()
        for name in sorted(mine.keys() ^ arrays.keys()):
            raise DataError(
                f"optimizer state {name}: on one side only; the checkpoint is of another optimizer or model"
            )
        for name, array in mine.items():
            if array.shape != arrays[name].shape:
                raise DataError(f"optimizer state {name}: shape {arrays[name].shape}, expected {array.shape}")
            array[:] = arrays[name]

    def _moments(self) -> dict[str, Any]:
        return {f"{name}:{k}": a for name, pair in self._optimizer.moments.items() for k, a in enumerate(pair)}
