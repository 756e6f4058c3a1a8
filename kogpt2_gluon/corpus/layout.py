"""The two ways in which a corpus and its parts store clean documents: one a line, or paragraphs.

A stored document is its text (UTF-8, no empty lines) and a line end, after one more line end if documents have several
lines. A file of the corpus begins with the text of its first document.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_BLANK_LINES = re.compile(rb"\n\n+")


@dataclass(frozen=True)
class Layout:
    """One way to store documents.

    `name` is written to ``corpus.json``, and is also the kind of documents that reads such a file as a source. `lead`
    is what a file has before each document but its first.
    """

    name: str
    lead: bytes

    @property
    def border(self) -> bytes:
        """The bytes between the texts of two documents."""
        return b"\n" + self.lead

    @property
    def is_one_line(self) -> bool:
        """True if a document is always one line."""
        return not self.lead

    def join(self, documents: list[bytes]) -> bytes:
        """Returns clean documents (UTF-8, no empty lines, no line end at the end) as files hold them."""
        if not documents:
            return b""
        return self.lead + self.border.join(documents) + b"\n"

    def split(self, data: bytes) -> list[bytes]:
        """Returns the texts of whole stored documents: `join`, undone."""
        if self.is_one_line:
            return data[: -1 if data.endswith(b"\n") else None].split(b"\n")
        return [text for text in _BLANK_LINES.split(data.strip(b"\n")) if text]


LINES = Layout("line", b"")
PARAGRAPHS = Layout("blank-line", b"\n")  # separated by a blank line
LAYOUTS = {layout.name: layout for layout in (LINES, PARAGRAPHS)}
