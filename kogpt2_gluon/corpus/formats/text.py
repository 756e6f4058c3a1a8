"""Code that the kinds of documents in text files share: lines with their places, and a look at the first ones.

A few records that cannot be read are dropped and counted, as anywhere in a source.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import BinaryIO, Callable

from kogpt2_gluon.corpus import records
from kogpt2_gluon.corpus.formats.kind import Kind
from kogpt2_gluon.corpus.records import BYTE_ORDER_MARK, Block, Document, Item, Rejection, make_block
from kogpt2_gluon.errors import DataError

RECORDS = 1000  # records that are looked at


class TextKind(Kind):
    """A kind whose source is a text of lines.

    Lines end at ``\\n`` alone (``\\r\\n`` is tolerated), and a byte order mark at the start of a source is not text.
    """

    def read_blocks(self, name: str, stream: BinaryIO, line: int, offset: int) -> Iterator[Block]:
        """Yields blocks of about BLOCK_BYTES that end with a record."""
        while True:
            data = stream.read(records.BLOCK_BYTES)
            if len(data) == records.BLOCK_BYTES:
                data += self._rest_of_record(name, stream, data, line)
            if not data:
                return
            block = make_block(name, line, offset, data)
            yield block
            line, offset = block.next_start

    @abstractmethod
    def _rest_of_record(self, name: str, stream: BinaryIO, data: bytes, line: int) -> bytes:
        """Returns what follows `data`, which may end inside a record, up to that record's end."""


class LineKind(TextKind):
    """A kind whose record is one line."""

    def _rest_of_record(self, name: str, stream: BinaryIO, data: bytes, line: int) -> bytes:
        return rest_of_line(name, stream, line)


def read_line_blocks(name: str, stream: BinaryIO, line: int, offset: int) -> Iterator[Block]:
    """Yields blocks of whole lines."""
    while data := stream.read(records.BLOCK_BYTES):
        if len(data) == records.BLOCK_BYTES:
            data += rest_of_line(name, stream, line)
        block = make_block(name, line, offset, data)
        yield block
        line, offset = block.next_start


def rest_of_line(name: str, stream: BinaryIO, line: int) -> bytes:
    """Returns what follows up to the next line end, it included; DataError if it is not in LARGEST_DOCUMENT bytes."""
    rest = stream.readline(records.LARGEST_DOCUMENT)
    if len(rest) == records.LARGEST_DOCUMENT:
        raise DataError(f"{name}: no line end in {len(rest):,} bytes somewhere after line {line}; not a text of lines")
    return rest


def read_cut_blocks(
    name: str, stream: BinaryIO, line: int, offset: int, last_end: Callable[[bytearray, bool], int], what: str
) -> Iterator[Block]:
    """Yields blocks that end where `last_end` says.

    It gets bytes from the beginning of a record on, and whether they are the last of the source; it returns where the
    last whole record among them ends, or 0. DataError if there is none in LARGEST_DOCUMENT bytes: `what` is missing.
    """
    buffer = bytearray()
    while True:
        # Twice as much each time, because each try begins at the start; what was read ahead before does not count.
        window = records.BLOCK_BYTES
        while True:
            buffer += stream.read(max(0, window + 1 - len(buffer)))
            is_last = len(buffer) <= window
            end = last_end(buffer[:window], is_last)
            if end or is_last:
                break
            if window > records.LARGEST_DOCUMENT:
                raise DataError(f"{name}: no {what} in {window:,} bytes after line {line}; is it such a file?")
            window *= 2
        end = len(buffer) if is_last and not end else end
        if not end:
            return
        block = make_block(name, line, offset, bytes(buffer[:end]))
        yield block
        line, offset = block.next_start
        del buffer[:end]


def numbered_lines(block: Block) -> Iterator[tuple[int, int, bytes]]:
    """Yields (line number, byte offset, bytes without the line end) of every line of a block."""
    offset, data = block.offset, block.data
    if offset == 0 and data.startswith(BYTE_ORDER_MARK):
        offset, data = len(BYTE_ORDER_MARK), data[len(BYTE_ORDER_MARK) :]
    lines = data.split(b"\n")
    if not lines[-1]:  # a last line without its end is a line; nothing at all is not
        lines.pop()
        if offset and not data and block.data:
            lines.append(b"")  # a byte order mark alone is an empty line
    for number, line in enumerate(lines, block.line):
        yield number, offset, line.rstrip(b"\r")
        offset += len(line) + 1


def first_lines(data: bytes) -> list[bytes]:
    """Returns up to RECORDS lines that are not blank, from the beginning of a source."""
    lines: list[bytes] = []
    begin = len(BYTE_ORDER_MARK) if data.startswith(BYTE_ORDER_MARK) else 0
    while begin < len(data) and len(lines) < RECORDS:
        end = data.find(b"\n", begin)
        end = len(data) if end < 0 else end
        line = data[begin:end].strip()
        if line:
            lines.append(line)
        begin = end + 1
    return lines


def make_document(data: bytes, source: str, line: int, offset: int) -> Item:
    """Returns the document that bytes are, without their lines that are not UTF-8; ``empty`` if it has no text.

    `line` and `offset` are those of the first byte; the document begins at its first line with text.
    """
    blank = len(data) - len(data.lstrip(b" \t\r\n"))
    begin = data.rfind(b"\n", 0, blank) + 1
    line, offset, data = line + data.count(b"\n", 0, begin), offset + begin, data[begin:].rstrip(b" \t\r\n")
    if not data:
        return Rejection("empty", source, line, offset)
    try:
        return Document(data.decode().replace("\r\n", "\n"), source, line, offset)
    except UnicodeDecodeError:
        pass
    lines: list[str] = []
    bad: list[int] = []
    place = offset
    for piece in data.split(b"\n"):
        try:
            lines.append(piece.rstrip(b"\r").decode())
        except UnicodeDecodeError as error:
            bad.append(place + error.start)
        place += len(piece) + 1
    if any(text.strip() for text in lines):
        return Document("\n".join(lines), source, line, offset, tuple(bad))
    return Rejection("bad_utf8", source, line, offset, tuple(bad))


def without_mark(block: Block) -> tuple[bytes, int]:
    """Returns a block's bytes without a byte order mark, and the offset of the first."""
    if block.offset == 0 and block.data.startswith(BYTE_ORDER_MARK):
        return block.data[len(BYTE_ORDER_MARK) :], len(BYTE_ORDER_MARK)
    return block.data, block.offset
