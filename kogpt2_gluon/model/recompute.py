"""Activation recomputation (Chen et al., 2016, Training Deep Nets with Sublinear Memory Cost).

The forward pass keeps only the input of each layer, and the backward pass computes the layer again from it. MXNet 1.9.1
does that in the executor of a bound symbol, not in the CachedOp of a hybridized block: the executor puts copies of the
operators that an attribute marks (``force_mirroring``) into the backward graph. ops/recompute.py marks them, and says
how the masks of dropout are repeated.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.model.gpt2 import GPT2Model
from kogpt2_gluon.model.loss import LanguageModelLoss
from kogpt2_gluon.ops.recompute import MASK, RecomputingOps, recomputing

# The arguments of GPT2Model.token_losses; its last one is a tuple of three.
ARRAYS = ("inputs", "labels", "weight", "rows", "memory")


class RecomputedLoss(LanguageModelLoss):
    """A LanguageModelLoss whose recorded passes keep only the input of each layer. All numbers are the same bits.

    Make it before the parameters' `grad_req` or dtype is changed. A recorded pass must be one of training. It needs its
    backward pass and :meth:`complete_gradients`, which computes the gradients, before the next one. Passes that are not
    recorded are those of LanguageModelLoss. Their graph and that of the recorded ones never have memory together.
    """

    def __init__(self, net: GPT2Model, rows_apart: bool = False, prefix: str | None = None, params=None):
        super().__init__(net, rows_apart, prefix, params)
        os.environ.setdefault("MXNET_SUBGRAPH_VERBOSE", "0")  # when MXNet binds a graph, it names a backend on stderr
        # On a GPU it also merges small operators, which was said not to go with copies of them (apache/mxnet #19133).
        os.environ.setdefault("MXNET_USE_FUSION", "0")
        # Its plan of memory may put a small array that is kept into a large one that is free; this tries five plans.
        os.environ.setdefault("NNVM_AUTO_SEARCH_MATCH_RANGE", "1")
        self._ops = recomputing(net.ops)
        self._token_losses = net.with_ops(self._ops).token_losses
        self._parameters = list(net.collect_params().values())
        self._graph: _Graph | None = None
        self._losses: Any = None  # of the recorded pass that waits for its gradients
        self._in_segments = True

    def hybridize(self, active: bool = True, **options: Any) -> None:
        """Does what HybridBlock does; a bulk size of 0 holds for the recorded passes too."""
        super().hybridize(active, **options)
        self._graph, self._in_segments = None, options.get("forward_bulk_size") != 0

    def forward(self, tokens):
        """Computes the loss; that of a recorded pass is a variable with a gradient of its own."""
        if not mx.autograd.is_recording():
            if self._losses is None:
                self._graph = None
            return super().forward(tokens)
        assert mx.autograd.is_training(), "a recorded pass that is not one of training"
        assert self._losses is None, "a recorded pass before this one still lacks its call of complete_gradients()"
        self._clear_cached_op()
        inputs, labels = self.split(tokens)
        graph = self._graph_for(inputs, labels)
        with mx.autograd.pause():
            self._losses = graph.forward(inputs, labels)
        self._losses.attach_grad()
        return self._losses

    def _graph_for(self, inputs: Any, labels: Any) -> _Graph:
        """The graph of an earlier pass if it fits, else a new one."""
        if self._graph and self._graph.fits(inputs):
            if self._rows:
                self._rows.record(inputs, self._graph.rows)
            return self._graph
        self._graph = None  # its memory is free before the next one takes any
        rows = self._rows.inputs(inputs) if self._rows else ()
        arrays = dict(zip(ARRAYS, (inputs, labels, *rows)))
        self._graph = _Graph(self._token_losses, self._ops, self._parameters, arrays, self._in_segments)
        return self._graph

    def complete_gradients(self) -> None:
        """Computes the gradients of the parameters from that of the loss; call it after each backward pass."""
        assert self._graph and self._losses is not None, "complete_gradients() comes once after each recorded pass"
        losses, self._losses = self._losses, None
        self._graph.backward(losses.grad)
        super().complete_gradients()


LOSS_BLOCKS = {"none": LanguageModelLoss, "layer": RecomputedLoss}  # by training.recompute


class _Graph:
    """The graph of forward and backward pass for one shape, over the parameters' own arrays and gradients.

    `token_losses` is GPT2Model's over `ops`, and `arrays` are those that it takes, by the names in ARRAYS.
    """

    def __init__(
        self,
        token_losses: Callable[..., Any],
        ops: RecomputingOps,
        parameters: list,
        arrays: dict[str, Any],
        in_segments: bool,
    ):
        self._ops, self._parameters, self._bound = ops, parameters, _state_of(parameters)
        self._inputs, self._labels, self.rows = arrays["inputs"], arrays["labels"], arrays.get("rows")
        variables = [mx.sym.var(name, dtype=array.dtype) for name, array in arrays.items()]
        losses = token_losses(mx.sym, *variables[:2], tuple(variables[2:]) or None)
        values = {**arrays, **{parameter.name: parameter.data() for parameter in parameters}}
        gradients = {parameter.name: parameter.grad() for parameter in parameters if parameter.grad_req != "null"}
        if self.rows is not None:
            gradients["rows"] = self.rows.grad
        requests = {parameter.name: parameter.grad_req for parameter in parameters}
        names = losses.list_arguments()
        shapes, _, _ = losses.infer_shape(**{name: values[name].shape for name in names if name in values})
        context = self._inputs.context
        self._masks = [
            mx.nd.empty(shape, ctx=context, dtype="uint8") for name, shape in zip(names, shapes) if MASK in name
        ]
        values.update(zip((name for name in names if MASK in name), self._masks))
        with _operators_apart(not in_segments):
            self._executor = losses.bind(
                context,
                {name: values[name] for name in names},
                {name: gradients[name] for name in names if name in gradients},
                {name: requests.get(name, "write" if name in gradients else "null") for name in names},
            )

    def fits(self, inputs: Any) -> bool:
        """Returns True if the graph is one for this shape, and its arrays are still those of the parameters."""
        now = _state_of(self._parameters)
        return inputs.shape == self._inputs.shape and all(one is other for one, other in zip(now, self._bound))

    def forward(self, inputs: Any, labels: Any) -> Any:
        """The losses, in an array of their own."""
        self._ops.draw_masks(self._masks)
        self._inputs[:], self._labels[:] = inputs, labels
        return self._executor.forward(is_train=True)[0].copy()

    def backward(self, gradient: Any) -> None:
        """Leaves the gradients in the parameters, given that of the losses."""
        self._executor.backward([gradient])


def _state_of(parameters: list) -> list:
    """Each parameter's request, array and gradient. Another `grad_req` or dtype brings new arrays."""
    arrays: list = []
    for parameter in parameters:
        gradient = parameter.grad() if parameter.grad_req != "null" else None
        arrays += [parameter.grad_req, parameter.data(), gradient]
    return arrays


@contextmanager
def _operators_apart(wanted: bool) -> Iterator[None]:
    """Within it, if `wanted`, MXNet binds graphs whose operators go to its engine one at a time."""
    name = "MXNET_EXEC_BULK_EXEC_TRAIN"
    before = os.environ.get(name)
    if not wanted or before == "0":
        yield
        return
    mx.nd.waitall()  # a thread that reads the environment while it changes may fail
    os.environ[name] = "0"
    try:
        yield
    finally:
        os.environ.pop(name) if before is None else os.environ.update({name: before})
