"""The training tokens on their way to the device."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kogpt2_gluon.data.reading.reader import Batch, Reader
from kogpt2_gluon.runtime import mx


def device_batches(reader: Reader, ctx: Any) -> Iterator[tuple[Batch, Any]]:
    """The tokens of every update, (accumulate, batch_size, seq_length + 1) of int32, in NumPy and as an NDArray.

    On a CPU the NDArray is the reader's own memory, on a GPU a copy of it. Many updates pass to MXNet at once: the call
    costs 40 us whatever it carries, as long as reading 8,192 tokens takes.
    """
    for block in reader.blocks():
        arrays = mx.nd.from_numpy(block, zero_copy=True).as_in_context(ctx)  # `block` can no longer be written to
        for number, tokens in enumerate(block):
            reader.count_update()
            yield tokens, arrays[number]
