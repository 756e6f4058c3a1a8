"""The reader of a task's training rows, as the training loop sees it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.machine.worker import Worker
from kogpt2_gluon.reading.reader import Reader
from kogpt2_gluon.reading.saved_state import check_source
from kogpt2_gluon.recipe import Recipe
from kogpt2_gluon.tasks.encoding import Examples
from kogpt2_gluon.tasks.order import Numbers, Order

SOURCE, VERSION = "task", 1  # of the saved state
SHOWN_ROWS = 1000  # that a message names at most


class ExampleReader(Reader):
    """Deals the rows of each update to the workers.

    Parameters
    ----------
    examples : Examples
    recipe : Recipe
    worker : Worker
    consumed : int
        Rows, over all workers, of the updates so far.
    """

    def __init__(self, examples: Examples, recipe: Recipe, worker: Worker, consumed: int) -> None:
        training = recipe.training
        super().__init__(training.total_batch_size, consumed)
        self._examples, self._batch_size = examples, training.batch_size
        self._rank, self._size = worker.rank, worker.size
        self._order = Order(examples.lengths, training.total_batch_size, training.seed)

    def updates(self) -> Iterator[list[Numbers]]:
        """Yields the numbers of this worker's rows in each micro batch of an update, endlessly, each one counted.

        The workers take the micro batches in turn, which are sorted by length, so that none waits long for another.
        """
        while True:
            rows = self._order.update(self.consumed // self.sequences_per_update)
            micro_batches = rows.reshape(-1, self._batch_size)
            self.count_update()
            yield list(micro_batches[self._rank :: self._size])

    @property
    def epoch(self) -> float:
        return self.consumed / len(self._examples)

    @property
    def epoch_ended(self) -> bool:
        before = self.consumed - self.sequences_per_update
        return self.consumed // len(self._examples) > before // len(self._examples)

    @property
    def fingerprint(self) -> str:
        return self._examples.fingerprint

    def sequences_of_last(self, updates: int) -> list[str]:
        last = self.consumed // self.sequences_per_update
        numbers = [row for update in range(max(0, last - updates), last) for row in self._order.update(update)]
        return [self._examples.rows[row].where for row in numbers[:SHOWN_ROWS]]

    def describe(self, num_sequences: int) -> str:
        total, tokens = len(self._examples), int(self._examples.ends[-1])
        return f"{total:,} rows of {tokens / total:.1f} tokens on average; {num_sequences / total:.1f} epochs of them"

    # The rows are the same files on every worker and do not change, so there is nothing to exchange.

    def notices(self) -> NDArray[np.float64]:
        return np.zeros(0)

    def agree(self, totals: NDArray[np.float64], worker: Worker) -> list[str]:
        return []

    def gather(self, worker: Worker) -> None:
        pass

    def state(self) -> dict[str, Any]:
        return {
            "source": SOURCE,
            "version": VERSION,
            "fingerprint": self.fingerprint,
            "consumed": self.consumed,
            "total_batch_size": self.sequences_per_update,
        }

    def close(self) -> None:
        pass


def consumed_of(saved: dict[str, Any] | None, examples: Examples, recipe: Recipe, source: str) -> int:
    """Returns how many rows the saved state of a reader has used.

    DataError if it is of other rows, or not a state; RecipeError if its updates have another size.
    """
    if saved is None:
        return 0
    check_source(saved, SOURCE, VERSION, source)
    total, consumed = saved.get("total_batch_size"), saved.get("consumed")
    if type(consumed) is not int or type(total) is not int or consumed < 0 or total < 1 or consumed % total:
        raise DataError(f"{source}: the state of its reader is damaged")
    if saved.get("fingerprint") != examples.fingerprint:
        raise DataError(
            f"{source}: trained on other rows than those of {recipe.task.data} (or with other labels, "
            "another tokenizer or data.seq_length); restore these, or begin a new run in another run_dir"
        )
    if total != recipe.training.total_batch_size:
        raise RecipeError(
            f"training.total_batch_size={recipe.training.total_batch_size}: {source} has {total}, which a task keeps "
            "to its end; begin another run with its weights: training.init_from"
        )
    return consumed
