"""How parameters reach an operator: their values, and the requests for their gradients."""

from __future__ import annotations

from typing import Any

from kogpt2_gluon.machine.runtime import mx


def value(F: Any, parameter: Any) -> Any:
    """Returns a parameter as `F` takes it: its variable for symbols, else its array on the current context.

    A HybridBlock does the same for the parameters that it registers itself.
    """
    return parameter.var() if F is mx.sym else parameter.data()


def requests(*inputs: Any) -> str:
    """Returns the attribute `req` of a fused operator: what its backward pass does with the gradient of each input.

    An operator of a library does not learn from MXNet if it must write a gradient, add to it or leave it alone. This
    attribute says it, with one word for each input: a Parameter's own `grad_req`, or the word that is given.

    With grad_req "add", record only one forward pass before each backward pass. After several, MXNet adds up their
    gradients in arrays of its own, which it does not clear first and which the operators would add to.
    """
    return ",".join(each if isinstance(each, str) else each.grad_req for each in inputs)


def shared_request(parameter: Any) -> str:
    """Returns the word for a parameter of several operators: never "add", because MXNet adds up their gradients."""
    return "null" if parameter.grad_req == "null" else "write"


class _Same:
    """Equal to another one if both hold the very same object, or None."""

    def __init__(self, held: Any) -> None:
        self._held = held

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self._held is other._held

    __hash__ = None  # type: ignore[assignment]  # it is compared, never looked up


class RetracedBlock(mx.gluon.HybridBlock):
    """A HybridBlock that is traced again when a parameter's `grad_req`, dtype or gradient array has changed.

    The first two are attributes of operators in the graph, and a graph with memory of its own writes to the arrays that
    it was traced with. Without this class a hybridized network would silently keep the old ones. A block inside another
    hybridized block is traced as a part of it.
    """

    def __init__(self, prefix: str | None = None, params: Any = None):
        super().__init__(prefix=prefix, params=params)
        self._watched: list = []  # the parameters, listed once: doing it for each call takes a millisecond
        self._traced_with: list = []

    def forward(self, x: Any, *args: Any) -> Any:
        """Checks the parameters, then does what HybridBlock does."""
        if self._active:
            self._watched = self._watched or list(self.collect_params().values())
            # A gradient has a new array after grad_req was "null", even if no pass was made meanwhile. Parameter.grad()
            # would take longer, and raises where there is none.
            now = [(parameter.grad_req, parameter.dtype, _Same(parameter._grad)) for parameter in self._watched]
            if now != self._traced_with:
                self._clear_cached_op()
                self._traced_with = now
        return super().forward(x, *args)

    def register_child(self, block: Any, name: str | None = None) -> None:
        """Registers a child block, as HybridBlock does."""
        super().register_child(block, name)
        self._watched = []
