"""Folders for the tests of the tools that read them, and the commands and programs of docs/after.md."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import pytest
from sentencepiece import SentencePieceProcessor

from kogpt2_gluon.convert.huggingface import convert_checkpoint
from tests.convert.convert_helpers import train, with_rows
from tests.convert.kinds_of_lines import LINES, TEXTS
from tests.helpers import REAL_TEXT, ROOT
from tests.words.documents import commands, fenced

AFTER = ROOT / "docs" / "after.md"
REVIEWS = REAL_TEXT / "lm" / "nsmc_raw_reviews.txt"
PROFILES = ("nmt_nfkc", "nmt_nfkc_jamo", "lossless")
MAX_LENGTH = 64


class Converted(NamedTuple):
    """A folder that `kogpt2 convert` wrote, and the SentencePiece model that its tokenizer comes from."""

    folder: Path
    model: SentencePieceProcessor


def reviews(first: int, count: int) -> list[str]:
    """Real reviews; none where they are not."""
    if not REVIEWS.is_file():
        return []
    with REVIEWS.open(encoding="utf-8") as file:
        return [line.rstrip("\n") for line in islice(file, first, first + count)]


def convert_profile(folder: Path, profile: str, bos: bool = False) -> Converted:
    """Converts a tiny network into `folder`. Its tokenizer has this profile, and real words where there are reviews."""
    tokenizer = train([*TEXTS, *reviews(0, 5000)], 3000, profile=profile)
    model = SentencePieceProcessor(model_proto=tokenizer)
    run = with_rows(folder.with_name(f"{folder.name}-run"), tokenizer, model.vocab_size())
    convert_checkpoint(run, folder, bos=bos)
    return Converted(folder, model)


def differing_kinds(model: SentencePieceProcessor, ids: list[list[int]]) -> set[str]:
    """The kinds of those LINES to which a tool gives other ids than SentencePiece."""
    expected = model.encode([line for _, line in LINES])
    return {kind for (kind, _), ours, theirs in zip(LINES, expected, ids) if ours != theirs}


def some_ids(model: SentencePieceProcessor) -> list[list[int]]:
    """Documents of several lengths, each with `<s>` in front."""
    draw = random.Random(3)
    return [[1, *draw.choices(range(4, model.vocab_size()), k=length)] for length in (0, 1, 5, MAX_LENGTH - 1)]


def run_command(name: str) -> None:
    """Runs the one command of docs/after.md with this name, in this process and the working folder."""
    [command] = [each for each in commands(AFTER) if each.words[0] == name]
    found = entry_points(group="console_scripts") if sys.version_info >= (3, 10) else entry_points()["console_scripts"]
    [entry] = [each for each in found if each.name == name]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", command.words)
        try:
            entry.load()()
        except SystemExit as end:
            assert not end.code, (command, end.code)


def program(word: str, language: str = "python") -> str:
    """The one program of docs/after.md in which `word` occurs."""
    [found] = [text for _, text in fenced(AFTER, language) if word in text]
    return found


@contextmanager
def my_model(converted: Converted, folder: Path) -> Iterator[Path]:
    """Makes `folder` the working folder, and `my-model` in it the converted one, as in docs/after.md."""
    folder.mkdir(exist_ok=True)
    (folder / "my-model").symlink_to(converted.folder, target_is_directory=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder
