"""The containers that records come in: JSON lines, JSON arrays and objects, CSV and TSV, Parquet and Arrow.

A container cuts a source into blocks and gives the records of a block, with their places. What a record is worth as
text is not its business.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import BinaryIO, Union

from kogpt2_gluon.corpus.formats.json_array import Record, parse_records, read_array_blocks, read_text_blocks
from kogpt2_gluon.corpus.formats.text import numbered_lines, read_line_blocks
from kogpt2_gluon.corpus.records import Block, Rejection

Records = Iterator[Union[Record, Rejection]]


class Container(ABC):
    """One container of records. `form` is its name among `corpus.forms.FORMS`."""

    form: str
    seeks = False  # True if `read_blocks` finds its place in the stream by itself

    def read_blocks(self, name: str, stream: BinaryIO, line: int, offset: int) -> Iterator[Block]:
        """Yields the blocks from here on, as `Kind.read_blocks` does."""
        for block in self._cut(name, stream, line, offset):
            yield block._replace(form=self.form)

    @abstractmethod
    def _cut(self, name: str, stream: BinaryIO, line: int, offset: int) -> Iterator[Block]: ...

    @staticmethod
    @abstractmethod
    def records(block: Block) -> Records:
        """Yields the records of a block, or why one could not be read."""


class JsonLines(Container):
    """A JSON value in every line."""

    form = "json-lines"

    def _cut(self, name: str, stream: BinaryIO, line: int, offset: int) -> Iterator[Block]:
        return read_line_blocks(name, stream, line, offset)

    @staticmethod
    def records(block: Block) -> Records:
        """Yields the records; ``empty`` (a blank line), ``bad_utf8`` or ``bad_json`` for the others."""
        loads = json.loads
        for number, offset, line in numbered_lines(block):
            if not line.strip():
                yield Rejection("empty", block.source, number, offset)
                continue
            try:
                yield Record(loads(line.decode()), number, offset)
            except UnicodeDecodeError as error:
                yield Rejection("bad_utf8", block.source, number, offset, (offset + error.start,))
            except (ValueError, RecursionError):
                yield Rejection("bad_json", block.source, number, offset)


class JsonArray(Container):
    """The values of the array that is the file, or that its one object has under `keys`."""

    form = "json-array"

    def __init__(self, keys: tuple[str, ...] = ()) -> None:
        self._keys = keys

    def _cut(self, name: str, stream: BinaryIO, line: int, offset: int) -> Iterator[Block]:
        return read_array_blocks(name, stream, line, offset, self._keys)

    @staticmethod
    def records(block: Block) -> Records:
        """Yields the values; ``bad_utf8`` or ``bad_json`` for the others."""
        return parse_records(block)


class JsonTexts(Container):
    """A file that is one JSON object, or several that follow one another, each over many lines or not."""

    form = "json-object"

    def _cut(self, name: str, stream: BinaryIO, line: int, offset: int) -> Iterator[Block]:
        return read_text_blocks(name, stream, line, offset)

    @staticmethod
    def records(block: Block) -> Records:
        """Yields the objects; ``bad_utf8`` or ``bad_json`` for the others."""
        return parse_records(block, apart=True)
