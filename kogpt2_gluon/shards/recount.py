"""Counts the text of a set of shards again, from its tokens: its bytes, its words and its unknown tokens.

Only a manifest holds these counts. A set that lost its manifest or some of its shards gets them from here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.shards.file_pool import FilePool
from kogpt2_gluon.shards.format import Manifest, Tokens
from kogpt2_gluon.storage.tokenizer_file import tokenizer_in
from kogpt2_gluon.tokens.counts import counter_for
from kogpt2_gluon.tokens.tokenizer import Tokenizer

PLACEHOLDER = "가".encode()  # counted for an unknown character: most of them are Hangul, three bytes each


def recount(folder: Path, manifest: Manifest) -> None:
    """Sets `text_bytes`, `words` and `unknown` of a manifest from the tokens of its shards and the set's tokenizer.

    The counts are exact, but an unknown token counts as one Hangul syllable.
    """
    tokenizer = Tokenizer.load(tokenizer_in(folder))
    counter = counter_for(tokenizer)
    manifest.text_bytes = manifest.words = manifest.unknown = 0
    for ids, lengths in _documents(folder, manifest, tokenizer):
        text_bytes, words = counter.count(ids, lengths, _Texts(tokenizer, ids, lengths))
        manifest.text_bytes += int(text_bytes.sum())
        manifest.words += int(words.sum())
        manifest.unknown += int(tokenizer.is_unknown(ids).sum())


def _documents(
    folder: Path, manifest: Manifest, tokenizer: Tokenizer
) -> Iterator[tuple[NDArray[np.int32], NDArray[np.int64]]]:
    """Yields the ids of whole documents, without <s> and </s>, and the length of each; about a chunk at a time.

    The chunks were checked a moment ago. A ShardSet cannot be used: the manifest that it needs is not written yet.
    """
    left: NDArray[np.int32] = np.empty(0, np.int32)
    for part in _chunks(folder, manifest):
        tokens = np.concatenate([left, part.astype(np.int32)])
        ends = np.flatnonzero(tokens == tokenizer.eos_id) + 1
        if len(ends):
            yield _without_borders(tokens[: ends[-1]], ends, tokenizer)
            left = tokens[ends[-1] :]
        else:
            left = tokens
    if len(left):  # a document that was cut at the set's end
        yield _without_borders(left, np.array([len(left)]), tokenizer)


def _chunks(folder: Path, manifest: Manifest) -> Iterator[Tokens]:
    pool, buffer = FilePool(), np.empty(manifest.chunk_bytes, np.uint8)
    itemsize = np.dtype(manifest.dtype).itemsize
    try:
        for info in manifest.shards:
            for offset in range(0, info.tokens * itemsize, manifest.chunk_bytes):
                part = buffer[: min(manifest.chunk_bytes, info.tokens * itemsize - offset)]
                if pool.read(folder / info.name, part.data, offset, drop=True) < len(part):
                    raise DataError(f"{folder / info.name}: ends before byte {offset + len(part):,}")
                yield part.view(manifest.dtype)
    finally:
        pool.close()


def _without_borders(
    tokens: NDArray[np.int32], ends: NDArray[np.int64], tokenizer: Tokenizer
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    text = (tokens != tokenizer.bos_id) & (tokens != tokenizer.eos_id)
    return tokens[text], np.diff(np.cumsum(text)[ends - 1], prepend=0)


class _Texts(Sequence[bytes]):
    """The texts of documents, each decoded only when it is asked for."""

    def __init__(self, tokenizer: Tokenizer, ids: NDArray[np.int32], lengths: NDArray[np.int64]) -> None:
        self._tokenizer, self._ids = tokenizer, ids
        self._ends = np.cumsum(lengths)

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> bytes: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes]: ...

    def __getitem__(self, index: int | slice) -> bytes | Sequence[bytes]:
        assert not isinstance(index, slice)
        ids = self._ids[self._ends[index - 1] if index else 0 : self._ends[index]]
        unknown, spellings = self._tokenizer.unk_id, self._tokenizer.spellings
        text = b"".join([PLACEHOLDER if token == unknown else spellings[token] for token in ids.tolist()])
        if self._tokenizer.adds_space:
            text = text.removeprefix(b" ")
        return text.decode("utf-8", "replace").encode()  # a character of byte pieces can be cut in two
