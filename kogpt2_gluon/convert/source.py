"""The sources of a conversion: a checkpoint, files of KoGPT2 v1, or a transformers folder of GPT-2.

Every target (:mod:`.huggingface`, :mod:`.original`, :mod:`.run_folder`) takes any :class:`Source`, so that a new source
reaches all targets and a new target is reached from all sources.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import xxhash
from numpy.typing import NDArray

from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.recipe import Recipe
from kogpt2_gluon.runs.checkpoint import Checkpoint, open_checkpoint

Arrays = Mapping[str, NDArray[Any]]

READ_BYTES = 1 << 24


class Source(Protocol):
    """A trained network with its tokenizer. :class:`~kogpt2_gluon.runs.checkpoint.Checkpoint` is one."""

    def verify(self, optimizer: bool = True) -> None:
        """DataError if something in it is damaged, as far as that can be known."""

    def recipe(self) -> Recipe:
        """Its sizes, and how it was trained as far as that is known."""

    def state(self) -> dict[str, Any]:
        """At least its "step"; 0 where that is unknown."""

    def model_arrays(self) -> Arrays:
        """{structural name: float32 array}, the tied matrix under both of its names; see :mod:`.names`."""

    def optimizer_arrays(self) -> Arrays:
        """{"structural name:k": float32 array}, the moments; empty where there are none."""

    @property
    def path(self) -> Path:
        """The folder or file that it is."""

    @property
    def model_path(self) -> Path:
        """The file of the arrays, for messages; the first of several."""

    @property
    def model_files(self) -> list[Path]:
        """All files of the arrays, in an order that is always the same."""

    @property
    def tokenizer_path(self) -> Path:
        """A SentencePiece model, or a tokenizer.json."""


def open_source(path: Path, tokenizer: Path | None = None, num_heads: int = 0) -> tuple[Source, list[str]]:
    """Opens whatever `path` is; returns it with lines that say what was left out or taken for granted.

    Parameters
    ----------
    path : Path
        A run, a checkpoint, a folder with config.json, or a file of parameters.
    tokenizer : Path, optional
        A SentencePiece model or tokenizer.json, for a file of parameters that has none next to it.
    num_heads : int
        Attention heads, for a file of parameters: nothing in it says how many there are. 0: units / 64, as GPT-2 has.

    Raises RecipeError or DataError, naming what cannot be converted.
    """
    # Here, because each of the two modules knows one format and this one knows both.
    from kogpt2_gluon.convert.original import OriginalFiles
    from kogpt2_gluon.convert.transformers_folder import CONFIG, TransformersFolder

    if path.is_dir() and (path / CONFIG).is_file():
        _refuse(path, tokenizer, num_heads, "its folder has its tokenizer and sizes")
        folder = TransformersFolder(path)
        return folder, folder.notes
    if path.is_file():
        files = OriginalFiles(path, tokenizer, num_heads)
        return files, files.notes
    _refuse(path, tokenizer, num_heads, "a checkpoint has its tokenizer and sizes")
    return open_checkpoint(path), []


def fingerprint_of(source: Source) -> str:
    """Returns a hash (xxh3, 128 bits, in hex) of the content of all files of a network's weights."""
    digest = xxhash.xxh3_128()
    for path in source.model_files:
        with path.open("rb") as file:
            while block := file.read(READ_BYTES):
                digest.update(block)
    return digest.hexdigest()


def verified_fingerprint_of(source: Source) -> str:
    """Verifies a network without its optimizer's state; returns what `fingerprint_of` does. Each file is read once."""
    if isinstance(source, Checkpoint):
        return source.verified_fingerprint()
    source.verify(optimizer=False)
    return fingerprint_of(source)


def network_fingerprint(path: str) -> str:
    """Returns the fingerprint of the network that `path` is. RecipeError or DataError if it is none."""
    return fingerprint_of(open_source(Path(path))[0])


def _refuse(path: Path, tokenizer: Path | None, num_heads: int, why: str) -> None:
    if tokenizer or num_heads:
        raise RecipeError(f"{path}: --tokenizer and --num-heads are for a file of parameters; {why}")
