"""Cutting a large JSON file into the elements of its one long array, without reading all of it.

A parser builds every value, forgets where it was, and gives up a whole file for one bad byte. Cutting needs only
strings and brackets: it runs at the speed of a search, knows the byte at which each record begins, so that reading can
begin again there, and leaves a bad record to whoever parses it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

from kogpt2_gluon.corpus import records
from kogpt2_gluon.corpus.records import BYTE_ORDER_MARK, Block, Rejection, make_block
from kogpt2_gluon.errors import DataError

_MARKS = re.compile(rb'["{}\[\]]')
_SPACE = b" \t\r\n"
_BACKSLASH = ord("\\")


class Record(NamedTuple):
    """One element of the array, parsed. `line` and `offset` are those of its first byte."""

    value: Any
    line: int
    offset: int


class _Scanner:
    """Finds the elements (objects or arrays) in bytes that begin between two elements of an array.

    `scan` may be called again when `data` has grown. `spans` are the elements found so far; `tail` is where the array
    ended, `fault` where something was found that cannot be between elements.
    """

    def __init__(self, data: bytes | bytearray, closers: bytes, first: bool) -> None:
        self.data, self._closers, self._first = data, closers, first
        self.spans: list[tuple[int, int]] = []
        self.tail: int | None = None
        self.fault: int | None = None
        self._depth = 0
        self._position = 0  # everything before it is done
        self._begin = 0  # of the element, while the depth is not 0
        self._string = -1  # right after the quote that opened the string that is not yet closed

    @property
    def end(self) -> int:
        """The byte after the last whole element; 0 if there is none."""
        return self.spans[-1][1] if self.spans else 0

    def scan(self) -> None:
        """Continues to the end of `data`, to the end of the array, or to a fault."""
        while self.tail is None and self.fault is None:
            if self._string >= 0:
                quote = _closing_quote(self.data, self._position, self._string)
                if quote < 0:
                    self._position = len(self.data)
                    return
                self._string, self._position = -1, quote + 1
            found = _MARKS.search(self.data, self._position)
            if found is None:
                self._position = len(self.data)
                return
            self._position = found.end()
            self._take(found.group(), found.start())

    def _take(self, mark: bytes, place: int) -> None:
        if self._depth == 0:
            self._begin_element(mark, place)
        elif mark == b'"':
            self._string = place + 1
        elif mark in b"{[":
            self._depth += 1
        else:
            self._depth -= 1
            if self._depth == 0:
                self.spans.append((self._begin, place + 1))

    def _begin_element(self, mark: bytes, place: int) -> None:
        between = bytes(self.data[self.end : place]).strip(_SPACE)
        is_first = self._first and not self.spans
        if mark in self._closers and not between:
            self.tail = place
        elif mark in b"{[" and between == (b"" if is_first else b","):
            self._begin, self._depth = place, 1
        else:
            self.fault = place


def _closing_quote(data: bytes | bytearray, position: int, begin: int) -> int:
    """Returns where the string that begins at `begin` ends, searched from `position` on; -1 if not in `data`."""
    while True:
        quote = data.find(b'"', position)
        if quote < 0:
            return -1
        before = quote
        while before > begin and data[before - 1] == _BACKSLASH:
            before -= 1
        if (quote - before) % 2 == 0:  # backslashes pair off, so this quote is not escaped
            return quote
        position = quote + 1


def read_array_blocks(name: str, stream: BinaryIO, line: int, offset: int, key: str | None = None) -> Iterator[Block]:
    """Yields blocks of whole elements of the array that is the file, or that the file's one object has under `key`.

    An object under `key` counts as an array of one. At offset 0 the stream is first read past
    what comes before the array. Raises DataError if the file has another shape, ends too early, or has too long an
    element.
    """
    buffer = bytearray()
    first = offset == 0
    if first:
        head = _read_head(name, stream, buffer, key)
        line, offset = line + buffer.count(b"\n", 0, head), head
        del buffer[:head]
    closers = b"]" if key is None else b"]}"
    while True:
        buffer += stream.read(max(0, records.BLOCK_BYTES - len(buffer)))
        scanner = _Scanner(buffer, closers, first)
        scanner.scan()
        while not scanner.spans and scanner.tail is None and scanner.fault is None:
            more = stream.read(records.BLOCK_BYTES)
            if not more:
                raise DataError(
                    f"{name}: truncated: a record that begins after byte {offset:,} (line {line}) has no end"
                )
            buffer += more
            if len(buffer) > records.LARGEST_DOCUMENT:
                raise DataError(f"{name}: a record of over {len(buffer):,} bytes after byte {offset:,}; is it damaged?")
            scanner.scan()
        if scanner.spans:
            block = make_block(name, line, offset, bytes(buffer[: scanner.end]))
            yield block
            line, offset = block.next_start
            first = False
            del buffer[: scanner.end]
        elif scanner.fault is not None:
            place = offset + scanner.fault
            raise DataError(f"{name}: damaged: there is not just one comma between two records, at byte {place:,}")
        else:
            assert scanner.tail is not None
            _check_tail(name, stream, bytes(buffer[scanner.tail :]), offset + scanner.tail, key)
            return


def _read_head(name: str, stream: BinaryIO, buffer: bytearray, key: str | None) -> int:
    """Fills `buffer` up to the beginning of the array; returns where its first element would begin."""
    while True:
        more = stream.read(
            max(records.BLOCK_BYTES, len(buffer))
        )  # twice as much each time, because each try begins at the start
        buffer += more
        start = len(BYTE_ORDER_MARK) if buffer.startswith(BYTE_ORDER_MARK) else 0
        while start < len(buffer) and buffer[start] in _SPACE:
            start += 1
        opening = b"[" if key is None else b"{"
        if start < len(buffer) and not buffer.startswith(opening, start):
            raise DataError(f"{name}: begins with {bytes(buffer[start : start + 1])!r}, not with {opening.decode()!r}")
        if start < len(buffer):
            head = start + 1 if key is None else _find_key(buffer, start, key)
            if head:
                return head
        if not more or len(buffer) > records.LARGEST_DOCUMENT:
            what = "JSON array" if key is None else f'JSON object with "{key}"'
            raise DataError(f"{name}: no {what} in {len(buffer):,} bytes; it is empty, cut off or another kind of file")


def _find_key(data: bytearray, position: int, key: str) -> int:
    """Returns where the elements under `key` of the outermost object begin, or 0 if that place is not in `data`."""
    value = re.compile(rb"[ \t\r\n]*:[ \t\r\n]*([\[{])")
    depth = 0
    while True:
        found = _MARKS.search(data, position)
        if found is None:
            return 0
        position = found.end()
        mark = found.group()
        if mark != b'"':
            depth += 1 if mark in b"{[" else -1
            continue
        quote = _closing_quote(data, position, position)
        if quote < 0:
            return 0
        if depth == 1 and data[position:quote] == key.encode():
            opening = value.match(data, quote + 1)
            if opening is not None:
                return opening.end() if opening[1] == b"[" else opening.start(1)
        position = quote + 1


def _check_tail(name: str, stream: BinaryIO, tail: bytes, offset: int, key: str | None) -> None:
    """Reads from the end of the array to the end of the file: DataError if the file was cut off in between."""
    last = tail.strip(_SPACE)[-1:]
    if key is None and len(tail.strip(_SPACE)) > 1:
        raise DataError(f"{name}: something follows the end of its JSON array at byte {offset:,}")
    while True:
        data = stream.read(records.BLOCK_BYTES)
        if not data:
            break
        rest = data.strip(_SPACE)
        if rest and key is None:
            raise DataError(f"{name}: something follows the end of its JSON array at byte {offset:,}")
        last = rest[-1:] or last
    if key is not None and last != b"}":
        raise DataError(f"{name}: truncated: it ends after the array at byte {offset:,} without closing its object")


def parse_records(block: Block) -> Iterator[Record | Rejection]:
    """Yields the parsed elements in a block of `read_array_blocks`, or their rejections: ``bad_utf8``, ``bad_json``."""
    # The separators were checked when the block was cut; here it only matters which one comes first.
    begins_array = not block.data.lstrip(_SPACE).startswith(b",")
    scanner = _Scanner(block.data, b"", begins_array)
    scanner.scan()
    line, counted = block.line, 0
    for begin, end in scanner.spans:
        line += block.data.count(b"\n", counted, begin)
        counted, offset = begin, block.offset + begin
        try:
            value = json.loads(block.data[begin:end].decode())
        except UnicodeDecodeError as error:
            yield Rejection("bad_utf8", block.source, line, offset, (offset + error.start,))
        except (ValueError, RecursionError):
            yield Rejection("bad_json", block.source, line, offset)
        else:
            yield Record(value, line, offset)
