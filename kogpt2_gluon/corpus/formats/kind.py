"""The interface of a kind of document: its name, the forms of its files, and the two steps of reading."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import BinaryIO, Protocol

from kogpt2_gluon.corpus.layout import PARAGRAPHS, Layout
from kogpt2_gluon.corpus.records import Block, Item
from kogpt2_gluon.corpus.sources import Source
from kogpt2_gluon.errors import RecipeError

LEAST = 10  # records at the beginning of a source; fewer prove nothing


class BlockReader(Protocol):
    """Cuts one source into blocks: a kind, or the container that a source of a kind turns out to be.

    With `seeks` it gets a stream at its beginning, and finds its place by itself.
    """

    @property
    def seeks(self) -> bool: ...

    def read_blocks(self, name: str, stream: BinaryIO, line: int, offset: int) -> Iterator[Block]: ...


class Kind(ABC):
    """One kind of document.

    Reading has two steps. `read_blocks` cuts a source into blocks of whole records: cheap, in one process, and able to
    begin again at the end of any block. `parse_block` makes documents of one block: in any process, from nothing but
    the block.
    """

    name: str  # the word for `--documents`
    meaning: str  # in a few words, for help texts
    forms: tuple[str, ...] = ("text",)  # forms of content that can hold such documents: names of `corpus.forms.FORMS`
    layout: Layout = PARAGRAPHS  # how such documents are stored once they are clean
    seeks = False

    # Not abstract: a reader of dumps finds out by itself that a file is not such a dump.
    def check_opening(self, block: Block, fewest: int = LEAST) -> None:  # noqa: B027
        """Raises DataError if the first block of a source shows that it does not hold such documents.

        `fewest` is how many records it takes to prove that a field is missing.
        """

    def reader(self, source: Source) -> BlockReader:
        """Returns what cuts a source into blocks. DataError if it does not hold such documents."""
        return self

    def with_templates(self, keep: Sequence[str], drop: Sequence[str]) -> Kind:
        """Returns the kind with templates of a wiki that are kept or dropped by name. RecipeError if it has none."""
        raise RecipeError(f"--keep-template, --drop-template: --documents {self.name} has no templates; leave them out")

    @abstractmethod
    def read_blocks(self, name: str, stream: BinaryIO, line: int, offset: int) -> Iterator[Block]:
        """Yields the blocks of source `name` from here on; `stream` is at byte `offset` after decompression, in `line`.

        A block depends only on where it begins. Raises DataError if the source is not of this kind or is cut off.
        """

    @abstractmethod
    def parse_block(self, block: Block) -> Iterator[Item]:
        """Yields the documents of a block in order, or why one could not be read."""

    def texts_at_once(self, block: Block) -> list[str] | None:
        """Returns the texts of a block without their places, if that is fast and none is rejected; else None."""
        return None
