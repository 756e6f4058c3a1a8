"""Readers for the dumps that Korean corpora are published in.

- ``wikipedia``: MediaWiki's XML export (``kowiki-*-pages-articles.xml.bz2``), see `wikipedia`;
- ``namuwiki``: NamuWiki's database dump, one JSON array, see `namuwiki`;
- ``modu``: the JSON files of the Modu corpus (모두의 말뭉치, "everyone's corpus"), see `modu`.

Each module has the two steps of `kogpt2_gluon.corpus.documents`: `read_blocks(name, stream, line, offset)` cuts the
stream, which stands at `offset`, into blocks of whole records; `parse_block(block)` makes documents of one.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import BinaryIO, cast

from kogpt2_gluon.corpus.documents import Block, Item

FORMATS = ("wikipedia", "namuwiki", "modu")


def read_blocks_of(format_name: str, name: str, stream: BinaryIO, line: int, offset: int) -> Iterator[Block]:
    """`read_blocks` of one format; the parameters are those of the modules (see above)."""
    assert format_name in FORMATS, format_name
    module = importlib.import_module(f"{__name__}.{format_name}")
    return cast("Iterator[Block]", module.read_blocks(name, stream, line, offset))


def parse_block_of(format_name: str, block: Block) -> Iterator[Item]:
    """`parse_block` of one format."""
    assert format_name in FORMATS, format_name
    module = importlib.import_module(f"{__name__}.{format_name}")
    return cast("Iterator[Item]", module.parse_block(block))
