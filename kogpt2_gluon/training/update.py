"""One optimizer update: gradients add up, the workers take their mean, it is clipped and applied."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.machine.worker import Worker
from kogpt2_gluon.model.gpt2 import GPT2Model, structural_parameters
from kogpt2_gluon.model.precision import take_masters
from kogpt2_gluon.recipe_sections import TrainingRecipe
from kogpt2_gluon.training.optimizers import FusedCudaOptimizer, FusedOptimizer, StockOptimizer


class Update:
    """The gradients, float32 parameters and optimizer state of a network.

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
        True: by the fused operators, which must have been loaded. False: by MXNet's. The numbers are the same up to
        float32 rounding.

    Attributes
    ----------
    masters : dict
        {structural name: float32 NDArray}: the whole network, as a checkpoint holds it.
    parameters : dict
        {name: Parameter}: what is trained.
    before_change : callable
        Is called before an update changes `masters` and moments; a save that still reads them sets it.
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
        self.before_change: Callable[[], None] = lambda: None
        self._recipe, self._worker, self._accumulate = recipe, worker, accumulate
        self.masters = take_masters(net, recipe.precision)
        self.parameters, masters = self.trained(net)
        for parameter in self.parameters.values():
            parameter.grad_req = "add" if accumulate > 1 else "write"
            if len(parameter.shape) == 1:  # biases and LayerNorm
                parameter.wd_mult = 0.0
        on_gpu = next(iter(self.masters.values())).context.device_type == "gpu"
        fused_optimizer = FusedCudaOptimizer if on_gpu else FusedOptimizer
        optimizer = fused_optimizer if fused else StockOptimizer
        self._optimizer = optimizer(self.parameters, masters, recipe, step)

    def trained(self, net: GPT2Model) -> tuple[dict[str, Any], dict[str, Any]]:
        """Returns the parameters that the optimizer moves and their float32 masters, both by name: here, all."""
        return structural_parameters(net), self.masters

    def start(self) -> None:
        """Clears the gradients for a new update."""
        if self._accumulate > 1:
            for parameter in self.parameters.values():
                parameter.zero_grad()

    def reduce(self) -> float:
        """Averages the gradients over the workers; returns the square of their global norm, as this worker adds it up.

        On GPUs the last bits of that sum differ from worker to worker: the workers must agree on one value before they
        decide anything by it.

        The allreduce overlaps the backward pass: both are queued in MXNet's engine long before they run. A hybridized
        graph is some twenty entries of that queue, not one, and each gradient goes to Horovod when the entry that makes
        it has run, whatever the order here.
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
        self.before_change()
        self._optimizer.apply(learning_rate, clip / loss_scale)

    def load_moments(self, arrays: Mapping[str, Any]) -> None:
        """Takes over the arrays of :meth:`moments`; DataError if they are those of another optimizer or model."""
        mine = self.moments()
        for name in sorted(mine.keys() ^ arrays.keys()):
            raise DataError(
                f"optimizer state {name}: in one of run and checkpoint only; it was saved by another optimizer or model"
            )
        for name, array in mine.items():
            if array.shape != arrays[name].shape:
                raise DataError(f"optimizer state {name}: shape {arrays[name].shape}, expected {array.shape}")
            array[:] = arrays[name]

    def moments(self) -> dict[str, Any]:
        """The optimizer's arrays, {structural name:k : array}; the same with and without fused operators."""
        return {f"{name}:{k}": a for name, pair in self._optimizer.moments.items() for k, a in enumerate(pair)}
