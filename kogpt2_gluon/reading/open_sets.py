"""The sets of shards and the tokenizer that a recipe names: found, opened, and checked to go together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Callable

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.reading.text.reader import load_text_tokenizer
from kogpt2_gluon.recipe import Recipe
from kogpt2_gluon.shards.format import MANIFEST, TOKENIZER, Manifest
from kogpt2_gluon.shards.shard_set import ShardSet
from kogpt2_gluon.tokens.tokenizer import Tokenizer


def training_tokenizer(recipe: Recipe) -> Tokenizer:
    """The tokenizer of a recipe's training data, of all its sets.

    RecipeError or DataError if there is none, it is not the shards' own, or it has more tokens than the model.
    """
    if recipe.data.source == "text":
        return load_text_tokenizer(recipe)
    if not recipe.data.train_sets:
        raise DataError("data.train is empty; name a folder that `kogpt2 shard` wrote: data.train=DIR")
    sets = [(Path(folder), Manifest.load(Path(folder))) for folder in recipe.data.train_sets]
    check_alike(sets)
    return _tokenizer_of(*sets[0], recipe)


def _tokenizer_of(folder: Path, manifest: Manifest, recipe: Recipe) -> Tokenizer:
    tokenizer = Tokenizer.load(folder / TOKENIZER)
    if tokenizer.sha256 != manifest.tokenizer_sha256:
        raise DataError(f"{tokenizer.path}: not the tokenizer that these shards were made with; make them again")
    manifest.compare_vocabulary(recipe.model.vocab_size, folder)
    return tokenizer


def open_shards(folder: str, key: str, recipe: Recipe, open_set: Callable[[Path], ShardSet] = ShardSet) -> ShardSet:
    """Opens a set of shards for a recipe; DataError if it is missing or holds ids that the model does not."""
    if key == "data.test" and not (Path(folder) / MANIFEST).is_file():
        raise DataError(f"{folder}: no shards there for data.test; name their folder, or train without any: data.test=")
    shards = open_set(Path(folder))
    try:
        _tokenizer_of(shards.folder, shards.manifest, recipe)
    except BaseException:
        shards.close()
        raise
    return shards


def open_held_out(recipe: Recipe, tokenizer: Tokenizer | None) -> ShardSet | None:
    """The held-out shards, None if the recipe names none; DataError if they are of another tokenizer than `tokenizer`.

    Without a `tokenizer` (no training data is named yet) only the set itself is checked.
    """
    if not recipe.data.test:
        return None
    held_out = open_shards(recipe.data.test, "data.test", recipe)
    if tokenizer and held_out.manifest.tokenizer_sha256 != tokenizer.sha256:
        held_out.close()
        raise DataError(f"{held_out.folder}: made with another tokenizer than {tokenizer.path}; shard the text again")
    return held_out


def check_alike(sets: Sequence[tuple[Path, Manifest]]) -> None:
    """DataError if sets, each (folder, manifest), cannot be read side by side."""
    (first_folder, first), seen = sets[0], dict[str, Path]()
    for folder, manifest in sets:
        for key in ("tokenizer_sha256", "vocab_size", "dtype", "special_ids"):
            ours, theirs = getattr(first, key), getattr(manifest, key)
            if ours != theirs:
                raise DataError(
                    f"{folder}: its {key} is {theirs}, that of {first_folder} is {ours}; "
                    "shard the text again with one tokenizer"
                )
        if (other := seen.setdefault(manifest.fingerprint(), folder)) is not folder:
            raise DataError(f"{folder}: the same shards as {other}; name them once in data.train")
