"""The reader for ``data.source: text``: text that is tokenized on the fly, as in the original training.

It promises less than the reader of shards. Each worker reads its own files, dealt out by bytes from one list, and reads
them again until every worker has finished its files. That ends the epoch, so every document comes at least once in it.
With ``data.refresh: epoch`` the list is then made again, and includes files that were added in the meantime. Resuming
is exact for the same number of workers. A resume that changes seq_length ends the epoch in progress: the rest of its
text is left out of it, the log says how much, and a whole epoch begins. A changed batch leaves the order alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.machine.worker import Worker
from kogpt2_gluon.reading.read_ahead import ReadAhead
from kogpt2_gluon.reading.reader import SequenceReader
from kogpt2_gluon.reading.text.files import TextChoice, TextFiles, change_error, find_change, list_text_files
from kogpt2_gluon.reading.text.saved import LENGTH, STATE_VERSION, TextSettings, note_on_length, saved_files
from kogpt2_gluon.reading.text.tokens import (
    REASONS,
    Cursor,
    DocumentEncoder,
    Int32Array,
    SequenceBlock,
    TextStream,
    describe_rejected,
)
from kogpt2_gluon.recipe import Recipe
from kogpt2_gluon.tokens.bpe_dropout import refuse_json
from kogpt2_gluon.tokens.tokenizer import Tokenizer
from kogpt2_gluon.wording import gigabytes

HISTORY = 8  # epochs whose lists are named in the state; all earlier ones are in one running hash
_QUIET = REASONS.index("empty")  # blank lines are not a fault


class TextReader(SequenceReader):
    """The batches of one worker from text. A background thread tokenizes it.

    Parameters
    ----------
    settings : TextSettings
    choice : TextChoice
        The files with the text.
    refresh : bool
        True: the list of files is made again when an epoch ends.
    tokenizer : Tokenizer
    worker : Worker
        It reads the files ``deal(size)[rank]``.
    batch_size, accumulate : int
        Sequences in a micro step, and micro steps in an update.
    saved : mapping, optional
        The state to resume from, as :meth:`state` returned it.
    source : str
        Where that state comes from, for messages.
    new_length : bool
        True: the resume may change seq_length.
    """

    def __init__(
        self,
        settings: TextSettings,
        choice: TextChoice,
        refresh: bool,
        tokenizer: Tokenizer,
        worker: Worker,
        batch_size: int,
        accumulate: int,
        saved: Mapping[str, Any] | None = None,
        source: str = "the checkpoint",
        new_length: bool = False,
    ) -> None:
        super().__init__(accumulate * batch_size * worker.size, consumed=0)
        self.settings, self.tokenizer = settings, tokenizer
        self._encoder = DocumentEncoder(tokenizer, settings.bpe_dropout)
        self._choice, self._refresh = choice, refresh
        self._rank, self._size = worker.rank, worker.size
        self._shape = (accumulate, batch_size, settings.seq_length + 1)
        self._epoch, self._share_read = 0, 0.0  # epochs that ended, and the share of this one that has been read
        self._unread = 0.0  # shares, in sum, of the epochs that ended before their end
        self._epoch_ended = False
        self._reported = 0  # documents that were left out when the log last said so
        self._history: list[list[Any]] = []
        self._history_hash = ""
        self._gathered: NDArray[np.float64] | None = None
        self._change: DataError | None = None  # all workers know that a file of the epoch is gone or changed
        files = list_text_files(choice, worker, is_resumed=saved is not None)
        if saved is None:
            self._begin_epoch(files)
        else:
            self._go_on(saved, files, source, new_length, worker)

    # Epochs.

    def _begin_epoch(self, files: TextFiles) -> None:
        """Starts to read the files of a new epoch, and records their fingerprint."""
        record = [self._epoch, files.fingerprint, len(files.sources), files.num_bytes]
        self._history = [*self._history, record][-HISTORY:]
        self._history_hash = xxhash.xxh3_128_hexdigest(f"{self._history_hash}/{files.fingerprint}".encode())
        self._start(files, Cursor(), 0)

    def _start(self, files: TextFiles, cursor: Cursor, used: int) -> None:
        """Starts the background thread at a block of sequences, the first `used` of which have been used."""
        self.files = files
        self._mine = [files.sources[index] for index in files.deal(self._size)[self._rank]]
        settings = self.settings
        self._stream = TextStream(
            self._mine,
            settings.documents,
            self._encoder,
            settings.seq_length,
            (settings.seed, self._epoch, self._rank),
        )
        self._cursor, self._used = cursor, used
        self._counts = (cursor.documents, *cursor.rejected)
        self._block: SequenceBlock | None = None
        self._blocks = ReadAhead(self._stream.blocks(cursor), waiting=1, name="tokenize")

    def _go_on(
        self, saved: Mapping[str, Any], present: TextFiles, source: str, new_length: bool, worker: Worker
    ) -> None:
        """Resumes from a saved state, if its files are as they were."""
        files = saved_files(saved, self.settings, self._size, present, source, new_length)
        self.consumed, self._epoch = saved["consumed"], saved["epoch"]
        self._share_read, self._epoch_ended = saved["share_read"], saved["epoch_ended"]
        self._reported, self._unread = saved["reported"], saved.get("unread", 0.0)
        self._history, self._history_hash = saved["history"], saved["history_hash"]
        note = note_on_length(saved, self.settings)
        if note:
            self.notes, self.files = [note], files
            self._unread += 1 - self._share_read
            self._next_epoch(worker, self.notes)
            return
        *row, used = saved["workers"][self._rank]
        self._start(files, Cursor.from_row(row), used)

    @property
    def epoch(self) -> float:
        """Epochs so far; the share of the current one is counted in bytes of the files that the workers have read."""
        return self._epoch + self._share_read - self._unread

    @property
    def epoch_ended(self) -> bool:
        return self._epoch_ended

    @property
    def fingerprint(self) -> str:
        """Identifies every list of files read so far."""
        return self._history_hash

    # In every step: a batch, and what the workers exchange.

    def blocks(self) -> Iterator[Int32Array]:
        """Yields one update at a time, (1, accumulate, batch_size, seq_length + 1)."""
        while True:
            yield self._next_update()[np.newaxis]

    def _next_update(self) -> Int32Array:
        update = np.empty(self._shape, dtype=np.int32)
        rows, done = update.reshape(-1, self._shape[-1]), 0
        while done < len(rows):
            if self._block is None:
                self._block = self._blocks.take()
                assert self._block.start == self._cursor, (self._block.start, self._cursor)
            part = self._block.rows[self._used : self._used + len(rows) - done]
            rows[done : done + len(part)] = part
            done, self._used = done + len(part), self._used + len(part)
            self._counts = (self._block.documents, *self._block.rejected)
            if self._used == len(self._block.rows):
                self._cursor, self._used, self._block = self._block.after, 0, None
        return update

    def notices(self) -> NDArray[np.float64]:
        """Returns [1 if this worker has finished its files, bytes read, documents, those left out by reason ...]."""
        return np.array([self._cursor.round > 0, self._bytes_read(), *self._counts], dtype=np.float64)

    def _bytes_read(self) -> int:
        """Returns the bytes of this worker's files that it has read; never more than there are."""
        read = self._bytes_before(self._cursor)
        if self._block is None:
            return read
        return read + (self._bytes_before(self._block.after) - read) * self._used // len(self._block.rows)

    def _bytes_before(self, cursor: Cursor) -> int:
        if cursor.round:
            return sum(source.size for source in self._mine)
        order = self._stream.file_order(0)
        # An offset in a compressed file counts its text, so it can be larger than the file.
        return sum(source.size for source in order[: cursor.file]) + min(cursor.offset, order[cursor.file].size)

    def agree(self, totals: NDArray[np.float64], worker: Worker) -> list[str]:
        """Ends the epoch when all workers have finished; returns log lines. `totals` are the sums of all `notices`.

        The log says what was left out when its number has doubled, and at the end of the epoch. DataError if `gather`
        found that a file is gone or has changed.
        """
        if self._change is not None:
            raise self._change
        finished, bytes_read, documents, *rejected = (int(total) for total in totals)
        lines: list[str] = []
        self._epoch_ended = finished == self._size
        if self._epoch_ended:
            lines.append(
                f"epoch {self._epoch + 1}: {documents:,} documents of {self.files.count}; "
                + describe_rejected(rejected)
            )
            self._end_epoch(worker, lines)
            return lines
        self._share_read = bytes_read / self.files.num_bytes
        faults = sum(rejected) - rejected[_QUIET]
        if faults >= max(1, 2 * self._reported):
            self._reported = faults
            lines.append(f"epoch {self._epoch + 1}: {describe_rejected(rejected)} so far, of {documents:,} documents")
        return lines

    def _end_epoch(self, worker: Worker, lines: list[str]) -> None:
        self._blocks.close()
        self._next_epoch(worker, lines)

    def _next_epoch(self, worker: Worker, lines: list[str]) -> None:
        self._epoch, self._share_read, self._reported = self._epoch + 1, 0.0, 0
        files = self.files
        if self._refresh:
            files = list_text_files(self._choice, worker, self.files)
            if change := files.compare(self.files):
                lines.append(f"epoch {self._epoch + 1}: {change}; now {files.count}")
            lines += [f"epoch {self._epoch + 1}: {remark}" for remark in files.remarks]
        self._begin_epoch(files)

    # Checkpoints.

    def gather(self, worker: Worker) -> None:
        """Exchanges the workers' places in their files. All workers call it right before rank 0 asks for `state`.

        A file of the epoch that is gone or changed ends the run at the next step, so that what was learnt is saved
        first.
        """
        changed, fault = find_change(self._mine, self._choice.folders)
        rows = worker.gather([*self._cursor.to_row(), self._used, changed, fault])  # (size, NUM_FIELDS + 3)
        self._gathered, faults = rows[:, :-2], rows[:, -2:].astype(int)
        for share, (changed, fault) in zip(self.files.deal(self._size), faults.tolist()):
            if fault and self._change is None:
                self._change = change_error(self.files.sources[share[changed]], fault)
        self._gathered_at = self.consumed

    def state(self) -> dict[str, Any]:
        """Returns the list of files (name, size and mark of each), and about 20 numbers for each worker.

        With several workers, `gather` must have been called before, at this step.
        """
        if self._size == 1:
            self._gathered, self._gathered_at = np.array([[*self._cursor.to_row(), self._used]], np.float64), -1
        assert self._gathered is not None and (self._size == 1 or self._gathered_at == self.consumed), "gather first"
        return {
            "version": STATE_VERSION,
            "source": "text",
            "settings": asdict(self.settings),
            "consumed": self.consumed,
            "epoch": self._epoch,
            "share_read": self._share_read,
            "unread": self._unread,
            "epoch_ended": self._epoch_ended,
            "reported": self._reported,
            "history": self._history,
            "history_hash": self._history_hash,
            "files": self.files.to_state(),
            "workers": [[int(value) for value in row] for row in self._gathered],
        }

    def describe(self, num_sequences: int) -> str:
        """Says in one line what text is read and how the workers share it. The number of epochs is not known before."""
        loads = [sum(self.files.sources[index].size for index in share) for share in self.files.deal(self._size)]
        shares = f", {gigabytes(min(loads))} to {gigabytes(max(loads))} a worker" if self._size > 1 else ""
        dropout = f", BPE-dropout {self.settings.bpe_dropout:g}" if self.settings.bpe_dropout else ""
        return (
            f"{', '.join(self._choice.folders)}: {self.files.count}, {gigabytes(self.files.num_bytes)}"
            f"{shares}, tokenized on the fly by {self.tokenizer.path}{dropout}"
            + "".join(f"; {remark}" for remark in self.files.remarks)
        )

    def close(self) -> None:
        self._blocks.close()


def check_text_reader(
    recipe: Recipe,
    worker: Worker,
    saved: Mapping[str, Any] | None = None,
    source: str = "the checkpoint",
    changed: Mapping[str, Any] | None = None,
) -> list[str]:
    """Raises what :func:`open_text_reader` would raise about files and saved state; tokenizes nothing.

    Returns what a look at the files found, a line each.
    """
    settings, choice = _settings(recipe, load_text_tokenizer(recipe)), TextChoice.of_recipe(recipe.data)
    present = list_text_files(choice, worker, is_resumed=saved is not None)
    files, notes = present, []
    if saved is not None:
        files = saved_files(saved, settings, worker.size, present, source, LENGTH in (changed or {}))
        notes = [note for note in [note_on_length(saved, settings)] if note]
    files.deal(worker.size)
    return [f"text               {files.count}", *present.remarks, *notes]


def _settings(recipe: Recipe, tokenizer: Tokenizer) -> TextSettings:
    data = recipe.data
    return TextSettings(tokenizer.sha256, data.documents, data.bpe_dropout, data.seq_length, recipe.training.seed)


def open_text_reader(
    recipe: Recipe,
    worker: Worker,
    saved: Mapping[str, Any] | None = None,
    source: str = "the checkpoint",
    changed: Mapping[str, Any] | None = None,
) -> TextReader:
    """Opens the reader of a recipe with ``data.source: text``; `saved` is the reader's state in checkpoint `source`.

    `changed` has the settings that this resume changes on purpose, with their values in that state.
    RecipeError or DataError, the same on every worker, if text, tokenizer or checkpoint do not fit.
    """
    data, training = recipe.data, recipe.training
    tokenizer = load_text_tokenizer(recipe)
    settings = _settings(recipe, tokenizer)
    if not data.train_sets:
        raise DataError("data.train is empty; name a folder of text files: data.train=DIR")
    return TextReader(
        settings,
        TextChoice.of_recipe(data),
        data.refresh == "epoch",
        tokenizer,
        worker,
        training.batch_size,
        recipe.accumulate(worker.size),
        saved,
        source,
        LENGTH in (changed or {}),
    )


def load_text_tokenizer(recipe: Recipe) -> Tokenizer:
    """Loads the tokenizer of `data.tokenizer`; DataError or RecipeError if it is missing or does not fit the model."""
    data, vocab_size = recipe.data, recipe.model.vocab_size
    if not data.tokenizer:
        raise RecipeError("data.tokenizer is empty; name the tokenizer for the text: data.tokenizer=FILE")
    tokenizer = Tokenizer.load(Path(data.tokenizer))
    if data.bpe_dropout:
        refuse_json(tokenizer.stored.content, tokenizer.path)
    if tokenizer.vocab_size > vocab_size:
        raise DataError(
            f"{data.tokenizer}: it has {tokenizer.vocab_size} tokens, more than model.vocab_size={vocab_size}; "
            f"set model.vocab_size={tokenizer.vocab_size} or more"
        )
    return tokenizer
