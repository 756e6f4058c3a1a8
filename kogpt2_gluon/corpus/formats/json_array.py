"""Large JSON files: the values of one long array, or JSON texts one after another, read without holding all of them."""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Iterator
from itertools import chain
from typing import Any, BinaryIO, NamedTuple

from kogpt2_gluon.corpus import records
from kogpt2_gluon.corpus.formats.json_cutter import SPACE, Brackets, Cutter
from kogpt2_gluon.corpus.records import BYTE_ORDER_MARK, Block, Rejection, make_block
from kogpt2_gluon.errors import DataError

_MARKS = re.compile(rb'["{}\[\]]')
_VALUE = re.compile(rb"[ \t\r\n]*:[ \t\r\n]*([\[{])")
_NUMBERS = "I"  # array's type of the places of values in `Block.head`
_BEGINNING = 1 << 20  # bytes of a file that an error may describe
_BACKSLASH = ord("\\")


class NoArrayError(DataError):
    """There is no such array in a file; `beginning` is what the file begins with."""

    def __init__(self, message: str, beginning: bytes) -> None:
        super().__init__(message)
        self.beginning = beginning


class Record(NamedTuple):
    """One value of the array, parsed. `line` and `offset` are those of its first byte."""

    value: Any
    line: int
    offset: int


def read_array_blocks(
    name: str, stream: BinaryIO, line: int, offset: int, keys: tuple[str, ...] = ()
) -> Iterator[Block]:
    """Yields blocks of whole values of the array that is the file, or that its one object has under `keys`.

    An object in the place of the array counts as an array of one. At offset 0 the stream is first read past what comes
    before the array. Raises DataError if the file has another shape, ends too early, or has too long a value.
    """
    buffer = bytearray()
    first = offset == 0
    if first:
        line, offset = _read_head(name, stream, buffer, keys)
    while True:
        cutter = Cutter(buffer, b"]}" if keys else b"]", first)
        ended = not _fill(name, stream, buffer, cutter, line, offset)
        if cutter.spans:
            block = make_block(name, line, offset, bytes(buffer[: cutter.end]))
            yield block._replace(head=array(_NUMBERS, chain.from_iterable(cutter.spans)).tobytes())
            line, offset = block.next_start
            first = False
            del buffer[: cutter.end]
        elif cutter.fault is not None:
            raise _damage(name, cutter, offset)
        elif cutter.tail is not None:
            _check_tail(name, stream, bytes(buffer[cutter.tail :]), offset + cutter.tail, bool(keys))
            return
        else:
            assert ended
            raise _truncation(name, line, offset)


def read_text_blocks(name: str, stream: BinaryIO, line: int, offset: int) -> Iterator[Block]:
    """Yields blocks of whole JSON objects (or arrays) that follow one another in a file, each over several lines."""
    buffer = bytearray()
    at_start = offset == 0
    while True:
        cutter = Cutter(buffer, b"", first=True, apart=True)
        if at_start and not buffer:
            buffer += stream.read(records.BLOCK_BYTES)
            if buffer.startswith(BYTE_ORDER_MARK):
                del buffer[: len(BYTE_ORDER_MARK)]
                offset = len(BYTE_ORDER_MARK)
            at_start = False
        ended = not _fill(name, stream, buffer, cutter, line, offset)
        if cutter.spans:
            block = make_block(name, line, offset, bytes(buffer[: cutter.end]))
            yield block._replace(head=array(_NUMBERS, chain.from_iterable(cutter.spans)).tobytes())
            line, offset = block.next_start
            del buffer[: cutter.end]
        elif cutter.fault is not None:
            raise _damage(name, cutter, offset)
        else:
            assert ended
            if buffer.strip(SPACE):
                raise _truncation(name, line, offset)
            return


def _fill(name: str, stream: BinaryIO, buffer: bytearray, cutter: Cutter, line: int, offset: int) -> bool:
    """Reads until the cutter has found something; returns False if the stream ended before it did."""
    buffer += stream.read(max(0, records.BLOCK_BYTES - len(buffer)))
    cutter.scan()
    while not cutter.spans and cutter.tail is None and cutter.fault is None:
        more = stream.read(records.BLOCK_BYTES)
        if not more:
            return False
        buffer += more
        if len(buffer) > records.LARGEST_DOCUMENT:
            raise DataError(f"{name}: a record of over {len(buffer):,} bytes after byte {offset:,}; is it damaged?")
        cutter.scan()
    return True


def _damage(name: str, cutter: Cutter, offset: int) -> DataError:
    assert cutter.fault is not None
    place = offset + cutter.fault
    return DataError(f"{name}: damaged: there is not just one comma between two records, at byte {place:,}")


def _truncation(name: str, line: int, offset: int) -> DataError:
    return DataError(f"{name}: truncated: a record that begins after byte {offset:,} (line {line}) has no end")


def _read_head(name: str, stream: BinaryIO, buffer: bytearray, keys: tuple[str, ...]) -> tuple[int, int]:
    """Reads up to the beginning of the array, and leaves in `buffer` what follows; returns its (line, offset)."""
    line, offset = 1, 0
    finder = _KeyFinder(keys)
    beginning = b""
    while True:
        more = stream.read(records.BLOCK_BYTES)
        buffer += more
        if not offset:
            start = len(BYTE_ORDER_MARK) if buffer.startswith(BYTE_ORDER_MARK) else 0
            start += len(buffer[start:]) - len(buffer[start:].lstrip(SPACE))
            opening = b"{" if keys else b"["
            if start < len(buffer) and not buffer.startswith(opening, start):
                found = bytes(buffer[start : start + 1])
                raise DataError(f"{name}: begins with {found!r}, not with {opening.decode()!r}")
            beginning = bytes(buffer[:_BEGINNING])
            done = start + 1 if not keys and start < len(buffer) else 0
        if keys and not done:
            done = finder.find(buffer)
        passed = done or finder.position
        line, offset = line + buffer.count(b"\n", 0, passed), offset + passed
        del buffer[:passed]
        finder.position = 0
        if done:
            return line, offset
        if not more or len(buffer) > records.LARGEST_DOCUMENT:
            what = f'JSON object with "{".".join(keys)}"' if keys else "JSON array"
            size = offset + len(buffer)
            message = f"{name}: no {what} in {size:,} bytes; it is empty, cut off or another kind of file"
            raise NoArrayError(message, beginning)


class _KeyFinder:
    """Finds where the values under `keys`, one object inside the other, begin, in a text that comes piece by piece.

    What is before `position` is not needed any more.
    """

    def __init__(self, keys: tuple[str, ...]) -> None:
        self._keys = [key.encode() for key in keys]
        self._depth = self._level = 0  # `_level` keys are found, and their objects are open
        self.position = 0

    def find(self, data: bytearray) -> int:
        """Returns where the values begin, or 0 if that is not in `data`."""
        while (found := _MARKS.search(data, self.position)) is not None:
            if found.group() != b'"':
                self._depth += 1 if found.group() in b"{[" else -1
                self._level = min(self._level, max(0, self._depth - 1))
                self.position = found.end()
                continue
            self.position = found.start()
            quote = _closing_quote(data, found.end(), found.end())
            if quote < 0:
                return 0
            after = quote + 1
            if self._depth == self._level + 1 and data[found.end() : quote] == self._keys[self._level]:
                opening = _VALUE.match(data, after)
                if opening is None and not data[after:].strip(SPACE + b":"):
                    return 0  # what it holds is still to come
                if opening is not None and self._level == len(self._keys) - 1:
                    return opening.end() if opening[1] == b"[" else opening.start(1)
                if opening is not None and opening[1] == b"{":
                    self._level, self._depth, after = self._level + 1, self._depth + 1, opening.end()
            self.position = after
        self.position = len(data)
        return 0


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


def _check_tail(name: str, stream: BinaryIO, tail: bytes, offset: int, has_keys: bool) -> None:
    """Reads from the end of the array to the end of the file: DataError if the file was cut off in between."""
    last = tail.strip(SPACE)[-1:]
    if not has_keys and len(tail.strip(SPACE)) > 1:
        raise DataError(f"{name}: something follows the end of its JSON array at byte {offset:,}")
    while True:
        data = stream.read(records.BLOCK_BYTES)
        if not data:
            break
        rest = data.strip(SPACE)
        if rest and not has_keys:
            raise DataError(f"{name}: something follows the end of its JSON array at byte {offset:,}")
        last = rest[-1:] or last
    if has_keys and last != b"}":
        raise DataError(f"{name}: truncated: it ends after the array at byte {offset:,} without closing its object")


def parse_records(block: Block, apart: bool = False) -> Iterator[Record | Rejection]:
    """Yields the parsed values in a block of `read_array_blocks`, or their rejections: ``bad_utf8``, ``bad_json``.

    With `apart` the block is one of `read_text_blocks`.
    """
    spans = array(_NUMBERS)
    spans.frombytes(block.head)
    if not spans:
        # The separators were checked when the block was cut; here it only matters which one comes first.
        begins_array = not block.data.lstrip(SPACE).startswith(b",")
        cutter = Cutter(block.data + (b"" if apart else b"]"), b"]", begins_array, apart)
        cutter.scan()
        spans.extend(chain.from_iterable(cutter.spans))
    line, counted = block.line, 0
    places = iter(spans)
    for begin, end in zip(places, places):
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


def sample_object(head: bytes) -> Any:
    """Returns what the beginning of a JSON object says, closed where it was cut off; None if it is damaged."""
    head = head[len(BYTE_ORDER_MARK) :] if head.startswith(BYTE_ORDER_MARK) else head
    try:
        return json.loads(head)
    except (ValueError, RecursionError):
        pass
    brackets = Brackets()
    places, opens, depths = brackets.scan(head)
    for last in (len(places) - 1 - step for step in range(min(40, len(places)))):
        if opens[last] or depths[last] < 1:
            continue
        # After a bracket that closes, every bracket that is still open can be closed.
        stack: list[str] = []
        for place, is_open in zip(places[: last + 1].tolist(), opens[: last + 1].tolist()):
            if is_open:
                stack.append("}" if head[place : place + 1] == b"{" else "]")
            elif stack:
                stack.pop()
        try:
            return json.loads(head[: int(places[last]) + 1].decode("utf-8", "replace") + "".join(reversed(stack)))
        except (ValueError, RecursionError):
            continue
    return None
