"""Takes the training tokens from the reader to the device."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.reading.reader import Batch, SequenceReader


def device_batches(reader: SequenceReader, ctx: Any) -> Iterator[tuple[Batch, Any]]:
    """Yields the tokens of each update, int32 (accumulate, batch_size, seq_length + 1), in NumPy and as an NDArray.

    Many updates are copied to MXNet at once, because a call costs tens of microseconds whatever it carries: as long as
    it takes to read 8,192 tokens. The memory is not lent (``from_numpy(zero_copy=True)``): MXNet gives lent memory back
    by calling into Python from the thread that used it last, and if that happens while Python ends, the process aborts.
    """
    for block in reader.blocks():
        arrays = mx.nd.array(block, ctx=ctx, dtype=block.dtype)
        for number, tokens in enumerate(block):
            reader.count_update()
            yield tokens, arrays[number]
