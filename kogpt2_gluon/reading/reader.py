"""The endless shuffled reader of training, as the training loop sees it.

There are three: :class:`kogpt2_gluon.reading.shard_reader.ShardReader` reads token shards,
:class:`kogpt2_gluon.reading.text.reader.TextReader` tokenizes text on the fly, and
:class:`kogpt2_gluon.tasks.reader.ExampleReader` takes the rows of a task.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from kogpt2_gluon.machine.worker import Worker

Batch = NDArray[np.int32]
AnyReader = TypeVar("AnyReader", bound="Reader")


class Reader(ABC):
    """The place of a run in its data: what its updates have used, on all workers together.

    Opening a reader, :meth:`agree` and :meth:`gather` are collective: all workers call them at the same point. What
    was only read ahead counts nowhere: `consumed`, `epoch` and `state` are about the updates that were used.

    Attributes
    ----------
    consumed : int
        Sequences, over all workers, in the updates that were used.
    sequences_per_update : int
        Sequences, over all workers, in one update.
    notes : list of str
        Lines for the log about the place to go on from, the same on all workers.
    """

    def __init__(self, sequences_per_update: int, consumed: int) -> None:
        self.sequences_per_update, self.consumed = sequences_per_update, consumed
        self.notes: list[str] = []

    def count_update(self) -> None:
        """Counts one more update as consumed."""
        self.consumed += self.sequences_per_update

    # Where it is in the data.

    @property
    @abstractmethod
    def epoch(self) -> float:
        """Passes over the data so far."""

    @property
    @abstractmethod
    def epoch_ended(self) -> bool:
        """True if the last update completed an epoch."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Identifies the data, in the checkpoint."""

    def place_of_last(self, updates: int) -> str:
        """Says in a few words which sequences of the reading order the last `updates` updates used."""
        first = max(0, self.consumed - updates * self.sequences_per_update)
        return f"sequences {first:,} to {self.consumed - 1:,} of the reading order"

    def sequences_of_last(self, updates: int) -> list[str]:
        """Says where each of these sequences is in the data; nothing if the reader does not know."""
        return []

    @abstractmethod
    def describe(self, num_sequences: int) -> str:
        """Says in a few lines what is read; `num_sequences` is what `consumed` will be at the end of the run."""

    # What the workers exchange.

    @abstractmethod
    def notices(self) -> NDArray[np.float64]:
        """Returns a few numbers, always as many, that every worker adds to the sums of each step."""

    @abstractmethod
    def agree(self, totals: NDArray[np.float64], worker: Worker) -> list[str]:
        """Takes the sums of all workers' notices, after each step; returns lines for the log, the same on all workers.

        It may exchange more with the other workers, and raises DataError where they find that the data has changed.
        """

    @abstractmethod
    def gather(self, worker: Worker) -> None:
        """Brings together what :meth:`state` needs to know of the other workers. Call it before rank 0 saves."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Returns what a resume needs and checks, as plain data for the checkpoint."""

    # Its end.

    @abstractmethod
    def close(self) -> None:
        """Ends the threads and closes the files."""

    def __enter__(self: AnyReader) -> AnyReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class SequenceReader(Reader):
    """Sequences of one length for language modelling, made by a background thread before they are asked for."""

    @abstractmethod
    def blocks(self) -> Iterator[Batch]:
        """Yields some updates of this worker at a time, endlessly: C-contiguous, int32.

        The shape is (updates, accumulate, batch_size, seq_length + 1). No block is written to again. Call
        :meth:`count_update` for every update that is used.
        """

    def __iter__(self) -> Iterator[Batch]:
        """Yields the updates one by one, (accumulate, batch_size, seq_length + 1), each counted as consumed."""
        for block in self.blocks():
            for update in block:
                self.count_update()
                yield update
