"""Heads of fine-tuned networks, as sources of a conversion have them: found, checked, or left out.

A checkpoint of a fine-tuned network has the body of a GPT-2, the arrays of its heads, and its task. A conversion takes
all of it where the target has a place for a head, or a part: the body alone, or one head of two.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kogpt2_gluon.convert.source import Source
from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.recipe import Recipe
from kogpt2_gluon.recipe_sections import DataRecipe
from kogpt2_gluon.runs.checkpoint import HEADS, PROMPT
from kogpt2_gluon.runs.saved_task import JOINT, TOKEN_LABELS, SavedTask, saved_task
from kogpt2_gluon.storage.lazy_arrays import LazyArrays

Array = NDArray[Any]

ANSWER, TAG, TAG_BIAS = HEADS
BODY, CLASS, SPANS = "body", "class", "spans"
PARTS = (BODY, CLASS, SPANS)  # of a fine-tuned network; "": all of it
BODY_OF = "body_of"  # in the state of a body: the name of the task that it was fine-tuned for


def task_of(source: Source) -> SavedTask | None:
    """Returns the task that a source was fine-tuned for, None if it is a language model. DataError if it is damaged."""
    return saved_task(source.state(), source.path)


def check_part(source: Source, target: str, part: str) -> None:
    """Raises RecipeError, with the way out, if a target has no place for what would be converted."""
    task = task_of(source)
    if has_prompt(source):
        _check_prompted(source, task, target, part)
        return
    if target == "peft":
        raise RecipeError(
            f"{source.path} has no tuned prompt, which is what is written for peft; LoRA's matrices are merged: --to "
            "huggingface"
        )
    if task is None:
        if part:
            raise RecipeError(f"--part {part} is for fine-tuned networks; {source.path} is a language model")
        return
    if part == BODY:
        return
    if part and target != "huggingface":
        raise RecipeError(f"--part {part} is for --to huggingface, not for {target}")
    if part and part not in (has := heads_of(task)):
        raise RecipeError(f"--part {part}: {source.path} is fine-tuned for {task.name} and has {' and '.join(has)}")
    if target not in ("huggingface", "checkpoint"):
        raise RecipeError(
            f"{source.path} is fine-tuned for {task.name}, and {target} has no place for its head; convert it --to "
            "huggingface, or leave the head out with --part body"
        )
    if target == "huggingface" and task.head == JOINT and not part:
        raise RecipeError(
            f"{source.path} is fine-tuned for {task.name}: no class of transformers has both of its heads; convert "
            "one with --part class, the other with --part spans"
        )


def has_prompt(source: Source) -> bool:
    """Returns True if a source is a network with a tuned prompt."""
    return source.recipe().adaptation.method == "prompt"


def _check_prompted(source: Source, task: SavedTask | None, target: str, part: str) -> None:
    """Raises RecipeError unless a tuned prompt is left out, or goes where there is a place for it."""
    if part == BODY and target != "peft":
        return
    if part:
        raise RecipeError(f"--part {part}: {source.path} has a tuned prompt; --to peft writes that, and no part of it")
    if target != "peft":
        raise RecipeError(
            f"{source.path} has a tuned prompt, and {target} has no place for it; write the prompt with --to peft, and "
            "the network without it with --part body"
        )
    if task:
        raise RecipeError(
            f"{source.path} is fine-tuned for {task.name}: what peft loads has a place for its prompt and none for its "
            "head; kogpt2 predict uses both"
        )


def heads_of(task: SavedTask) -> tuple[str, ...]:
    """Returns which of the parts CLASS and SPANS a network of a task has; CLASS also stands for a number."""
    return (CLASS,) * (task.answers > 0) + (SPANS,) * (task.head in (TOKEN_LABELS, JOINT))


def head_arrays(source: Source, task: SavedTask) -> dict[str, Array]:
    """Reads the arrays of a task's heads, {structural name: float32}. DataError if they are not those of the task."""
    units, arrays = source.recipe().model.units, source.model_arrays()
    shapes = {
        **({ANSWER: (task.answers, units)} if task.answers else {}),
        **({TAG: (len(task.tag_names), units), TAG_BIAS: (len(task.tag_names),)} if task.tag_names else {}),
    }
    there = {name for name in HEADS if name in arrays}
    for name in sorted(there ^ shapes.keys()):
        raise DataError(f"{source.model_path}: {name} is in one of its arrays and its task {task.name} only")
    found = {name: arrays[name] for name in shapes}
    for name, array in found.items():
        if array.shape != shapes[name] or array.dtype != np.float32:
            raise DataError(
                f"{source.model_path}: {name} is {array.dtype} of shape {array.shape}; its task {task.name} makes it "
                f"float32 of {shapes[name]}"
            )
    return found


class WithoutHeads(LazyArrays[None]):
    """The arrays of a network but for those of its heads and its tuned prompt."""

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        super().__init__(dict.fromkeys(name for name in arrays if name not in (*HEADS, PROMPT)))
        self._arrays = arrays

    def __getitem__(self, name: str) -> Array:
        if name not in self._places:
            raise KeyError(name)
        return self._arrays[name]


class Body:
    """A fine-tuned network without its heads and tuned prompt, as a source: a language model that was trained for more.

    `task` is None if it has a tuned prompt only.
    """

    def __init__(self, source: Source, task: SavedTask | None) -> None:
        self._source, self._name = source, task.name if task else "prompt"

    @property
    def whole(self) -> Source:
        """The network with its heads."""
        return self._source

    def verify(self, optimizer: bool = True) -> None:
        self._source.verify(optimizer=False)

    def recipe(self) -> Recipe:
        """Returns its sizes; how it was trained is no recipe of a language model."""
        recipe = self._source.recipe()
        data = DataRecipe(seq_length=recipe.data.seq_length)
        return Recipe(name=f"{self._name}-body", model=recipe.model, data=data)

    def state(self) -> dict[str, Any]:
        return {"step": 0, BODY_OF: self._name}

    def model_arrays(self) -> Mapping[str, Array]:
        return WithoutHeads(self._source.model_arrays())

    def optimizer_arrays(self) -> Mapping[str, Array]:
        return {}

    @property
    def path(self) -> Path:
        return self._source.path

    @property
    def model_path(self) -> Path:
        return self._source.model_path

    @property
    def model_files(self) -> list[Path]:
        return self._source.model_files

    @property
    def tokenizer_path(self) -> Path:
        return self._source.tokenizer_path
