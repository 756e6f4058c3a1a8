"""The saved state of the reader of text: what it must agree with, and what a changed sequence length does to it."""

from __future__ import annotations

from collections.abc import Mapping
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
