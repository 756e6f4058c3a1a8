"""Files of prompts: JSON lines with a prompt, perhaps an id and settings of its own, or a prompt a line.

A file is read twice: first to find what is wrong with any line, so that no text is written before a bad line is found.
Standard input is kept in a temporary file meanwhile. Memory is one line, and a number for each id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from kogpt2_gluon.corpus.sources import local_source
from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.inference.text_settings import TextSettings, text_settings
from kogpt2_gluon.storage.read_again import readable_again
from kogpt2_gluon.tasks.public.json_records import object_of, text_of
from kogpt2_gluon.tasks.public.text_lines import read_lines
from kogpt2_gluon.tokens.tokenizer import Tokenizer

JSON_SUFFIXES, TEXT_SUFFIX = (".jsonl", ".ndjson", ".json"), ".txt"
PROMPT, ID = "prompt", "id"


class Prompt(NamedTuple):
    """A prompt of a file.

    Attributes
    ----------
    line : int
        Its number in the file, from 1.
    id : str, int or None
    text : str
    settings : TextSettings
        Those of the command line, and its own.
    own : dict
        Its own settings, as written.
    """

    line: int
    id: str | int | None
    text: str
    settings: TextSettings
    own: dict[str, Any]


class Found(NamedTuple):
    """Counts the lines of a file."""

    prompts: int
    empty_lines: int


class PromptFile:
    """The prompts of a file, in its order; they can be iterated over more than once.

    Parameters
    ----------
    path : Path
    name : str
        What messages call it.
    plain : dict
        The settings of the command line.
    tokenizer : Tokenizer

    DataError, which names the line, for whatever is no prompt; RecipeError for its settings.
    """

    def __init__(self, path: Path, name: str, plain: dict[str, Any], tokenizer: Tokenizer) -> None:
        self._path, self.name, self._plain, self._tokenizer = path, name, plain, tokenizer
        self._settings = text_settings(plain, tokenizer)
        with self._named_errors():
            self._is_json = self._has_json()

    def __iter__(self) -> Iterator[Prompt]:
        with self._named_errors():
            for number, line in read_lines(self._path):
                if line.strip():
                    yield self._prompt(number, line)

    def check(self) -> Found:
        """Reads all of it. DataError for a bad line, an id that comes twice, or a file without prompts."""
        lines: dict[bytes, int] = {}
        count = 0
        for prompt in self:
            count += 1
            if prompt.id is not None:
                key = hashlib.blake2b(repr(prompt.id).encode("utf-8", "surrogatepass"), digest_size=16).digest()
                if key in lines:
                    raise DataError(
                        f"{self.name}, line {prompt.line}: the id {prompt.id!r} is that of line {lines[key]} too"
                    )
                lines[key] = prompt.line
        if not count:
            raise DataError(f"{self.name}: has no prompt")
        with self._named_errors():
            return Found(count, sum(1 for _, line in read_lines(self._path) if not line.strip()))

    def _prompt(self, number: int, line: str) -> Prompt:
        where = f"{self.name}, line {number}"
        if not self._is_json:
            return Prompt(number, None, line, self._settings, {})
        record = object_of(where, line)
        text = text_of(where, record, PROMPT)
        own = {key: value for key, value in record.items() if key not in (PROMPT, ID)}
        identity = record.get(ID)
        if identity is not None and (isinstance(identity, bool) or not isinstance(identity, (str, int))):
            raise DataError(f"{where}: id must be a text or a whole number")
        if isinstance(identity, str):
            text_of(where, record, ID)  # it can be written
        if not own:
            return Prompt(number, identity, text, self._settings, own)
        try:
            settings = text_settings({**self._plain, **own}, self._tokenizer)
        except RecipeError as error:
            raise DataError(f"{where}: {error}") from None
        return Prompt(number, identity, text, settings, own)

    def _has_json(self) -> bool:
        suffix = local_source(self._path).suffix
        if suffix in (*JSON_SUFFIXES, TEXT_SUFFIX):
            return suffix != TEXT_SUFFIX
        first = next((line for _, line in read_lines(self._path) if line.strip()), "")
        return first.lstrip().startswith("{")

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        """Calls the temporary file of a pipe by the pipe's name."""
        try:
            yield
        except DataError as error:
            raise DataError(str(error).replace(str(self._path), self.name)) from None


@contextmanager
def open_prompts(path: Path, plain: dict[str, Any], tokenizer: Tokenizer) -> Iterator[PromptFile]:
    """Opens a file of prompts; "-" is standard input. DataError if there is none."""
    with readable_again(path, f"--prompts {path}: no such file") as (file, name):
        yield PromptFile(file, name, plain, tokenizer)
