"""Small fine-tuned checkpoints of every kind of head, with random weights that have opinions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from kogpt2_gluon.model.gpt2 import structural_parameters
from kogpt2_gluon.model.heads import HeadSizes, build_task_model
from kogpt2_gluon.recipe import parse_recipe
from kogpt2_gluon.runs.checkpoint import Checkpoint, open_checkpoint, save_checkpoint
from kogpt2_gluon.runs.saved_task import SavedTask, saved_task
from kogpt2_gluon.storage.tokenizer_file import SENTENCEPIECE, StoredTokenizer

TASKS: dict[str, dict[str, Any]] = {
    "class": {"head": "classification", "labels": ["bad", "보통", "good"]},
    "number": {"head": "regression", "value_range": [1.0, 5.0]},
    "tags": {"head": "token labels", "kinds": ["PS", "LC"]},
    "both": {"head": "joint", "labels": ["ask", "answer"], "kinds": ["time", "place"]},
    "pair": {"head": "classification", "labels": ["same", "other"], "is_pair": True},
}
SENTENCES = (
    "오늘은 날씨가 맑아서 강변을 걸었다.",
    "그 책은 아직",
    "  배우들의   연기가 훌륭했고 음악도 좋았다. 😀 ABC",
    "왜",
    "2024년 3월 5일, 서울에서 열린 회의에 120명이 참석했습니다.",
)


def task_state(kind: str) -> dict[str, Any]:
    """Returns what the state of a checkpoint says of its task."""
    plain = {"labels": [], "kinds": [], "is_pair": False, "value_range": [0.0, 0.0]}
    return {"name": f"made-{kind}", **plain, **TASKS[kind]}


def task_named(kind: str) -> SavedTask:
    task = saved_task({"task": task_state(kind)}, Path("here"))
    assert task
    return task


def make_fine_tuned(
    folder: Path,
    tokenizer: bytes,
    kind: str,
    name: str = SENTENCEPIECE,
    vocab_size: int = 501,
    seq_length: int = 48,
    moments: bool = False,
    change: Any = None,
    seed: int = 7,
) -> Checkpoint:
    """Saves a checkpoint below `folder`; `change` may change its arrays, `name` says the kind of its tokenizer."""
    task = task_named(kind)
    sizes = {"units": 32, "num_layers": 2, "num_heads": 4, "max_length": 64, "vocab_size": vocab_size}
    recipe = parse_recipe(
        {
            "name": "finetune",
            "model": sizes,
            "data": {"seq_length": seq_length},
            "task": {"name": "gone.yaml", "data": "gone"},
        }
    )
    net = build_task_model(recipe.model, HeadSizes(task.answers, len(task.tag_names), kind == "number"))
    draw = np.random.RandomState(seed)
    arrays = {
        each: draw.normal(1.0 if each.endswith("gamma") else 0.0, 0.3, parameter.shape).astype(np.float32)
        for each, parameter in structural_parameters(net).items()
    }
    if kind == "number":
        arrays["_head.weight"] *= 0.2
    if change:
        change(arrays)
    state = {
        "step": 40,
        "evaluation": {"step": 40, "attempt": 40, "loss": 0.25, "accuracy": 0.875},
        "task": task_state(kind),
    }
    optimizer = {f"{each}:{k}": array for each, array in arrays.items() for k in range(2 * moments)}
    stored = StoredTokenizer(name, tokenizer)
    return open_checkpoint(save_checkpoint(folder, state, arrays, optimizer, recipe, stored))
