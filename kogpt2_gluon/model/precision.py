"""The format of a network's parameter arrays in mixed precision, and their float32 masters.

:mod:`kogpt2_gluon.training.loss_scale` explains what `training.precision` means as a whole.
"""

from __future__ import annotations

from typing import Any

from kogpt2_gluon.model.gpt2 import GPT2Model, structural_parameters


def working_dtype(precision: str, ctx: Any) -> str:
    """The format of the network's parameter and gradient arrays."""
    return "float16" if precision == "float16" and ctx.device_type == "gpu" else "float32"


def cast_network(net: GPT2Model, precision: str) -> None:
    """Casts a network that was initialized in float32 to the arrays that `precision` computes with."""
    for parameter in structural_parameters(net).values():
        dtype = working_dtype(precision, parameter.data().context)
        if dtype != "float32":
            parameter.cast(dtype)


def take_masters(net: GPT2Model, precision: str) -> dict[str, Any]:
    """Casts a network that is still in float32; returns {structural name: float32 NDArray}, in which updates are made.

    If the network computes with float32 arrays, the masters are these arrays. Otherwise the network gets copies, and
    the code that changes a master must update its copy.
    """
    masters = {name: parameter.data() for name, parameter in structural_parameters(net).items()}
    cast_network(net, precision)
    return masters
