"""Wikipedia's XML dump (``kowiki-*-pages-articles.xml.bz2``): each article as plain text.

::

    <mediawiki ...>
      <siteinfo>...</siteinfo>
      <page>
        <title>지미 카터</title> <ns>0</ns> <id>5</id>
        <revision> ... <text bytes="4" xml:space="preserve">'''제임스 카터'''는 ...</text> </revision>
      </page>

The dump is cut at ``</page>``, which occurs nowhere else (angle brackets in texts are escaped), and each page is parsed
by itself: a document type that declares entities cannot come before it, so there are none to expand. Articles
(namespace 0) become documents, but redirects do not; the title is left out. `wikitext` removes the markup, and counts
what goes with it. Each block carries the dump's head, `siteinfo`, whose names of namespaces `wikitext` needs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, BinaryIO

from kogpt2_gluon.corpus import records
from kogpt2_gluon.corpus.formats.kind import BlockReader, Kind
from kogpt2_gluon.corpus.left_out import LeftOut
from kogpt2_gluon.corpus.records import Block, Document, Item, Rejection, make_block
from kogpt2_gluon.corpus.sources import Source
from kogpt2_gluon.errors import DataError

if TYPE_CHECKING:
    from kogpt2_gluon.corpus.formats.wikitext import Prefixes, Templates

_BEGIN, _END = b"<page>", b"</page>"
_HEAD_BYTES = 64 << 10  # of a dump, in which its head ends
_SITEINFO = re.compile(rb"<siteinfo>.*?</siteinfo>", re.DOTALL)
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")  # XML 1.0 forbids them, but dumps have them
_REDIRECT = re.compile(r"\s*#\s*(?:redirect|넘겨주기)\s*:?\s*\[\[", re.IGNORECASE)


class Wikipedia(Kind):
    """The articles of a dump, or of the files that it is published in."""

    name = "wikipedia"
    meaning = "the articles of MediaWiki's XML dump"
    forms = ("xml-dump",)

    def __init__(self, keep: tuple[str, ...] = (), drop: tuple[str, ...] = ()) -> None:
        self._keep, self._drop = keep, drop

    def with_templates(self, keep: Sequence[str], drop: Sequence[str]) -> Wikipedia:
        """Returns the kind with templates of these names kept (their first unnamed value) and dropped everywhere."""
        return Wikipedia(tuple(keep), tuple(drop))

    def reader(self, source: Source) -> BlockReader:
        """Returns what cuts a dump into blocks, which know its head wherever reading begins."""
        return _DumpReader(self, source)

    def read_blocks(self, name: str, stream: BinaryIO, line: int, offset: int) -> Iterator[Block]:
        """Yields blocks of whole pages; DataError if the file has none at all or is cut off."""
        buffer = bytearray()
        found_pages = offset > 0
        head = b""
        while True:
            buffer += stream.read(max(0, records.BLOCK_BYTES - len(buffer)))
            end = buffer.rfind(_END)
            while end < 0:
                more = stream.read(records.BLOCK_BYTES)
                if not more:
                    _check_tail(name, buffer, line, offset, found_pages)
                    return
                searched = max(0, len(buffer) - len(_END) + 1)
                buffer += more
                if len(buffer) > records.LARGEST_DOCUMENT:
                    raise DataError(
                        f"{name}: no </page> in {len(buffer):,} bytes from byte {offset:,} (line {line}) on; "
                        "is it a MediaWiki XML dump?"
                    )
                end = buffer.rfind(_END, searched)
            found_pages = True
            end += len(_END)
            block = make_block(name, line, offset, bytes(buffer[:end]))
            if not offset:
                head = head_of(block.data)
            yield block._replace(head=head)
            line, offset = block.next_start
            del buffer[:end]

    def parse_block(self, block: Block) -> Iterator[Item]:
        """Yields a document for every article of a block, or why there is none.

        Reasons: ``namespace`` (a talk page, a template, ..., but not an article), ``redirect``, ``not_wikitext``
        (JSON, CSS), ``bad_xml``, ``bad_utf8``, ``bad_markup`` (wikitext with more openings left open than can be parsed
        in bounded time), ``empty`` (no text is left without the markup).
        """
        # Here, because the table of kinds is imported by `kogpt2 --help`, and the parser of wikitext takes 50 ms.
        from kogpt2_gluon.corpus.formats.wikitext import Templates, prefixes_of

        prefixes, templates = prefixes_of(block.head), Templates.of(self._keep, self._drop)
        line, counted = block.line, 0
        position = 0
        while True:
            end = block.data.find(_END, position)
            if end < 0:
                return
            end += len(_END)
            begin = block.data.find(_BEGIN, position, end)
            if begin < 0:  # an end without a begin
                begin = position
            line += block.data.count(b"\n", counted, begin)
            counted, offset = begin, block.offset + begin
            try:
                page = block.data[begin:end].decode()
            except UnicodeDecodeError as error:
                yield Rejection("bad_utf8", block.source, line, offset, (offset + error.start,))
            else:
                left_out = LeftOut()
                reason, text = _read_page(page, prefixes, templates, left_out)
                if reason:
                    yield Rejection(reason, block.source, line, offset)
                else:
                    yield Document(text, block.source, line, offset, left_out=left_out if left_out.counts else None)
            position = end


class _DumpReader:
    """Cuts one dump into blocks that carry its head."""

    seeks = False

    def __init__(self, kind: Wikipedia, source: Source) -> None:
        self._kind, self._source = kind, source

    def read_blocks(self, name: str, stream: BinaryIO, line: int, offset: int) -> Iterator[Block]:
        """Yields the blocks from `offset` on; the head is read again if that is not the beginning."""
        head: bytes | None = None
        for block in self._kind.read_blocks(name, stream, line, offset):
            if offset and head is None:
                with self._source.open() as beginning:
                    head = head_of(beginning.read(_HEAD_BYTES))
            yield block if head is None else block._replace(head=head)


def head_of(beginning: bytes) -> bytes:
    """Returns the ``siteinfo`` of a dump that begins so; nothing if it has none."""
    found = _SITEINFO.search(beginning, 0, _HEAD_BYTES)
    return found[0] if found is not None else b""


def _check_tail(name: str, rest: bytearray, line: int, offset: int, found_pages: bool) -> None:
    """Raises DataError if what follows the last page shows that the dump is cut off."""
    if rest.rstrip().endswith(b"</mediawiki>"):
        return
    if not found_pages:
        raise DataError(f"{name}: not a MediaWiki XML dump, or cut off before its first page ends")
    raise DataError(
        f"{name}: truncated: the dump ends after byte {offset:,} (line {line}) without </mediawiki>"
        + (", in the middle of a page" if _BEGIN in rest else "")
    )


def _read_page(xml: str, prefixes: Prefixes, templates: Templates, left_out: LeftOut) -> tuple[str, str]:
    """Returns (reason to reject it, or "", and its text) for ``<page>...</page>``; counts in `left_out`."""
    from xml.etree import ElementTree

    from kogpt2_gluon.corpus.formats.wikitext import BadMarkupError, plain_text

    try:
        page = ElementTree.fromstring(_FORBIDDEN.sub("", xml))
    except (ElementTree.ParseError, ValueError, RecursionError):
        return "bad_xml", ""
    if page.tag != "page":
        return "bad_xml", ""
    if (page.findtext("ns") or "").strip() != "0":
        return "namespace", ""
    revisions = page.findall("revision")
    if page.find("redirect") is not None:
        return "redirect", ""
    if not revisions:
        return "empty", ""
    revision = revisions[-1]  # a dump with the full history has all of them; the last one is the article at its time
    if (revision.findtext("model") or "wikitext").strip() != "wikitext":
        return "not_wikitext", ""
    wikitext = revision.findtext("text") or ""
    if _REDIRECT.match(wikitext):
        return "redirect", ""
    try:
        text = plain_text(wikitext, prefixes, templates, left_out)
    except BadMarkupError:
        return "bad_markup", ""
    return ("", text) if text else ("empty", "")
