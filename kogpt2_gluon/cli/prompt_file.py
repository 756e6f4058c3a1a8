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

from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.inference.text_settings import TextSettings, text_settings
from kogpt2_gluon.storage.read_again import readable_again
from kogpt2_gluon.tasks.line_file import JSON_SUFFIXES, LineFile
from kogpt2_gluon.tasks.public.json_records import object_of, text_of
from kogpt2_gluon.tokens.tokenizer import Tokenizer

TEXT_SUFFIX = ".txt"
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


class PromptFile(LineFile):
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
        super().__init__(path, name)
        self._plain, self._tokenizer = plain, tokenizer
        self._settings = text_settings(plain, tokenizer)
        with self.named_errors():
            self._is_json = self._has_json()

    def __iter__(self) -> Iterator[Prompt]:
        with self.named_errors():
            for number, line in self.lines():
                if line.strip():
                    yield self._prompt(number, line)

    def check(self) -> Found:
        """Reads all of it. DataError for a bad line, an id that comes twice, or a file without prompts."""
        lines: dict[bytes, int] = {}
        prompts = empty_lines = 0
        with self.named_errors():
            for number, line in self.lines():
                if not line.strip():
                    empty_lines += 1
                    continue
                prompts += 1
                self._check_id(self._prompt(number, line), lines)
        if not prompts:
            raise DataError(f"{self.name}: has no prompt")
        return Found(prompts, empty_lines)

    def _check_id(self, prompt: Prompt, lines: dict[bytes, int]) -> None:
        """Raises DataError if a prompt's id came before; `lines` has the lines of hashed ids, and gets this one."""
        if prompt.id is None:
            return
        key = hashlib.blake2b(repr(prompt.id).encode("utf-8", "surrogatepass"), digest_size=16).digest()
        if key in lines:
            raise DataError(f"{self.name}, line {prompt.line}: the id {prompt.id!r} is that of line {lines[key]} too")
        lines[key] = prompt.line

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
        suffix = self.suffix()
        if suffix in (*JSON_SUFFIXES, TEXT_SUFFIX):
            return suffix != TEXT_SUFFIX
        return self.first_line().lstrip().startswith("{")


@contextmanager
def open_prompts(path: Path, plain: dict[str, Any], tokenizer: Tokenizer) -> Iterator[PromptFile]:
    """Opens a file of prompts; "-" is standard input. DataError if there is none."""
    with readable_again(path, f"--prompts {path}: no such file") as (file, name):
        yield PromptFile(file, name, plain, tokenizer)
