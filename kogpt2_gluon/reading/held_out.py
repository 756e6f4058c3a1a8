"""The plain reader for evaluation: held-out tokens in their own order, each once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from kogpt2_gluon.shards.format import Tokens
from kogpt2_gluon.shards.shard_set import ShardSet

Batch = NDArray[np.int32]


def sequences_of(tokens: int, seq_length: int, stride: int) -> int:
    """Returns how many sequences of ``seq_length + 1``, each `stride` tokens after the one before, cover `tokens`."""
    if tokens < 2:
        return 0
    return 1 + max(0, -(-(tokens - 1 - seq_length) // stride))


class HeldOutReader:
    """Held-out tokens in their own order, cut into sequences of ``seq_length + 1``, each sharing a token with the next.

    With a `stride` below `seq_length` a sequence begins only so many tokens after the one before, and shares the rest
    with it. The sequences are dealt to the workers in turn. The last one is filled up with the id that evaluation
    leaves out of its sums (`Manifest.unscored_id`: `<s>`, or -1), so that any number of workers adds up the same
    tokens. With `max_sequences`, only that many are read, evenly spaced, because a set often begins with one source and
    ends with another.
    """

    def __init__(self, shards: ShardSet, seq_length: int, max_sequences: int = 0, stride: int = 0):
        self._shards, self._seq_length, self._stride = shards, seq_length, stride or seq_length
        self._all = sequences_of(shards.manifest.tokens, seq_length, self._stride)
        self.num_sequences = min(self._all, max_sequences) if max_sequences else self._all
        self._chunk: tuple[int, Tokens] | None = None

    def batches(self, batch_size: int, rank: int = 0, size: int = 1) -> Iterator[Batch]:
        """Yields this worker's sequences, int32 (batch_size, seq_length + 1); the last batch is filled up.

        A batch is never larger than a worker's share of the sequences, so that little is computed for nothing.
        """
        mine = range(rank, self.num_sequences, size)
        batch_size = max(1, min(batch_size, -(-self.num_sequences // size)))
        for first in range(0, len(mine), batch_size):
            batch = np.full((batch_size, self._seq_length + 1), self._shards.manifest.unscored_id, np.int32)
            for row, sequence in zip(batch, mine[first : first + batch_size]):
                self._copy(row, sequence * self._all // self.num_sequences * self._stride)
            yield batch

    def _copy(self, row: Batch, start: int) -> None:
        """Copies the tokens from `start` on, across chunks, until `row` is full or the set ends."""
        done, tokens = 0, self._shards.manifest.tokens
        while done < len(row) and start + done < tokens:
            chunk, offset = divmod(start + done, self._shards.chunk_tokens)
            if self._chunk is None or self._chunk[0] != chunk:
                self._chunk = (chunk, self._shards.read_chunk(chunk))
            part = self._chunk[1][offset : offset + len(row) - done]
            row[done : done + len(part)] = part
            done += len(part)
