"""A file of lines, JSON objects or plain text, that is read more than once: what rows and prompts have in common."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kogpt2_gluon.corpus.sources import local_source
from kogpt2_gluon.errors import DataError
from kogpt2_gluon.tasks.public.text_lines import read_lines

JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")


class LineFile:
    """The lines of a file; see :func:`kogpt2_gluon.storage.read_again.readable_again`.

    Parameters
    ----------
    path : Path
    name : str
        What messages call the file; "": its path.
    """

    def __init__(self, path: Path, name: str = "") -> None:
        self._path, self.name = path, name or str(path)

    def lines(self) -> Iterator[tuple[int, str]]:
        """Yields each line with its number, from 1."""
        return read_lines(self._path)

    def suffix(self) -> str:
        """Returns that of the file's name, such as ".jsonl", but for one that says how it is compressed."""
        return local_source(self._path).suffix

    def first_line(self) -> str:
        """Returns the first line with something in it; "" if there is none."""
        return next((line for _, line in self.lines() if line.strip()), "")

    @contextmanager
    def named_errors(self) -> Iterator[None]:
        """Calls the temporary file of a pipe by the pipe's name."""
        try:
            yield
        except DataError as error:
            raise DataError(str(error).replace(str(self._path), self.name)) from None
