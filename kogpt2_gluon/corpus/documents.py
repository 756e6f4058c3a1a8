"""Documents: what one is in a source, and how a source is cut into blocks that worker processes parse.

A document is what the user says it is, never a guess:

- ``line``: every line of a text file;
- ``blank-line``: lines up to the next blank one (empty, or ASCII white space alone);
- ``wikipedia``, ``namuwiki``, ``modu``: an article or a text of these dumps, see `kogpt2_gluon.corpus.formats`;
- any other word is a FIELD: the text under that key in every record of a JSON lines file; ``field:NAME`` means the
  same where NAME is one of the words above.

Reading goes in two steps. `read_blocks` cuts a source into blocks of whole records, about 1 MiB each: cheap, in one
process, and able to begin again at the end of any block. `parse_block` makes documents of one: in any process, knowing
nothing but the block.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Callable, NamedTuple, Union

from kogpt2_gluon.corpus.sources import READ_SIZE, Source, local_source
from kogpt2_gluon.errors import DataError, RecipeError

JSON_SUFFIXES = (".jsonl", ".json", ".ndjson")
FORMAT_SUFFIXES = {"wikipedia": ".xml", "namuwiki": ".json", "modu": ".json"}
_PAGES_OF_DUMP = re.compile(r"\.xml-p\d+p\d+")  # pages-articles1.xml-p1p76864.bz2: of a dump in several files
_ARCHIVES = (".tar", ".tgz", ".tbz2", ".txz", ".zip", ".7z", ".rar")
BLOCK_BYTES = 1 << 20  # of a block; one record may make it larger
LARGEST_DOCUMENT = 1 << 30  # bytes; a longer one means that its end was promised and is not there
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Document(NamedTuple):
    """The text of one document and its place.

    Lines of `text` are parted by ``\\n``. `source` is the source's name; `line` counts from 1, `offset` is the byte
    where the document (or the record that holds it) begins, after decompression. `bad_utf8` has the byte offsets of
    lines left out as not UTF-8.
    """

    text: str
    source: str
    line: int
    offset: int
    bad_utf8: tuple[int, ...] = ()


class Rejection(NamedTuple):
    """A document that could not be read, why, and where.

    `reason` is ``bad_utf8`` (then `bad_utf8` has the byte offset of each bad line's first bad byte), ``bad_json``,
    ``empty`` (a blank line between records, a record without text), ``missing_field``, ``field_not_text``, or what
    the modules of `kogpt2_gluon.corpus.formats` add: ``bad_xml``, ``bad_markup``, ``namespace``, ``redirect``,
    ``not_wikitext``.
    """

    reason: str
    source: str
    line: int
    offset: int
    bad_utf8: tuple[int, ...] = ()


Item = Union[Document, Rejection]


class Block(NamedTuple):
    """Whole records of one source, in the source's own bytes.

    `line` and `offset` say where `data` begins, `end_line` and `end` where it ends: lines count from 1, offsets in
    bytes after decompression. ``(end_line, end)`` is a `start` for `read_blocks`.
    """

    source: str
    line: int
    offset: int
    end: int
    data: bytes
    end_line: int

    @property
    def next_start(self) -> tuple[int, int]:
        """The `start` with which `read_blocks` goes on behind this block."""
        return self.end_line, self.end


def make_block(source: str, line: int, offset: int, data: bytes) -> Block:
    """The block of `data`, whose end follows from where it begins."""
    return Block(source, line, offset, offset + len(data), data, line + data.count(b"\n"))


def stored_mode(documents: str) -> str:
    """How documents of this kind are stored once clean: one a line only if they are lines."""
    return "line" if documents == "line" else "blank-line"


def check_documents(sources: Iterable[Source], documents: str) -> None:
    """Raises before anything is read if a source cannot hold such documents, going by its name."""
    if not documents.removeprefix("field:").strip():
        raise RecipeError("--documents is empty; say line, blank-line or the name of a JSON field")
    for source in sources:
        is_json = source.suffix in JSON_SUFFIXES
        if source.suffix in _ARCHIVES:
            raise DataError(f"{source.name}: an archive of files; unpack it first, and name what it held")
        if documents in ("line", "blank-line"):
            if is_json:
                raise DataError(f"{source.name}: JSON lines; name the field that holds the text: --documents FIELD")
        elif documents in FORMAT_SUFFIXES:
            suffix = FORMAT_SUFFIXES[documents]
            in_pieces = documents == "wikipedia" and _PAGES_OF_DUMP.fullmatch(source.suffix)
            if source.suffix != suffix and not in_pieces:
                raise DataError(
                    f"{source.name}: --documents {documents} reads {suffix} files (also compressed); name the dump's "
                    f"files alone, or say field:{documents} for a JSON field of that name"
                )
        elif not is_json:
            raise DataError(
                f"{source.name}: --documents {documents} reads that field of JSON lines ({', '.join(JSON_SUFFIXES)}); "
                "for plain text say line or blank-line"
            )


def read_documents(
    source: Source | str | Path, documents: str, on_read: Callable[[int], None] | None = None
) -> Iterator[Item]:
    """Every document of a source, in order, or why it could not be read: `read_blocks`, then `parse_block`.

    `source` is a Source or the path of a file. Raises DataError if the file is missing or damaged.
    """
    if not isinstance(source, Source):
        source = local_source(source)
    for block in read_blocks(source, documents, on_read):
        yield from parse_block(block, documents)


def read_blocks(
    source: Source,
    documents: str,
    on_read: Callable[[int], None] | None = None,
    start: tuple[int, int] = (1, 0),
) -> Iterator[Block]:
    """The blocks of a source from `start` on, in order: every byte that holds a record is in one of them.

    `start` is (1, 0) or the `next_start` of a block: reading from there gives the very blocks that followed it.
    `documents` says what a record is (see the module); `on_read` gets the size of each block read from disk, and what
    was passed over to reach `start`. Memory is one block and one record. Raises DataError if the source is missing,
    its compressed data is damaged, or a record is longer than LARGEST_DOCUMENT.
    """
    check_documents([source], documents)
    line, offset = start
    with source.open(on_read) as stream:
        _pass_over(stream, source, offset, on_read)
        if documents in FORMAT_SUFFIXES:
            from kogpt2_gluon.corpus.formats import read_blocks_of

            yield from read_blocks_of(documents, source.name, stream, line, offset)
        else:
            yield from _read_text_blocks(source.name, stream, documents == "blank-line", line, offset)


def _pass_over(stream: BinaryIO, source: Source, offset: int, on_read: Callable[[int], None] | None) -> None:
    """Moves a stream just opened to `offset`, without reading what lies before it where that is possible."""
    if offset and stream.seekable():
        stream.seek(offset)
        if on_read is not None:
            on_read(offset)
        return
    left = offset
    while left:
        passed = len(stream.read(min(left, READ_SIZE)))
        if not passed:
            raise DataError(f"{source.name}: ends before byte {offset:,}, where reading was to go on; has it changed?")
        left -= passed


def _read_text_blocks(name: str, stream: BinaryIO, paragraphs: bool, line: int, offset: int) -> Iterator[Block]:
    """Blocks that end with a line, or with `paragraphs` with a blank line; a block depends on its start alone."""
    while True:
        data = stream.read(BLOCK_BYTES)
        if len(data) == BLOCK_BYTES:
            data += _rest_of_paragraph(name, stream, data, line) if paragraphs else _rest_of_line(name, stream, line)
        if not data:
            return
        block = make_block(name, line, offset, data)
        yield block
        line, offset = block.next_start


def _rest_of_line(name: str, stream: BinaryIO, line: int) -> bytes:
    rest = stream.readline(LARGEST_DOCUMENT)
    if len(rest) == LARGEST_DOCUMENT:
        raise DataError(f"{name}: no line end in {len(rest):,} bytes somewhere behind line {line}; not a text of lines")
    return rest


def _rest_of_paragraph(name: str, stream: BinaryIO, data: bytes, line: int) -> bytes:
    """What follows `data` up to the next blank line, and that line."""
    rest: list[bytes] = []
    size = 0
    whole = data.endswith(b"\n")  # otherwise the first line read is the tail of one
    while True:
        rest.append(stream.readline(LARGEST_DOCUMENT))
        size += len(rest[-1])
        if size >= LARGEST_DOCUMENT:
            raise DataError(
                f"{name}: no blank line in {size:,} bytes somewhere behind line {line}; if its documents are lines, "
                "say --documents line"
            )
        if whole and not rest[-1].strip():  # blank, or the end of the file
            return b"".join(rest)
        whole = True


def parse_block(block: Block, documents: str) -> Iterator[Item]:
    """The documents of a block in order, or why one could not be read.

    Lines end at ``\\n`` alone (``\\r\\n`` is tolerated), and a byte order mark at the start of a source is no text.
    `documents` is what it was for `read_blocks`.
    """
    if documents in FORMAT_SUFFIXES:
        from kogpt2_gluon.corpus.formats import parse_block_of

        return parse_block_of(documents, block)
    if documents == "line":
        return _parse_lines(block)
    if documents == "blank-line":
        return _parse_paragraphs(block)
    return _parse_field(block, documents.removeprefix("field:"))


def _numbered_lines(block: Block) -> Iterator[tuple[int, int, bytes]]:
    """(line number, byte offset, bytes without the line end) of every line."""
    offset, data = block.offset, block.data
    if offset == 0 and data.startswith(BYTE_ORDER_MARK):
        offset, data = len(BYTE_ORDER_MARK), data[len(BYTE_ORDER_MARK) :]
    lines = data.split(b"\n")
    if not lines[-1]:  # a last line without its end is a line, nothing is none
        lines.pop()
        if offset and not data and block.data:
            lines.append(b"")  # a byte order mark alone is an empty line
    for number, line in enumerate(lines, block.line):
        yield number, offset, line.rstrip(b"\r")
        offset += len(line) + 1


def _parse_lines(block: Block) -> Iterator[Item]:
    for number, offset, line in _numbered_lines(block):
        try:
            yield Document(line.decode(), block.source, number, offset)
        except UnicodeDecodeError as error:
            yield Rejection("bad_utf8", block.source, number, offset, (offset + error.start,))


def _parse_paragraphs(block: Block) -> Iterator[Item]:
    lines: list[str] = []
    bad: list[int] = []
    first, start = 0, 0

    def finish() -> Item:
        if lines:
            return Document("\n".join(lines), block.source, first, start, tuple(bad))
        return Rejection("bad_utf8", block.source, first, start, tuple(bad))

    for number, offset, line in _numbered_lines(block):
        if not line.strip():
            if lines or bad:
                yield finish()
                lines, bad = [], []
            continue
        if not (lines or bad):
            first, start = number, offset
        try:
            lines.append(line.decode())
        except UnicodeDecodeError as error:
            bad.append(offset + error.start)
    if lines or bad:
        yield finish()


def _parse_field(block: Block, field: str) -> Iterator[Item]:
    source = block.source
    for number, offset, line in _numbered_lines(block):
        if not line.strip():
            yield Rejection("empty", source, number, offset)
            continue
        try:
            record = json.loads(line.decode())
        except UnicodeDecodeError as error:
            yield Rejection("bad_utf8", source, number, offset, (offset + error.start,))
        except (ValueError, RecursionError):
            yield Rejection("bad_json", source, number, offset)
        else:
            if not isinstance(record, dict) or field not in record:
                yield Rejection("missing_field", source, number, offset)
            elif not isinstance(record[field], str):
                yield Rejection("field_not_text", source, number, offset)
            else:
                yield Document(record[field], source, number, offset)
