"""How parameters reach an operator: their values, and what is wanted of their gradients."""

from __future__ import annotations

from typing import Any

from kogpt2_gluon.machine.runtime import mx


def value(F: Any, parameter: Any) -> Any:
    """A parameter as `F` computes with it: its variable for symbols, else its array on the current context.

    A HybridBlock does the same for the parameters that it registers itself.
    """
    return parameter.var() if F is mx.sym else parameter.data()


def requests(*inputs: Any) -> str:
    """The attribute `req` of a fused operator: what its backward pass does with the gradient of each input.

    MXNet does not tell an operator of a library whether to write a gradient, to add to it or to leave it, so it is told
    here, one word an input: a Parameter's own `grad_req`, or the word that is given.

    With grad_req "add" there may be one forward pass to a backward pass: where several are recorded before it, MXNet
    adds their gradients up in arrays of its own, which it has not cleared and which the operators would add to.
    """
    return ",".join(each if isinstance(each, str) else each.grad_req for each in inputs)


def shared_request(parameter: Any) -> str:
    """The word for a parameter with several operators: never "add", for MXNet adds their gradients up by itself."""
    return "null" if parameter.grad_req == "null" else "write"


class RetracedBlock(mx.gluon.HybridBlock):
    """A HybridBlock that is traced again when a parameter's `grad_req` or dtype is no longer what it was.

    Both are attributes of operators in the graph: without this a hybridized network would go on with the old ones, and
    say nothing. A block inside of another hybridized one is traced as a part of it.
    """

    def __init__(self, prefix: str | None = None, params: Any = None):
        super().__init__(prefix=prefix, params=params)
        self._watched: list = []  # the parameters, listed once: doing it for each call takes a millisecond
        self._traced_with: list = []

    def forward(self, x: Any, *args: Any) -> Any:
        """As HybridBlock's, after the check."""
        if self._active:
            self._watched = self._watched or list(self.collect_params().values())
            now = [(parameter.grad_req, parameter.dtype) for parameter in self._watched]
            if now != self._traced_with:
                self._clear_cached_op()
                self._traced_with = now
        return super().forward(x, *args)

    def register_child(self, block: Any, name: str | None = None) -> None:
        """As HybridBlock's."""
        super().register_child(block, name)
        self._watched = []
