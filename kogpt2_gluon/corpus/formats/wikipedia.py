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
(namespace 0) become documents, but redirects do not; the title is left out. `wikitext` removes the markup.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO

from kogpt2_gluon.corpus import records
from kogpt2_gluon.corpus.formats.kind import Kind
from kogpt2_gluon.corpus.records import Block, Document, Item, Rejection, make_block
from kogpt2_gluon.errors import DataError

_BEGIN, _END = b"<page>", b"</page>"
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")  # XML 1.0 forbids them, but dumps have them
_PAGES_OF_DUMP = re.compile(r"\.xml-p\d+p\d+")  # pages-articles1.xml-p1p76864.bz2: one file of several
_REDIRECT = re.compile(r"\s*#\s*(?:redirect|넘겨주기)\s*:?\s*\[\[", re.IGNORECASE)


class Wikipedia(Kind):
    """The articles of a dump, or of the files that it is published in."""

    name = "wikipedia"
    meaning = "the articles of MediaWiki's XML dump"
    suffixes = (".xml",)
    forms = ("xml-dump",)

    def check_name(self, name: str, suffix: str) -> None:
        """Raises DataError if the file is not called one of a dump's; one of its pieces is."""
        if not _PAGES_OF_DUMP.fullmatch(suffix):
            super().check_name(name, suffix)

    def read_blocks(self, name: str, stream: BinaryIO, line: int, offset: int) -> Iterator[Block]:
        """Yields blocks of whole pages; DataError if the file has none at all or is cut off."""
        buffer = bytearray()
        found_pages = offset > 0
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
            yield block
            line, offset = block.next_start
            del buffer[:end]

    def parse_block(self, block: Block) -> Iterator[Item]:
        """Yields a document for every article of a block, or why there is none.

        Reasons: ``namespace`` (a talk page, a template, ..., but not an article), ``redirect``, ``not_wikitext``
        (JSON, CSS), ``bad_xml``, ``bad_utf8``, ``bad_markup`` (wikitext with more openings left open than can be parsed
        in bounded time), ``empty`` (no text is left without the markup).
        """
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
                reason, text = _read_page(page)
                if reason:
                    yield Rejection(reason, block.source, line, offset)
                else:
                    yield Document(text, block.source, line, offset)
            position = end


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


def _read_page(xml: str) -> tuple[str, str]:
    """Returns (reason to reject it, or "", and its text) for ``<page>...</page>``."""
    # Here, because the table of kinds is imported by `kogpt2 --help`, and the parser of wikitext takes 50 ms.
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
        text = plain_text(wikitext)
    except BadMarkupError:
        return "bad_markup", ""
    return ("", text) if text else ("empty", "")
