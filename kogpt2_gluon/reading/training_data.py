"""A recipe's training data: shards, or text that is tokenized on the fly, by ``data.source``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kogpt2_gluon.machine.worker import Worker
from kogpt2_gluon.reading.open_sets import tokenizer_of_sets
from kogpt2_gluon.reading.reader import SequenceReader
from kogpt2_gluon.reading.shard_reader import check_shard_reader, open_shard_reader
from kogpt2_gluon.reading.text.reader import check_text_reader, load_text_tokenizer, open_text_reader
from kogpt2_gluon.recipe import Recipe
from kogpt2_gluon.tokens.tokenizer import Tokenizer


def training_tokenizer(recipe: Recipe) -> Tokenizer:
    """Returns the tokenizer of a recipe's training data. RecipeError or DataError if it is missing or does not fit."""
    return load_text_tokenizer(recipe) if recipe.data.source == "text" else tokenizer_of_sets(recipe)


def open_training_reader(
    recipe: Recipe,
    worker: Worker,
    saved_state: dict[str, Any] | None = None,
    source: str = "the checkpoint",
    changed: Mapping[str, Any] | None = None,
) -> SequenceReader:
    """Opens the reader of a recipe's training data on one worker; all workers open theirs together.

    Parameters
    ----------
    recipe : Recipe
    worker : Worker
    saved_state : dict, optional
        The state to go on from, as :meth:`Reader.state` returned it.
    source : str
        Where that state comes from, for messages.
    changed : mapping, optional
        Settings that this resume changes on purpose, by their keys, with their values in that state.

    Raises
    ------
    RecipeError or DataError
        The data does not fit the recipe, or the state is of other data or another order; the same on every worker.
    """
    open_reader = open_text_reader if recipe.data.source == "text" else open_shard_reader
    return open_reader(recipe, worker, saved_state, source, changed)


def check_training_reader(
    recipe: Recipe,
    worker: Worker,
    saved_state: dict[str, Any] | None = None,
    source: str = "the checkpoint",
    changed: Mapping[str, Any] | None = None,
) -> list[str]:
    """Raises what :func:`open_training_reader` would raise, and opens no reader.

    Returns lines on what it found: about text files, and about the place to go on from if that has changed.
    """
    check = check_text_reader if recipe.data.source == "text" else check_shard_reader
    return check(recipe, worker, saved_state, source, changed)
