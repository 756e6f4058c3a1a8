"""The format of a network's parameter arrays in mixed precision, and their float32 masters.

What `training.precision` means as a whole is said in :mod:`kogpt2_gluon.training.loss_scale`.
"""

from __future__ import annotations

from typing import Any

from kogpt2_gluon.model.gpt2 import GPT2Model, structural_parameters


def working_dtype(precision: str, ctx: Any) -> str:
    """The format of the network's parameter and gradient arrays."""
    return "float16" if precision == "float16" and ctx.device_type == "gpu" else "float32"


def cast_network(net: GPT2Model, precision: str) -> None:
    """Gives a network that was initialized in float32 the arrays that `precision` computes with."""
    for parameter in structural_parameters(net).values():
        dtype = working_dtype(precision, parameter.data().context)
        if dtype != "float32":
            parameter.cast(dtype)


def take_masters(net: GPT2Model, precision: str) -> dict[str, Any]:
    """{structural name: float32 NDArray} to make updates in; casts the network, which is in float32 so far.

    Where it computes with float32 arrays the masters are these arrays. Else the network gets copies, and whoever
    changes a master brings its copy up to date.
    """
    masters = {name: parameter.data() for name, parameter in structural_parameters(net).items()}
    cast_network(net, precision)
    return masters
