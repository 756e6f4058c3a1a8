"""From a worker's text files to blocks of shuffled sequences, able to begin again at the start of any block.

A *round* is one pass of a worker over its own files, in a keyed order. Its documents become one row of tokens,
``<s> text </s>`` after one another, which sequences of ``seq_length + 1`` tokens cut without regard to documents and
files, each sharing its end token with the next. A round's last sequence is filled up from the round's beginning, so
that every document is read to its end. `SHUFFLE_TOKENS` of the row at a time are shuffled by a keyed permutation.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass, replace

import numpy as np
import xxhash
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from kogpt2_gluon.corpus.documents import read_blocks
from kogpt2_gluon.corpus.formats import kind_of
from kogpt2_gluon.corpus.records import Block
from kogpt2_gluon.corpus.sources import Source
from kogpt2_gluon.errors import DataError
from kogpt2_gluon.reading.text.documents import read_texts
from kogpt2_gluon.reading.text.files import check_unchanged
from kogpt2_gluon.tokens.bpe_dropout import BPEDropout
from kogpt2_gluon.tokens.tokenizer import Tokenizer

SHUFFLE_TOKENS = 1 << 20  # of one shuffled block; also what a resume tokenizes again, and three of them are in memory
# Why a document, or a piece of one, was left out, as counted; all that `read_texts` names besides is "other". A
# checkpoint holds the counts in this order, so a new reason goes to the end.
REASONS = (
    "bad_utf8",
    "bad_json",
    "missing_field",
    "field_not_text",
    "bad_unicode",
    "empty",
    "other",
    "null_field",
    "bad_row",
)

Int32Array = NDArray[np.int32]


def derive_key(*parts: str | int) -> int:
    """A 64-bit key from texts and numbers, the same on every machine."""
    return xxhash.xxh3_64_intdigest("/".join(map(str, parts)).encode())


def keyed_permutation(size: int, key: int) -> NDArray[np.int64]:
    """A permutation of ``range(size)`` that depends on the key alone (RandomState's streams are frozen for good)."""
    generator = np.random.RandomState([key & 0xFFFFFFFF, key >> 32])
    return generator.permutation(size).astype(np.int64)


class DocumentEncoder:
    """Makes tokens of documents: ``<s> text </s>`` after one another, with BPE-dropout if `dropout` is not 0."""

    def __init__(self, tokenizer: Tokenizer, dropout: float = 0.0) -> None:
        self._tokenizer, self._dropout = tokenizer, dropout
        self._sampler = BPEDropout(tokenizer.stored.content, tokenizer.path) if dropout else None

    def encode(self, texts: Sequence[bytes], seed: int = 0) -> Int32Array:
        """The tokens of some texts (UTF-8), int32.

        The same texts and seed give the same tokens; without dropout the seed is of no account.
        """
        if not texts:
            return np.empty(0, np.int32)
        if self._sampler:
            ids, lengths = self._sampler.encode(texts, self._dropout, seed)
        else:
            ids, lengths = self._tokenizer.encode_flat(texts)
        return self._tokenizer.frame(ids, lengths)


@dataclass(frozen=True)
class Cursor:
    """Where a block of sequences begins in a worker's stream, in whole numbers: enough to go on from there.

    round : passes over the worker's files before this one, in this epoch.
    file : place in the round's order of files. line, offset : where the text block begins that holds the first token.
    skip : that block's tokens before it. block : blocks of sequences before it in the round.
    documents, rejected : documents of round 0 read before the text block, and those left out, as in `REASONS`.
    """

    round: int = 0
    file: int = 0
    line: int = 1
    offset: int = 0
    skip: int = 0
    block: int = 0
    documents: int = 0
    rejected: tuple[int, ...] = (0,) * len(REASONS)

    def to_row(self) -> list[int]:
        """The cursor as `NUM_FIELDS` numbers."""
        return [*astuple(self)[:-1], *self.rejected]

    @classmethod
    def from_row(cls, row: Sequence[int]) -> Cursor:
        """The cursor that `to_row` made, here or in an earlier version that had fewer reasons."""
        round_, file, line, offset, skip, block, documents, *rejected = row
        rejected += [0] * (len(REASONS) - len(rejected))
        return cls(round_, file, line, offset, skip, block, documents, tuple(rejected))


NUM_FIELDS = len(Cursor().to_row())


@dataclass(frozen=True)
class SequenceBlock:
    """Shuffled sequences: `rows` (count, seq_length + 1) of int32; `after` is where the next block begins.

    `documents` and `rejected` count what was read of round 0 to make this block and those before it.
    """

    start: Cursor
    rows: Int32Array
    after: Cursor
    documents: int
    rejected: tuple[int, ...]


class TextStream:
    """The endless stream of one worker in one epoch.

    Parameters
    ----------
    sources : sequence of Source
        The worker's files, in the order of the list.
    documents, seq_length
        As in the recipe's `data`.
    encoder : DocumentEncoder
    key : tuple
        What file order, shuffling and dropout depend on besides the place: (seed, epoch, rank).
    """

    def __init__(
        self,
        sources: Sequence[Source],
        documents: str,
        encoder: DocumentEncoder,
        seq_length: int,
        key: tuple[int, int, int],
    ) -> None:
        self._sources, self._kind, self._encoder = sources, kind_of(documents), encoder
        self._seq_length, self._key = seq_length, key
        self._rows = max(1, SHUFFLE_TOKENS // seq_length)

    def file_order(self, round_: int) -> list[Source]:
        """The worker's files in the order of a round."""
        order = keyed_permutation(len(self._sources), derive_key("files", *self._key, round_))
        return [self._sources[index] for index in order]

    def blocks(self, start: Cursor) -> Iterator[SequenceBlock]:
        """Blocks from `start` on, endlessly. DataError for a file that is gone or changed, or files without text."""
        while True:
            for block in self._round(start):
                yield block
                start = block.after

    def _round(self, start: Cursor) -> Iterator[SequenceBlock]:
        """The blocks of the round that `start` is in."""
        held: deque[tuple[Cursor, Int32Array]] = deque()  # text blocks of which tokens are left; `skip` of the first
        skip, number, available = start.skip, start.block, -start.skip
        full = self._rows * self._seq_length
        counts = start
        for place, tokens, counts in self._read(start):
            if len(tokens):
                held.append((place, tokens))
            available += len(tokens)
            while available > full + 1:  # more must follow, so that the round's last block can end the round
                row = _take(held, skip, full + 1)
                # The first block begins where it was asked for: text blocks without a document may lie before `held`.
                begin = start if number == start.block else replace(held[0][0], skip=skip, block=number)
                skip, available, number = skip + full, available - full, number + 1
                while skip >= len(held[0][1]):
                    skip -= len(held.popleft()[1])
                yield self._shuffled(begin, row, replace(held[0][0], skip=skip, block=number), counts)
        if not held:
            names = ", ".join(source.name for source in self._sources[:3])
            more = f" and {len(self._sources) - 3} more files" if len(self._sources) > 3 else ""
            raise DataError(
                f"{names}{more}: no document there ({describe_rejected(counts.rejected)}); "
                "leave these files out (data.exclude), or add text to them"
            )
        sequences = -(-(available - 1) // self._seq_length)
        missing = sequences * self._seq_length + 1 - available
        row = np.concatenate([_take(held, skip, available), self._beginning(start.round, missing)])
        begin = start if number == start.block else replace(held[0][0], skip=skip, block=number)
        after = Cursor(start.round + 1, documents=counts.documents, rejected=counts.rejected)
        yield self._shuffled(begin, row, after, counts)

    def _shuffled(self, start: Cursor, row: Int32Array, after: Cursor, counts: Cursor) -> SequenceBlock:
        sequences = sliding_window_view(row, self._seq_length + 1)[:: self._seq_length]
        key = derive_key("sequences", *self._key, start.round, start.block)
        rows = sequences[keyed_permutation(len(sequences), key)]
        return SequenceBlock(start, rows, after, counts.documents, counts.rejected)

    def _beginning(self, round_: int, count: int) -> Int32Array:
        """The first `count` tokens of a round, again and again if it has fewer."""
        parts: list[Int32Array] = []
        for _, tokens, _ in self._read(Cursor(round_)) if count else ():
            parts.append(tokens)
            if sum(map(len, parts)) >= count:
                break
        return np.resize(np.concatenate(parts), count) if parts else np.empty(0, np.int32)

    def _read(self, start: Cursor) -> Iterator[tuple[Cursor, Int32Array, Cursor]]:
        """Every text block from `start` on: where it begins, its tokens (perhaps none), and the counts after it."""
        counts = start
        for number, source in enumerate(self.file_order(start.round)[start.file :], start.file):
            check_unchanged(source)
            begin = (start.line, start.offset) if number == start.file else (1, 0)
            for block in read_blocks(source, self._kind, start=begin):
                check_unchanged(source)  # once a block: a look at the file costs nothing compared with its tokens
                place = replace(counts, file=number, line=block.line, offset=block.offset)
                tokens, documents, rejected = self._tokenize(block, place)
                if start.round == 0:  # later rounds read the same again
                    counts = replace(
                        counts,
                        documents=counts.documents + documents,
                        rejected=tuple(map(sum, zip(counts.rejected, rejected))),
                    )
                yield place, tokens, counts
            check_unchanged(source)  # cut off, it would just have ended

    def _tokenize(self, block: Block, place: Cursor) -> tuple[Int32Array, int, list[int]]:
        """The tokens of a text block, its documents, and those left out by reason."""
        texts, left_out = read_texts(self._kind, block)
        seed = derive_key("dropout", *self._key, place.round, place.file, place.offset)
        left_out["other"] = sum(count for reason, count in left_out.items() if reason not in REASONS)
        return self._encoder.encode(texts, seed), len(texts), [left_out[reason] for reason in REASONS]


def _take(held: Iterable[tuple[Cursor, Int32Array]], skip: int, count: int) -> Int32Array:
    """A copy of `count` tokens of text blocks, after the first `skip`."""
    parts: list[Int32Array] = []
    for _, tokens in held:
        part = tokens[skip : skip + count]
        parts.append(part)
        skip, count = 0, count - len(part)
        if not count:
            break
    return np.concatenate(parts)


def describe_rejected(rejected: Sequence[int]) -> str:
    """Returns the number of documents left out, by reason, in words."""
    counts = [f"{count:,} {reason}" for reason, count in zip(REASONS, rejected) if count]
    return "left out: " + ", ".join(counts) if counts else "nothing left out"
