"""Damaged chunks under ``data.corrupt=skip``: a neighbour is read instead, and all workers record the same damage.

Workers read ahead independently, so each finds damage at a different time. A worker adds the number of its new finds to
the sums that all workers make in every step. When the total is not 0 they exchange the chunks, so that each of them
logs and counts the same.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.machine.worker import Worker
from kogpt2_gluon.shards.format import Tokens
from kogpt2_gluon.shards.shard_set import CorruptChunkError, ShardSet


class Damage:
    """Reads chunks, and keeps a record of the damaged ones.

    Parameters
    ----------
    sets : sequence of ShardSet
        They may be cached ones.
    skip : bool
        False: a damaged chunk raises CorruptChunkError. True: chunk ``c`` is replaced by the next whole one of chunks
        ``c + 1, c + 2, ...`` (modulo the number of full chunks), whose sequences then come twice.
    skipped : int
        Damaged chunks that the run has recorded so far.
    """

    def __init__(self, sets: Sequence[ShardSet], skip: bool, skipped: int = 0):
        self.skipped = skipped
        self._sets, self._skip = sets, skip
        self._lock = threading.Lock()
        self._found: set[tuple[int, int]] = set()  # (set, chunk) that the other workers have not heard of
        self._known: set[tuple[int, int]] = set()

    def read(self, number: int, chunk: int, out: Tokens) -> None:
        """Reads a chunk of set `number`, or its replacement, into `out` (chunk_tokens,). Thread-safe."""
        shards = self._sets[number]
        try:
            shards.read_into(chunk, out)
        except CorruptChunkError:
            if not self._skip:
                raise
            self._note(number, chunk)
            self._read_neighbour(number, chunk, out)

    def notices(self) -> NDArray[np.float64]:
        """Returns [number of damaged chunks that the other workers have not heard of], to be added up over all."""
        with self._lock:
            return np.array([float(len(self._found))])

    def agree(self, totals: NDArray[np.float64], worker: Worker) -> list[str]:
        """Returns log lines about newly found damage, the same on all workers; `totals` is the sum of their notices."""
        rows = int(totals[0])
        if rows == 0:
            return []
        table = np.zeros((rows, 2))  # (number of the set + 1, chunk); a row of zeros is none
        with self._lock:
            mine = sorted(self._found)[:rows]
        table[: len(mine)] = np.array([(number + 1, chunk) for number, chunk in mine]).reshape(-1, 2)
        chunks = {(int(number) - 1, int(chunk)) for number, chunk in worker.gather(table).reshape(-1, 2) if number}
        new = sorted(chunks - self._known)
        with self._lock:
            self._known |= chunks
            self._found -= chunks
        lines = []
        for number, chunk in new:
            self.skipped += 1
            place = self._sets[number].locate(chunk)
            name = self._sets[number].manifest.shards[place.shard].name
            lines.append(
                f"{self._sets[number].folder / name}: chunk {place.within} at byte {place.offset} is damaged; a "
                f"neighbour is read in its place ({self.skipped} skipped so far)"
            )
        return lines

    def _note(self, number: int, chunk: int) -> None:
        with self._lock:
            if (number, chunk) not in self._known:
                self._found.add((number, chunk))

    def _read_neighbour(self, number: int, chunk: int, out: Tokens) -> None:
        shards: Any = self._sets[number]
        for step in range(1, shards.num_full + 1):
            neighbour = (chunk + step) % shards.num_full
            try:
                shards.read_into(neighbour, out)
                return
            except CorruptChunkError:
                self._note(number, neighbour)
        raise DataError(f"{shards.folder}: no chunk of it is whole; make this set again")
