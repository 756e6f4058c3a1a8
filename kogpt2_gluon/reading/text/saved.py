"""The saved state of the reader of text: what it must agree with, and what a changed sequence length does to it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.reading.saved_state import check_source
from kogpt2_gluon.reading.text.files import TextFiles

STATE_VERSION = 1
LENGTH = "data.seq_length"


@dataclass(frozen=True)
class TextSettings:
    """The settings that, with the files, decide the sequences. A resume refuses a change of any but seq_length."""

    tokenizer_sha256: str
    documents: str
    bpe_dropout: float
    seq_length: int
    seed: int


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _are_rows(value: Any, is_right: Callable[[list[Any]], bool]) -> bool:
    """Returns True for a list of lists that are right, one or more."""
    return isinstance(value, list) and bool(value) and all(isinstance(row, list) and is_right(row) for row in value)


def _is_text_file(row: list[Any]) -> bool:
    """Returns True for what :meth:`Source.to_row` makes: name, size and mark, perhaps with encoding and line end."""
    texts = [row[0], *row[2:]] if len(row) in (3, 5) else [None]
    return all(isinstance(text, str) for text in texts) and _is_count(row[1])


# What there is in a state, apart from source and version, and whether a value can be that.
FORM: dict[str, Callable[[Any], bool]] = {
    "settings": lambda value: isinstance(value, dict) and type(value.get("seq_length")) is int,
    "consumed": _is_count,
    "epoch": _is_count,
    "reported": _is_count,
    "share_read": lambda value: type(value) is float and 0 <= value <= 1,
    "unread": lambda value: type(value) is float and math.isfinite(value),
    "epoch_ended": lambda value: type(value) is bool,
    "history": lambda value: _are_rows(value, lambda row: len(row) > 1),
    "history_hash": lambda value: isinstance(value, str),
    "files": lambda value: _are_rows(value, _is_text_file),
    "workers": lambda value: _are_rows(value, lambda row: len(row) > 7 and all(map(_is_count, row))),
}


def saved_files(
    saved: Mapping[str, Any],
    settings: TextSettings,
    size: int,
    present: TextFiles,
    source: str,
    new_length: bool = False,
) -> TextFiles:
    """The files of a saved state; RecipeError or DataError if `size` workers cannot resume from it.

    With `new_length`, its seq_length may be another one.
    """
    check_source(saved, "text", STATE_VERSION, source)
    for key, is_right in FORM.items():
        if not is_right(saved.get(key, 0.0 if key == "unread" else None)):  # an earlier version has no "unread"
            raise DataError(f"{source}: not the state of a reader of text: {key} is not what a run writes there")
    for name, value in asdict(settings).items():
        if saved["settings"].get(name) != value and not (new_length and name == "seq_length"):
            raise DataError(
                f"{source}: its text was read with {name}={saved['settings'].get(name)}, now it is {value}; "
                "restore that value or start a new run"
            )
    if len(saved["workers"]) != size:
        raise RecipeError(
            f"{source}: saved by {len(saved['workers'])} workers, and data.source=text cannot resume with "
            f"{size}; run {len(saved['workers'])}, or shard the text (`kogpt2 shard`)"
        )
    files = TextFiles.from_state(saved["files"])
    if files.fingerprint != saved["history"][-1][1]:
        raise DataError(
            f"{source}: its list of text files does not match its fingerprint; resume from an earlier checkpoint"
        )
    files.check_kept(present, saved["epoch"])
    return files


def note_on_length(saved: Mapping[str, Any], settings: TextSettings) -> str:
    """Returns a line on what becomes of the epoch in progress if seq_length is not that of the saved state, else ""."""
    before, now = saved["settings"]["seq_length"], settings.seq_length
    if before == now:
        return ""
    epoch, share = saved["epoch"] + 1, saved["share_read"]
    left = f"{share:.2%} of its text was read, the rest is left out of it" if share else "nothing of it was read"
    return f"{LENGTH} {before} -> {now}: epoch {epoch} ends here: {left}; epoch {epoch + 1} begins with all of the text"
