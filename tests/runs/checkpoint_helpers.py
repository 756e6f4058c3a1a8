"""A small checkpoint of arrays that make no network, and what it should be when it comes back."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kogpt2_gluon.recipe import Recipe, parse_recipe
from kogpt2_gluon.runs import checkpoint as module
from kogpt2_gluon.runs.checkpoint import ONLY_AS_BEST, Checkpoint, save_checkpoint
from kogpt2_gluon.storage import files as files_module
from kogpt2_gluon.storage.tokenizer_file import stored_tokenizer

FILES = ["model.params", "optimizer.params", "recipe.yaml", "state.json", "tokenizer.model"]
RECIPE = parse_recipe({"name": "a test", "about": "한국어", "model": {"units": 16, "num_heads": 2, "num_layers": 1}})

# Calls of a save at which a test may let it fail.
OPERATIONS = [
    (module, "write_params"),
    (module.shutil, "copyfile"),
    (Path, "write_text"),
    (Path, "rename"),
    (Path, "replace"),
    (files_module.os, "fsync"),
    (module, "_remove_old"),
]


def arrays(seed: int) -> dict[str, np.ndarray]:
    draw = np.random.RandomState(seed)
    return {
        "_embed.weight": draw.randn(7, 3).astype("float32"),
        "_final_ln.gamma": np.array([np.inf, -0.0, np.float32(1e-45), np.nan], dtype="float32"),
        "_ffn_layers.0._hidden_map.bias": draw.randn(5).astype("float32"),
    }


def moments(seed: int) -> dict[str, np.ndarray]:
    """Two arrays a parameter, one of them a view that runs backwards."""
    return {f"{name}:{k}": array[:: 1 - 2 * k] for name, array in arrays(seed).items() for k in (0, 1)}


def save(ckpt_dir: Path, step: int, keep: int = 0, recipe: Recipe = RECIPE, keep_every: int = 0) -> Path:
    tokenizer = ckpt_dir.parent / "source.model"
    tokenizer.parent.mkdir(parents=True, exist_ok=True)
    tokenizer.write_bytes(b"not a real tokenizer, but its bytes")
    state = {"step": step, "loss_scale": 0.1 + 0.2, "reader": {"consumed": step * 8}, "evaluation": None}
    stored = stored_tokenizer(tokenizer)
    return save_checkpoint(ckpt_dir, state, arrays(step), moments(step), recipe, stored, keep, keep_every=keep_every)


def save_best(ckpt_dir: Path, step: int, best: int | None, keep: int = 2, only: bool = False, course: int = 0) -> Path:
    """Saves a step; the best one is `best`. `only`: for no other reason. `course` marks the state."""
    ckpt_dir.mkdir(parents=True, exist_ok=True)
    tokenizer = ckpt_dir.parent / "source.model"
    tokenizer.write_bytes(b"a tokenizer")
    state = {"step": step, "course": course, ONLY_AS_BEST: only}
    return save_checkpoint(
        ckpt_dir, state, arrays(step), moments(step), RECIPE, stored_tokenizer(tokenizer), keep, best
    )


def steps(ckpt_dir: Path) -> list[int]:
    return sorted(int(folder.name[5:]) for folder in ckpt_dir.iterdir() if folder.name.startswith("step-"))


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    """Names in order, dtypes and bits."""
    return list(one) == list(other) and all(
        array.dtype == other[name].dtype
        and array.shape == other[name].shape
        and array.tobytes() == other[name].tobytes()
        for name, array in one.items()
    )


def check_whole(checkpoint: Checkpoint, step: int) -> None:
    checkpoint.verify()
    assert checkpoint.path.name == f"step-{step:08d}"
    assert checkpoint.state()["step"] == step
    found = dict(checkpoint.model_arrays())
    assert found.pop("_logits_proj.weight") is not None and same(found, arrays(step))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])
