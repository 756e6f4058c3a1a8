"""The precision and the kernels of a run's matrix products: measured by rank 0, the same on every worker."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kogpt2_gluon.machine.worker import Worker
from kogpt2_gluon.ops.choose import choose_ops, resolve_precision
from kogpt2_gluon.ops.kernel_times import Network
from kogpt2_gluon.ops.kernels import (
    Choice,
    choice_of,
    choose_kernels,
    network_of,
    note_of_faster,
    processor_name,
    still_holds,
    use_kernels,
)
from kogpt2_gluon.ops.operator_set import OperatorSet
from kogpt2_gluon.recipe import Recipe

NAME_BYTES = 128  # of a processor's name, when workers compare theirs


@dataclass
class Products:
    """How a run computes its matrix products.

    Attributes
    ----------
    precision : str
        'float32', 'bfloat16' or 'float16', whatever `training.precision` says.
    ops : OperatorSet
    kernels : Choice, optional
        None with operators that have no kernels to choose from.
    notes : list of str
        Lines for the log.
    """

    precision: str
    ops: OperatorSet
    kernels: Choice | None = None
    notes: list[str] = field(default_factory=list)

    def state(self) -> dict[str, Any]:
        """Returns what a checkpoint keeps, so that a resumed run computes the very same sums."""
        return {"precision": self.precision, "kernels": vars(self.kernels) if self.kernels else None}


def settle_products(recipe: Recipe, ctx: Any, worker: Worker, saved: dict[str, Any] | None) -> Products:
    """Decides on rank 0, and sets it on every worker. `saved` is the state of the checkpoint to go on from."""
    training, model, network = recipe.training, recipe.model, network_of(recipe)
    precision, reason = training.precision, ""
    if precision == "auto":
        decided = resolve_precision(training.ops, precision, ctx, network) if worker.rank == 0 else None
        precision, reason = worker.broadcast(decided)
    ops = choose_ops(training.ops, precision, ctx, model.dropout, model.activation)
    notes = [f"training.precision=auto: {precision}, because {reason}"] if reason else []
    before = (saved or {}).get("products") or {}
    if before.get("precision", precision) != precision:
        notes.append(f"products were in {before['precision']} before the checkpoint, and are in {precision} from here")
    kernels = _settle_kernels(network, ops, ctx, worker, choice_of(before.get("kernels")), notes)
    return Products(precision, ops, kernels, notes)


def _settle_kernels(
    network: Network, ops: OperatorSet, ctx: Any, worker: Worker, before: Choice | None, notes: list[str]
) -> Choice | None:
    if ctx.device_type != "cpu":
        return None
    has_kernels = ops.name == "fused"
    mine: Choice | None = None
    if has_kernels and worker.rank == 0:
        if before and still_holds(before, network, ops.precision):
            mine = before
            notes += [note] if (note := note_of_faster(before, network)) else []
        else:
            mine = choose_kernels(network, ops.precision)
    kernels = choice_of(worker.broadcast(vars(mine) if mine else None))
    if kernels and has_kernels:
        use_kernels(kernels)
        notes.append(kernels.describe())
        if before and before != kernels and before.precision == kernels.precision:
            notes.append(
                "the kernels of these products are not those before the checkpoint, so sums may differ in their last "
                f"digits; before: {before.describe()}"
            )
    notes += _other_processors(worker)
    return kernels


def _other_processors(worker: Worker) -> list[str]:
    """Names the workers whose processor is not that of rank 0, for which the kernels were chosen."""
    if worker.size == 1:
        return []
    name = processor_name().encode()[:NAME_BYTES].ljust(NAME_BYTES)
    names = [bytes(row.astype(np.uint8)).decode(errors="replace").strip() for row in worker.gather(list(name))]
    others = {other: [rank for rank, each in enumerate(names) if each == other] for other in set(names) - {names[0]}}
    return [
        f"note: rank(s) {', '.join(map(str, ranks))} have another processor, {other}; the kernels are those that are "
        f"fastest on rank 0's, {names[0]}"
        for other, ranks in sorted(others.items())
    ]
