"""The training tokens on their way to the device."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.reading.reader import Batch, Reader


def device_batches(reader: Reader, ctx: Any) -> Iterator[tuple[Batch, Any]]:
    """The tokens of every update, (accumulate, batch_size, seq_length + 1) of int32, in NumPy and as an NDArray.

    Many updates are copied to MXNet at once: the call costs tens of microseconds whatever it carries, as long as
    reading 8,192 tokens takes. They are not lent (``from_numpy(zero_copy=True)``): MXNet gives lent memory back by
    calling into Python from the thread that used it last, and if that happens while Python ends, the process aborts.
    """
    for block in reader.blocks():
        arrays = mx.nd.array(block, ctx=ctx, dtype=block.dtype)
        for number, tokens in enumerate(block):
            reader.count_update()
            yield tokens, arrays[number]
