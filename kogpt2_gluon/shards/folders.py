"""Sets of shards as folders: the names of their files, and how to find them in DIR, DIR/train, DIR/news/train, ..."""

from __future__ import annotations

import os
from pathlib import Path

from kogpt2_gluon.corpus.store import SPLITS
from kogpt2_gluon.errors import DataError
from kogpt2_gluon.storage.tokenizer_file import SENTENCEPIECE

MANIFEST = "manifest.json"
TOKENIZER = SENTENCEPIECE  # unless it is a tokenizer.json: see `tokenizer_in`
SUFFIX = ".ktok"  # of a shard's name
ASIDE = "damaged"  # the folder inside a set that takes what a repair moves out of the set
ANY_DEPTH = 100


def set_folders(folder: Path, depth: int = ANY_DEPTH) -> list[Path]:
    """Lists the sets of shards in `folder` and at most `depth` levels below it; train comes before test.

    A folder is a set if it holds shards, or a manifest that names shards. Hidden and unfinished folders, and what a
    repair moved aside, do not count. Links to folders are followed, but not to a folder that was seen already, nor to a
    parent of `folder`. DataError if a folder cannot be listed.
    """
    found: list[Path] = []
    if folder.is_dir():
        seen = {_identity(parent) for parent in folder.resolve().parents}
        _collect(folder, depth, seen, found)
    return found


def _collect(folder: Path, depth: int, seen: set[tuple[int, int]], found: list[Path]) -> None:
    if (identity := _identity(folder)) in seen:
        return
    seen.add(identity)
    try:
        with os.scandir(folder) as listing:
            entries = list(listing)
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed: {error.strerror}") from None
    files = [each.name for each in entries if not _is_folder(each)]
    is_set = any(name.endswith(SUFFIX) for name in files) or (MANIFEST in files and _names_shards(folder / MANIFEST))
    if is_set:
        found.append(folder)
    if depth == 0:
        return
    below = [each for each in entries if _is_folder(each) and not _is_left_out(each.name, is_set)]
    for each in sorted(below, key=lambda each: (each.is_symlink(), _place(each.name))):
        _collect(folder / each.name, depth - 1, seen, found)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a circle of links
        return False


def _names_shards(manifest: Path) -> bool:
    """Returns True if a manifest names shards: other folders, such as checkpoints, have a file of this name too."""
    try:
        return SUFFIX.encode() in manifest.read_bytes()
    except OSError:
        return True  # loading the set will report the fault


def _is_left_out(name: str, in_set: bool) -> bool:
    return name.startswith(".") or name.endswith(".partial") or name == "lost+found" or (in_set and name == ASIDE)


def _place(name: str) -> tuple[int, str]:
    return SPLITS.index(name) if name in SPLITS else len(SPLITS), name


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def why_no_manifest(folder: Path) -> str:
    """Returns the error message for a folder that should be a set of shards and has no manifest."""
    place = str(folder)
    if place.startswith("s3:/"):
        url = "s3://" + place[len("s3:/") :].lstrip("/")  # Path makes one slash of two
        return f"{url}: a set of shards is read from a folder; run first: kogpt2 files download {url} DIR"
    if not folder.exists():
        return f"{folder}: does not exist; make shards with `kogpt2 shard`"
    try:
        below = set_folders(folder, depth=3)
    except (DataError, OSError):
        below = []
    below = [each for each in below if each != folder]
    meant = [each for each in below if each.name != "test"] or below
    if meant:
        return f"{folder}: no {MANIFEST} there; did you mean {' or '.join(map(str, meant[:3]))}?"
    return f"{folder}: no {MANIFEST} there; make shards with `kogpt2 shard`"
