"""The network's arrays in a checkpoint, read straight to where they are used and verified on the way."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from kogpt2_gluon.errors import DamagedError
from kogpt2_gluon.runs.manifest import FileFacts, read_as_written, same_as_written
from kogpt2_gluon.storage.codes_file import CodesFile
from kogpt2_gluon.storage.params_file import ParamsFile

EMBEDDING, TIED_COPY = "_embed.weight", "_logits_proj.weight"  # GPT-2's tied matrix


class Weights:
    """The network's arrays in a file, each once. `path` is the file.

    DataError if it is not a file of parameters, which can be the damage that its hashes find.
    """

    def __init__(self, path: Path, facts: FileFacts) -> None:
        self.path, self._facts = path, facts
        self._file = ParamsFile(path)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each array by its structural name; the tied matrix has the name of the embedding alone."""
        shapes = self._file.shapes
        if EMBEDDING in shapes:  # older checkpoints have two copies
            shapes.pop(TIED_COPY, None)
        return shapes

    def read_into(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Reads arrays into those given, which have their shapes, and compares all of the file with its hashes.

        DamagedError if it differs: nothing of it may be used then.
        """
        if not read_as_written(self.path, self._facts, self._file.parts(arrays)):
            raise damaged(self.path)


class CodedWeights(Weights):
    """Those of a file whose matrices are in codes, from which they are restored."""

    def __init__(self, path: Path, facts: FileFacts) -> None:
        self.path, self._facts = path, facts
        self._codes = CodesFile(path)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return self._codes.shapes

    def read_into(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        if not same_as_written(self.path, self._facts):
            raise damaged(self.path)
        for name, array in arrays.items():
            array[:] = self._codes[name]


def damaged(file: Path) -> DamagedError:
    """Returns the error for a file of a checkpoint that is not the one in its manifest."""
    return DamagedError(f"{file}: missing, truncated or damaged; an older checkpoint may be whole")
