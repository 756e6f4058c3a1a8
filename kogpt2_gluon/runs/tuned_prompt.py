"""A tuned prompt by itself, in kilobytes: a folder of peft's, or its file of weights, which names its network.

``adapter_model.safetensors`` holds the vectors under peft's own name. Its metadata, which peft does not read, has the
fingerprint of the network that the prompt was tuned on: in front of any other network the vectors mean nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.runs.checkpoint import HEADS, PROMPT, TIED_COPY, Checkpoint
from kogpt2_gluon.storage.safetensors_file import SafetensorsFile, write_safetensors

WEIGHTS, VECTORS = "adapter_model.safetensors", "prompt_embeddings"  # peft's names of the file and of the array in it
BODY, TUNED_BY = "kogpt2_body", "kogpt2_run"  # in the metadata: the network's fingerprint; the run and its step

Floats = NDArray[np.float32]


class TunedPrompt(NamedTuple):
    """Vectors in front of a text.

    Attributes
    ----------
    vectors : (prompt_length, units) float32
    body : str
        The fingerprint of the network that they were tuned on.
    path : Path
        The file.
    """

    vectors: Floats
    body: str
    path: Path


def body_fingerprint(arrays: Mapping[str, NDArray[Any]]) -> str:
    """SHA-256 (hex) of a network's arrays, {structural name: array}, but for a task's heads and a prompt."""
    found = hashlib.sha256()
    for name in sorted(name for name in arrays if name not in (*HEADS, PROMPT, TIED_COPY)):
        array = np.ascontiguousarray(arrays[name], dtype="<f4")
        found.update(f"{name}{array.shape}".encode())
        found.update(array.reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def write_tuned_prompt(path: Path, vectors: Floats, body: str, tuned_by: str) -> None:
    """Writes vectors (prompt_length, units) as a file of peft's; `tuned_by` is for people."""
    write_safetensors(path, {VECTORS: vectors}, {VECTORS: vectors.shape}, metadata={BODY: body, TUNED_BY: tuned_by})


def read_tuned_prompt(path: Path) -> TunedPrompt:
    """Reads a prompt from such a file, or from the folder that holds it. DataError if it is none."""
    path = path / WEIGHTS if path.is_dir() else path
    file = SafetensorsFile(path)
    body = file.metadata.get(BODY) if isinstance(file.metadata, dict) else None
    if set(file) != {VECTORS} or not isinstance(body, str):
        raise DataError(f"{path}: is no tuned prompt of kogpt2; kogpt2 convert RUN OUT --to peft writes them")
    vectors = file[VECTORS]
    if vectors.ndim != 2 or not vectors.size or vectors.dtype.kind != "f" or not np.isfinite(vectors).all():
        raise DataError(f"{path}: {VECTORS} is {vectors.dtype} of shape {vectors.shape}, or not finite: damaged")
    return TunedPrompt(vectors.astype(np.float32), body, path)


def prompts_for(checkpoint: Checkpoint, paths: Sequence[Path]) -> list[Floats]:
    """Reads prompts that were tuned on the network of a checkpoint; returns their vectors.

    DataError for one of another network, or one that leaves no position for a text; RecipeError if the network has a
    tuned prompt of its own.
    """
    recipe = checkpoint.recipe()
    if recipe.adaptation.method == "prompt":
        raise RecipeError(
            f"{checkpoint.path}: has a tuned prompt of its own, which is in front of every text; another one goes with "
            f"the network that it was tuned on, {recipe.training.init_from}"
        )
    found = [read_tuned_prompt(path) for path in paths]
    fingerprint = body_fingerprint(checkpoint.model_arrays())
    for prompt in found:
        if prompt.body != fingerprint:
            raise DataError(
                f"{prompt.path}: was tuned on another network than {checkpoint.path} (fingerprint {prompt.body[:12]} "
                f"there and {fingerprint[:12]} here), and means nothing in front of this one"
            )
        if len(prompt.vectors) >= recipe.model.max_length or prompt.vectors.shape[1] != recipe.model.units:
            raise DataError(
                f"{prompt.path}: vectors {prompt.vectors.shape} leave no position for a text, or are damaged"
            )
    return [prompt.vectors for prompt in found]
