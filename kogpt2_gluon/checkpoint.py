"""Checkpoints: folders that are whole or absent.

``CKPT_DIR/step-NNNNNNNN/`` holds ``model.params`` (fp32, in MXNet's format, the released files' names),
``optimizer.params`` (the optimizer's arrays, likewise), ``state.json``, ``recipe.yaml`` and ``tokenizer.model`` (so that
the folder alone is enough to generate, evaluate or convert) and ``manifest.json`` with size and hash of each.

Saving: everything is written and fsynced in a temporary folder, which is renamed as the last act; only then does the
text file ``latest`` move, and only after that are old checkpoints removed. A crash at any point leaves the previous
checkpoint in place. Nothing here is a pickle.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import numpy as np
import xxhash

from kogpt2_gluon.data.files import replace_file
from kogpt2_gluon.errors import DataError
from kogpt2_gluon.model.params_file import read_params, write_params
from kogpt2_gluon.recipe import Recipe, load_recipe

FORMAT_VERSION = 1
LATEST = "latest"
FOLDER = re.compile(r"step-(\d{8,})")
MODEL, OPTIMIZER, STATE, RECIPE, TOKENIZER = (
    "model.params",
    "optimizer.params",
    "state.json",
    "recipe.yaml",
    "tokenizer.model",
)
MANIFEST = "manifest.json"

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk whose manifest was read; :meth:`verify` reads the rest."""

    path: Path
    files: dict[str, dict[str, Any]]

    def verify(self) -> None:
        """Compares every file with the manifest; DataError names the first that differs."""
        for name, facts in self.files.items():
            file = self.path / name
            if not file.is_file() or file.stat().st_size != facts["bytes"] or _hash(file) != facts["xxh3_128"]:
                raise DataError(f"{file}: missing, truncated or damaged; remove {self.path} to go on from an older one")

    def state(self) -> dict[str, Any]:
        """Step, schedule, reader and fingerprints."""
        state: dict[str, Any] = json.loads((self.path / STATE).read_text(encoding="utf-8"))
        return state

    def recipe(self) -> Recipe:
        return load_recipe(str(self.path / RECIPE))

    def model_arrays(self) -> dict[str, np.ndarray]:
        """{structural name: float32 array}; the tied matrix under both its names."""
        return read_params(self.path / MODEL)

    def optimizer_arrays(self) -> dict[str, np.ndarray]:
        """{structural name:k : array}, k counting the optimizer's arrays of that parameter."""
        return read_params(self.path / OPTIMIZER)

    @property
    def tokenizer_path(self) -> Path:
        return self.path / TOKENIZER


def save_checkpoint(
    ckpt_dir: Path,
    state: Mapping[str, Any],
    model_arrays: Arrays,
    optimizer_arrays: Arrays,
    recipe: Recipe,
    tokenizer_path: Path,
    keep: int = 0,
) -> Path:
    """Writes ``step-N`` for ``state['step']`` and commits it; returns its folder. One process calls this."""
    ckpt_dir.mkdir(parents=True, exist_ok=True)
    final = ckpt_dir / f"step-{state['step']:08d}"
    temporary = ckpt_dir / f".{final.name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)  # left by a crash
    temporary.mkdir()
    write_params(temporary / MODEL, model_arrays)
    write_params(temporary / OPTIMIZER, optimizer_arrays)
    (temporary / STATE).write_text(json.dumps(dict(state), indent=1), encoding="utf-8")
    (temporary / RECIPE).write_text(recipe.to_yaml(), encoding="utf-8")
    shutil.copyfile(tokenizer_path, temporary / TOKENIZER)
    files = {file.name: {"bytes": file.stat().st_size, "xxh3_128": _hash(file)} for file in sorted(temporary.iterdir())}
    manifest = {"format_version": FORMAT_VERSION, "files": files}
    (temporary / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    for file in temporary.iterdir():
        _fsync(file)
    _fsync(temporary)
    shutil.rmtree(final, ignore_errors=True)  # the same step again, after a resume from before it
    temporary.rename(final)
    _fsync(ckpt_dir)
    with replace_file(ckpt_dir / LATEST) as file:
        file.write(f"{final.name}\n".encode())
    _remove_old(ckpt_dir, final, keep)
    return final


def open_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint that `path` means: its folder, the folder of checkpoints, or the run folder around that."""
    for folder in (path, *_latest_in(path), *_latest_in(path / "checkpoints")):
        if (folder / MANIFEST).is_file():
            return _read_manifest(folder)
    raise DataError(f"{path}: no checkpoint there (a folder step-NNNNNNNN, or one that holds such folders)")


def newest_checkpoint(ckpt_dir: Path) -> Optional[Checkpoint]:
    """The newest whole checkpoint, or None if there is none. A damaged newest one is an error, not passed over."""
    for folder in _latest_in(ckpt_dir):
        checkpoint = _read_manifest(folder)
        checkpoint.verify()
        return checkpoint
    return None


def _latest_in(ckpt_dir: Path) -> list[Path]:
    """Committed checkpoints, newest first. `latest` may lag by one crash, so the folders themselves decide."""
    if not ckpt_dir.is_dir():
        return []
    numbered = [(int(found[1]), folder) for folder in ckpt_dir.iterdir() if (found := FOLDER.fullmatch(folder.name))]
    return [folder for _, folder in sorted(numbered, reverse=True)]


def _read_manifest(folder: Path) -> Checkpoint:
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest["format_version"] != FORMAT_VERSION:
            raise DataError(f"{path}: format version {manifest['format_version']!r}; this program reads {FORMAT_VERSION}")
        files = {str(name): {"bytes": facts["bytes"], "xxh3_128": facts["xxh3_128"]} for name, facts in manifest["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: not a checkpoint's manifest ({type(error).__name__}: {error})") from None
    missing = {MODEL, OPTIMIZER, STATE, RECIPE, TOKENIZER} - files.keys()
    if missing or any(Path(name).name != name for name in files):
        raise DataError(f"{path}: does not list a checkpoint's files ({', '.join(sorted(missing)) or 'foreign names'})")
    return Checkpoint(folder, files)


def _remove_old(ckpt_dir: Path, newest: Path, keep: int) -> None:
    """Removes checkpoints after the `keep` newest, and those of later steps that a resume left behind."""
    folders = _latest_in(ckpt_dir)
    later = folders[: folders.index(newest)]
    for folder in later + (folders[folders.index(newest) + keep :] if keep else []):
        shutil.rmtree(folder)


def _hash(path: Path) -> str:
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
