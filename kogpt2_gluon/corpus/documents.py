"""Documents of a source, whatever their kind: sources are checked, cut into blocks, and parsed.

The kinds of `kogpt2_gluon.corpus.formats` say what a document is. Worker processes parse the blocks that `read_blocks`
gives, each block by itself: ``kind.parse_block(block)``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import BinaryIO, Callable

from kogpt2_gluon.corpus.formats import kind_of
from kogpt2_gluon.corpus.formats.kind import Kind
from kogpt2_gluon.corpus.records import Block, Item
from kogpt2_gluon.corpus.sources import READ_SIZE, Source, local_source
from kogpt2_gluon.errors import DataError

MAX_LOOKED_AT = 8  # files whose first block `check_openings` reads


def check_openings(sources: Collection[Source], kind: Kind) -> None:
    """Raises DataError if none of the first sources, in order of their names, begins with documents of that kind."""
    fault: DataError | None = None
    for source in sorted(sources, key=lambda source: source.name)[:MAX_LOOKED_AT]:
        block = next(read_blocks(source, kind), None)
        if block is None:
            continue
        try:
            kind.check_opening(block, fewest=1)
            return
        except DataError as error:
            fault = fault or error
    if fault is not None:
        raise fault


def read_documents(
    source: Source | str | Path, documents: str, on_read: Callable[[int], None] | None = None
) -> Iterator[Item]:
    """Yields every document of a source in order, or why it could not be read.

    `source` is a Source that was looked at, or the path of a file in UTF-8; `documents` is the user's word for the
    kind. Raises DataError if the file is missing, is damaged, or turns out not to hold such documents.
    """
    if not isinstance(source, Source):
        source = local_source(source)
    kind = kind_of(documents)
    for block in read_blocks(source, kind, on_read):
        yield from kind.parse_block(block)


def read_blocks(
    source: Source,
    kind: Kind,
    on_read: Callable[[int], None] | None = None,
    start: tuple[int, int] = (1, 0),
) -> Iterator[Block]:
    """Yields the blocks of a source from `start` on, in order: every byte that holds a record is in one of them.

    `start` is (1, 0) or the `next_start` of a block: reading from there gives the same blocks that followed it.
    `on_read` gets the size of each piece read from disk, and the bytes skipped to reach `start`. Memory is one
    block and one record. Raises DataError if the source is missing, its compressed data is damaged, or a record is
    longer than LARGEST_DOCUMENT.
    """
    line, offset = start
    reader = kind.reader(source)
    with source.open(on_read) as stream:
        if not reader.seeks:
            _pass_over(stream, source, offset, on_read)
        yield from reader.read_blocks(source.name, stream, line, offset)


def _pass_over(stream: BinaryIO, source: Source, offset: int, on_read: Callable[[int], None] | None) -> None:
    """Moves a stream just opened to `offset`, without reading what comes before it where that is possible."""
    if offset and stream.seekable():
        peeked = stream.raw.tell()  # type: ignore[attr-defined]  # read already, and reported
        stream.seek(offset)
        if on_read is not None:
            on_read(max(0, offset - peeked))
        return
    left = offset
    while left:
        passed = len(stream.read(min(left, READ_SIZE)))
        if not passed:
            raise DataError(f"{source.name}: ends before byte {offset:,}, where reading should resume; has it changed?")
        left -= passed
