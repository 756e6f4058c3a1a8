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
from kogpt2_gluon.reading.held_out import Batch, sequences_of
from kogpt2_gluon.reading.text.coming_back import ComingBack
from kogpt2_gluon.reading.text.documents import read_texts
from kogpt2_gluon.storage.s3_url import is_s3_url
from kogpt2_gluon.tokens.counts import counter_for
from kogpt2_gluon.tokens.tokenizer import NO_TOKEN, Tokenizer


class HeldOutText:
    """The sequences of text files, as `HeldOutReader` gives those of shards made of the same documents.

    `tokens`, `documents`, `words` and `text_bytes` count what has been read, as a set's manifest does; `left_out`
    counts documents that were not, by reason. Memory is one block of text and one batch.

    Attributes
    ----------
    stride : int
        How many tokens after a sequence the next one begins.
    unknown_tokens : int
        How many of `tokens` are ``<unk>``.
    raw_bytes : int
        UTF-8 of the documents' own text, as they were read: line ends between documents, a byte-order mark and the
        markup of a format are not in it.
    coming_back : ComingBack
        What of it does not come back from the tokens.
    """

    def __init__(
        self,
        name: str,
        sources: Sequence[Source],
        kind: Kind,
        tokenizer: Tokenizer,
        seq_length: int,
        stride: int = 0,
    ) -> None:
        self.name, self.unscored_id = name, tokenizer.unscored_id
        self._sources, self._kind, self._tokenizer, self._seq_length = sources, kind, tokenizer, seq_length
        self.stride = stride or seq_length
        self._counter = counter_for(tokenizer)
        self.tokens = self.documents = self.words = self.text_bytes = self.raw_bytes = self.unknown_tokens = 0
        self.coming_back = ComingBack()
        self.left_out: Counter[str] = Counter()

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """Yields sequences, int32 (batch_size or fewer, seq_length + 1); the last one is filled up."""
        length, stride, held = self._seq_length, self.stride, np.empty(0, np.int32)
        step, seen = batch_size * stride, 1  # tokens that a batch goes on; those in `held` that need not be scored
        for source in self._sources:
            for block in read_blocks(source, self._kind):
                held = np.concatenate([held, self._tokenized(block)])
                while len(held) > step + length - stride:
                    yield _rows(held[: step + length - stride + 1], length, stride)
                    held, seen = held[step:], length - stride + 1
        if len(held) > seen:
            rows = sequences_of(len(held), length, stride)
            missing = (rows - 1) * stride + length + 1 - len(held)
            yield _rows(np.append(held, np.full(missing, self.unscored_id, np.int32)), length, stride)

    def _tokenized(self, block: Block) -> NDArray[np.int32]:
        """Returns ``<s> text </s>`` of every document of a block."""
        texts, left_out = read_texts(self._kind, block)
        self.left_out.update(left_out)
        if not texts:
            return np.empty(0, np.int32)
        ids, lengths = self._tokenizer.encode_flat(texts)
        text_bytes, words = self._counter.count(ids, lengths, texts)
        tokens = self._tokenizer.frame(ids, lengths)
        for text, end, length in zip(texts, np.cumsum(lengths).tolist(), lengths.tolist()):
            self.coming_back.add(text.decode(), self._tokenizer.decode(ids[end - length : end].tolist()))
        self.tokens += len(tokens)
        self.documents += len(texts)
        self.words += int(words.sum())
        self.text_bytes += int(text_bytes.sum())
        self.raw_bytes += sum(map(len, texts))
        self.unknown_tokens += int(np.count_nonzero(self._tokenizer.is_unknown(ids)))
        return tokens

    @property
    def scored_tokens(self) -> int:
        """The tokens of the text and those that end documents, of what has been read."""
        return self.tokens - self.documents * (self.unscored_id != NO_TOKEN)

    def describe_left_out(self) -> str:
        """Returns the number of documents left out, by reason, in words; "" if there is none."""
        counts = ", ".join(f"{count:,} {reason}" for reason, count in sorted(self.left_out.items()) if count)
        return f"left out: {counts}, of {self.documents:,} documents" if counts else ""


def _rows(tokens: NDArray[np.int32], length: int, stride: int) -> Batch:
    """Cuts a row of (n - 1) * stride + length + 1 tokens into n sequences, each `stride` after the one before."""
    return sliding_window_view(tokens, length + 1)[::stride]


class TextOptions(NamedTuple):
    """How text is read for evaluation; `documents` is None where a corpus says what its documents are."""

    documents: str | None = None
    encoding: str = AUTO
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()


def open_held_out_text(
    data: Path, options: TextOptions, tokenizer: Tokenizer, seq_length: int, stride: int = 0
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
    return HeldOutText(str(data), admission.sources, kind, tokenizer, seq_length, stride), admission.notes
