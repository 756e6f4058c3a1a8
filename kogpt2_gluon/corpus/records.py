"""Blocks of a source's bytes, and the documents that they hold or the reasons why there is none."""

from __future__ import annotations

from typing import NamedTuple, Union

from kogpt2_gluon.corpus.left_out import LeftOut

BLOCK_BYTES = 1 << 20  # size of a block; one record may make it larger
LARGEST_DOCUMENT = 1 << 30  # bytes; in a longer one the end of the document is missing
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Document(NamedTuple):
    """The text of one document and its place.

    Lines of `text` are separated by ``\\n``. `source` is the source's name; `line` counts from 1, `offset` is the byte
    where the document (or the record that holds it) begins, after decompression; in a table without lines (Parquet,
    Arrow) both count rows. `bad_utf8` has the byte offsets of lines that were left out because they are not UTF-8.
    `lost` counts other lines or pieces that could not be read, by reason; `left_out` what the kind's reader leaves out
    on purpose, such as templates (None: nothing).
    """

    text: str
    source: str
    line: int
    offset: int
    bad_utf8: tuple[int, ...] = ()
    lost: tuple[tuple[str, int], ...] = ()
    left_out: LeftOut | None = None


class Rejection(NamedTuple):
    """A document that could not be read, why, and where.

    `reason` is ``bad_utf8`` (then `bad_utf8` has the byte offset of each bad line's first bad byte), ``bad_json``,
    ``empty`` (a blank line between records, a record without text), ``missing_field``, ``null_field``,
    ``field_not_text``, or one of those that the modules of `kogpt2_gluon.corpus.formats` add: ``bad_row`` (of a
    table), ``bad_xml``, ``bad_markup``, ``namespace``, ``redirect``, ``not_wikitext``.
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
    bytes after decompression; in a table without lines both count rows. `form` is that of the container (a name of
    `corpus.forms`, or of a part of one) where a kind reads several; `head` is what else parsing needs: how a table
    is spelled, or where the values in `data` are.
    """

    source: str
    line: int
    offset: int
    end: int
    data: bytes
    end_line: int
    form: str = ""
    head: bytes = b""

    @property
    def next_start(self) -> tuple[int, int]:
        """The `start` from which `read_blocks` continues after this block: (line, byte offset)."""
        return self.end_line, self.end


def make_block(source: str, line: int, offset: int, data: bytes) -> Block:
    """Returns the block of `data`, which begins at `line` and `offset`."""
    return Block(source, line, offset, offset + len(data), data, line + data.count(b"\n"))
