"""A fine-tuned checkpoint as a Hugging Face folder, for GPT2ForSequenceClassification or GPT2ForTokenClassification.

The heads are those of these classes (kogpt2_gluon/model/heads.py), so the arrays are renamed and nothing is rounded.
Neither MXNet nor PyTorch is needed.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from kogpt2_gluon.convert.fine_tuned_card import fine_tuned_card
from kogpt2_gluon.convert.framing import Padding, framing_files, padding_of
from kogpt2_gluon.convert.heads import ANSWER, SPANS, TAG, TAG_BIAS, WithoutHeads, head_arrays, heads_of, task_of
from kogpt2_gluon.convert.huggingface import (
    DTYPES,
    SIZES,
    check_tokenizer,
    model_config,
    shapes_of,
    write_json,
    write_weights,
)
from kogpt2_gluon.convert.names import Float32s, bytes_of, to_transformers
from kogpt2_gluon.convert.source import Source
from kogpt2_gluon.convert.target import refuse_occupied, target_folder
from kogpt2_gluon.convert.tokenizer_files import TokenizerFiles, read_tokenizer
from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.recipe_sections import ModelRecipe
from kogpt2_gluon.runs.saved_task import REGRESSION, SavedTask
from kogpt2_gluon.storage.lazy_arrays import LazyArrays

CLASSES = {False: "GPT2ForSequenceClassification", True: "GPT2ForTokenClassification"}  # whether tokens have labels
NAMES = {ANSWER: "score.weight", TAG: "classifier.weight", TAG_BIAS: "classifier.bias"}
EMBEDDING = "transformer.wte.weight"
VALUE = "value"  # the label of a number


def convert_fine_tuned(
    source: Source,
    out: Path,
    dtype: str = "float32",
    max_shard_size: int = 0,
    with_optimizer: bool = False,
    bos: bool = False,
    part: str = "",
) -> None:
    """Verifies a fine-tuned source and writes it as folder `out`, which appears complete or not at all.

    Parameters
    ----------
    source, out, dtype, max_shard_size
        As in :func:`~kogpt2_gluon.convert.huggingface.convert_checkpoint`.
    with_optimizer, bos : bool
        RecipeError if set: a fine-tuning goes on here alone, and the tokenizer frames rows by itself.
    part : str
        Which head, of a network with two: "class" or "spans".

    Raises what convert_checkpoint does, and DataError if the arrays are not those of the task.
    """
    if with_optimizer or bos:
        name = "--with-optimizer" if with_optimizer else "--bos"
        why = "convert --to checkpoint to go on with the fine-tuning" if with_optimizer else "its tokenizer frames rows"
        raise RecipeError(f"{name} is for language models, and {source.path} is fine-tuned; {why}")
    refuse_occupied(out)
    source.verify(optimizer=False)
    recipe, state, task = source.recipe(), source.state(), task_of(source)
    assert task is not None, source.path
    tokenizer = read_tokenizer(source.tokenizer_path)
    check_tokenizer(tokenizer, recipe.model)
    padding, has_tags = padding_of(tokenizer), (part or heads_of(task)[0]) == SPANS
    files = framing_files(tokenizer, padding, recipe.data.seq_length)
    model = replace(recipe.model, vocab_size=padding.rows(recipe.model))
    heads = {
        NAMES[name]: array for name, array in head_arrays(source, task).items() if (name == ANSWER) is not has_tags
    }
    body = to_transformers(WithoutHeads(source.model_arrays()), recipe.model, str(source.model_path))
    shapes = {**shapes_of(model), **{name: array.shape for name, array in heads.items()}}
    needed = bytes_of(model, SIZES[DTYPES[dtype]]) + 2 * sum(map(len, files.values()))  # and the head, a few kB
    with target_folder(out, needed) as folder:
        tensors = ChainMap(heads, _WithRows(body, model))  # type: ignore[arg-type]  # nothing writes to it
        write_weights(folder, tensors, shapes, DTYPES[dtype], max_shard_size)
        for name, content in files.items():
            (folder / name).write_bytes(content)
        config = {**task_config(task, model, tokenizer, padding, has_tags), "torch_dtype": dtype}
        write_json(folder / "config.json", config)
        card = fine_tuned_card(recipe, state, task, tokenizer, padding, dtype, has_tags)
        (folder / "README.md").write_text(card, encoding="utf-8")


def task_config(
    task: SavedTask, model: ModelRecipe, tokenizer: TokenizerFiles, padding: Padding, has_tags: bool
) -> dict[str, Any]:
    """Returns the content of config.json, which transformers reads as a GPT2Config."""
    labels = task.tag_names if has_tags else (VALUE,) if task.head == REGRESSION else task.labels
    own: dict[str, Any] = {
        "architectures": [CLASSES[has_tags]],
        "pad_token_id": padding.id,
        "id2label": {str(number): label for number, label in enumerate(labels)},
        "label2id": {label: number for number, label in enumerate(labels)},
    }
    if has_tags:
        own.update(classifier_dropout=0.0, hidden_dropout=0.0)  # the class has 0.1 before its head, ours has none
    else:
        own["problem_type"] = "regression" if task.head == REGRESSION else "single_label_classification"
    return {**model_config(model, tokenizer), **own}


class _WithRows(LazyArrays[None]):
    """The arrays of a body; the embedding has the rows that `model` says. New ones are 0: nothing attends to them."""

    def __init__(self, arrays: Mapping[str, Float32s], model: ModelRecipe) -> None:
        super().__init__(dict.fromkeys(arrays))
        self._arrays, self._rows = arrays, model.vocab_size

    def __getitem__(self, name: str) -> Float32s:
        array = self._arrays[name]
        if name != EMBEDDING or len(array) == self._rows:
            return array
        return np.concatenate([array, np.zeros((self._rows - len(array), array.shape[1]), np.float32)])
