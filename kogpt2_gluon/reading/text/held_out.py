"""Held-out text for evaluation: files of text, tokenized while they are scored, each document once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from kogpt2_gluon.corpus.admission import admit
from kogpt2_gluon.corpus.documents import read_blocks
from kogpt2_gluon.corpus.encodings import AUTO
from kogpt2_gluon.corpus.formats import kind_of
from kogpt2_gluon.corpus.formats.kind import Kind
from kogpt2_gluon.corpus.records import Block
from kogpt2_gluon.corpus.sources import Source, choose_sources
from kogpt2_gluon.corpus.store import CORPUS_FILE, split_layout
from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.reading.held_out import Batch
from kogpt2_gluon.reading.text.documents import read_texts
from kogpt2_gluon.storage.s3_url import is_s3_url
from kogpt2_gluon.tokens.counts import counter_for
from kogpt2_gluon.tokens.tokenizer import NO_TOKEN, Tokenizer


class HeldOutText:
    """The sequences of text files, as `HeldOutReader` gives those of shards made of the same documents.

    `tokens`, `documents`, `words` and `text_bytes` count what has been read, as a set's manifest does; `left_out`
    counts documents that were not, by reason. Memory is one block of text and one batch.
    """

    def __init__(self, name: str, sources: Sequence[Source], kind: Kind, tokenizer: Tokenizer, seq_length: int) -> None:
        self.name, self.unscored_id = name, tokenizer.unscored_id
        self._sources, self._kind, self._tokenizer, self._seq_length = sources, kind, tokenizer, seq_length
        self._counter = counter_for(tokenizer)
        self.tokens = self.documents = self.words = self.text_bytes = 0
        self.left_out: Counter[str] = Counter()

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """Yields sequences, int32 (batch_size or fewer, seq_length + 1); the last one is filled up."""
        length, held = self._seq_length, np.empty(0, np.int32)
        for source in self._sources:
            for block in read_blocks(source, self._kind):
                held = np.concatenate([held, self._tokenized(block)])
                while len(held) > batch_size * length:
                    yield _rows(held[: batch_size * length + 1], length)
                    held = held[batch_size * length :]
        if len(held) > 1:
            missing = -(len(held) - 1) % length
            yield _rows(np.append(held, np.full(missing, self.unscored_id, np.int32)), length)

    def _tokenized(self, block: Block) -> NDArray[np.int32]:
        """Returns ``<s> text </s>`` of every document of a block."""
        texts, left_out = read_texts(self._kind, block)
        self.left_out.update(left_out)
        if not texts:
            return np.empty(0, np.int32)
        ids, lengths = self._tokenizer.encode_flat(texts)
        text_bytes, words = self._counter.count(ids, lengths, texts)
        tokens = self._tokenizer.frame(ids, lengths)
        self.tokens += len(tokens)
        self.documents += len(texts)
        self.words += int(words.sum())
        self.text_bytes += int(text_bytes.sum())
        return tokens

    @property
    def scored_tokens(self) -> int:
        """The tokens of the text and those that end documents, of what has been read."""
        return self.tokens - self.documents * (self.unscored_id != NO_TOKEN)

    def describe_left_out(self) -> str:
        """Returns the number of documents left out, by reason, in words; "" if there is none."""
        counts = ", ".join(f"{count:,} {reason}" for reason, count in sorted(self.left_out.items()) if count)
        return f"left out: {counts}, of {self.documents:,} documents" if counts else ""


def _rows(tokens: NDArray[np.int32], length: int) -> Batch:
    """Cuts a row of n * length + 1 tokens into n sequences, each sharing a token with the next."""
    return sliding_window_view(tokens, length + 1)[::length]


class TextOptions(NamedTuple):
    """How text is read for evaluation; `documents` is None where a corpus says what its documents are."""

    documents: str | None = None
    encoding: str = AUTO
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()


def open_held_out_text(
    data: Path, options: TextOptions, tokenizer: Tokenizer, seq_length: int
) -> tuple[HeldOutText, list[str]]:
    """Opens a file, folder or S3 prefix of text, and says what was decided about it.

    RecipeError if the kind of documents is not named, or is not that of a corpus; DataError if a file cannot be read.
    """
    if (data / CORPUS_FILE).is_file():
        raise RecipeError(f"{data}: a cleaned corpus; name its held-out part: {data}/test")
    documents = options.documents
    layout = None if is_s3_url(data) else split_layout(data if data.is_dir() else data.parent)
    if documents is None and layout is None:
        raise RecipeError(f"{data}: text; say what a document of it is: --documents KIND (`kogpt2 clean --help`)")
    if layout is not None and documents not in (None, layout.name):
        raise RecipeError(f"{data}: part of a cleaned corpus, whose documents are {layout.name}, not {documents}")
    kind = kind_of(documents or (layout.name if layout else ""))
    choice = choose_sources([data], options.include, options.exclude)
    if choice.faults:
        raise choice.faults[0][1]
    admission = admit(choice.sources, kind, options.encoding)
    admission.check("--exclude 'PATTERN'")
    return HeldOutText(str(data), admission.sources, kind, tokenizer, seq_length), admission.notes
