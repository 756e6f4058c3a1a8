"""The gradient of a tied embedding as rows, for the fused CPU operators."""

from __future__ import annotations

from typing import Any

from kogpt2_gluon.machine.runtime import mx


class EmbeddingRows:
    """The gradient of an embedding that shares its matrix with the output projection, as one row a token.

    Without this MXNet makes two gradients of the matrix's size, of which the embedding's is zero in all but a few rows,
    and then their sum. At 2 x 256 tokens of KoGPT-2 base that costs a twentieth of a step, and 315 MB.

    Parameters
    ----------
    embed : nn.Embedding
    """

    def __init__(self, embed: Any):
        self._weight = embed.weight
        self._pass: tuple[Any, Any] | None = None  # tokens, and the array whose gradient is their rows

    def inputs(self, tokens: Any) -> tuple[Any, Any, Any]:
        """Returns the `rows` of ``OperatorSet.embedding`` and ``cross_entropy``.

        They are the matrix (V, C), an array (B, T, C) whose gradient is that of the rows, and memory that the operator
        of the loss may use until the backward pass: the matrix's gradient (V, C), unless gradients add up in it.
        That holds for passes that are not recorded too, so evaluation needs no more memory than training.
        """
        weight = self._weight.data()
        # While a recorded pass waits for its backward pass, its logits are there.
        is_free = self._weight.grad_req == "write" and self._pass is None
        memory = self._weight.grad() if is_free else mx.nd.zeros(1, ctx=weight.context)
        array = mx.nd.zeros((*tokens.shape, weight.shape[1]), ctx=weight.context)  # its values are not read
        if mx.autograd.is_recording():
            array.attach_grad()
            self.record(tokens, array)
        return weight.detach(), array, memory

    def record(self, tokens: Any, array: Any) -> None:
        """Begins a recorded pass over an array that :meth:`inputs` returned; that one has done it for its own."""
        assert self._pass is None, "a recorded pass before this one still lacks its call of add()"
        self._pass = tokens, array

    def add(self) -> None:
        """Adds the rows of the pass recorded last to the matrix's gradient; call it after the backward pass."""
        assert self._pass is not None, "add() comes once after each recorded pass"
        (tokens, array), self._pass = self._pass, None
        if self._weight.grad_req != "null":
            mx.nd.kogpt2_add_rows(self._weight.grad(), tokens, array.grad)
