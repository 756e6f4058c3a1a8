"""Opens the sets of shards that a recipe names, with their tokenizer, and checks that they fit together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Callable

from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.reading.mix import Mix, shares_of
from kogpt2_gluon.reading.order import (
    MIN_CHUNKS_PER_LANE,
    SMALL_SET_BYTES,
    ChunkOrder,
    Order,
    SequenceOrder,
    choose_lanes,
)
from kogpt2_gluon.recipe import Recipe
from kogpt2_gluon.shards.format import MANIFEST, Manifest
from kogpt2_gluon.shards.shard_set import ShardSet
from kogpt2_gluon.storage.tokenizer_file import tokenizer_in
from kogpt2_gluon.tokens.tokenizer import Tokenizer


def tokenizer_of_sets(recipe: Recipe) -> Tokenizer:
    """Returns the tokenizer that a recipe's training sets were made with.

    RecipeError or DataError if there is none, it is not the shards' own, or it has more tokens than the model.
    """
    if not recipe.data.train_sets:
        raise DataError("data.train is empty; name a folder that `kogpt2 shard` wrote: data.train=DIR")
    sets = [(Path(folder), Manifest.load(Path(folder))) for folder in recipe.data.train_sets]
    check_alike(sets)
    return _tokenizer_of(*sets[0], recipe)


def _tokenizer_of(folder: Path, manifest: Manifest, recipe: Recipe) -> Tokenizer:
    tokenizer = Tokenizer.load(tokenizer_in(folder))
    if tokenizer.sha256 != manifest.tokenizer_sha256:
        raise DataError(f"{tokenizer.path}: not the tokenizer that these shards were made with; make them again")
    manifest.compare_vocabulary(recipe.model.vocab_size, folder)
    return tokenizer


def open_shards(folder: str, key: str, recipe: Recipe, open_set: Callable[[Path], ShardSet] = ShardSet) -> ShardSet:
    """Opens a set of shards for a recipe; DataError if it is missing or has ids that the model does not have."""
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
    """Opens the held-out shards; returns None if the recipe names none.

    DataError if they were made with another tokenizer than `tokenizer`. Without one (no training data is named yet),
    only the set itself is checked.
    """
    if not recipe.data.test:
        return None
    held_out = open_shards(recipe.data.test, "data.test", recipe)
    if tokenizer and held_out.manifest.tokenizer_sha256 != tokenizer.sha256:
        held_out.close()
        raise DataError(f"{held_out.folder}: made with another tokenizer than {tokenizer.path}; shard the text again")
    return held_out


def check_alike(sets: Sequence[tuple[Path, Manifest]]) -> None:
    """Raises DataError if sets, each (folder, manifest), cannot be mixed, or if one is named twice."""
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


def training_mix(sets: Sequence[ShardSet], recipe: Recipe, size: int) -> Mix:
    """Returns the order in which `size` workers read `sets` for a recipe from its beginning.

    RecipeError if so many workers cannot share the lanes, DataError if the sets do not go together or are too small.
    """
    check_alike([(shards.folder, shards.manifest) for shards in sets])
    lanes = lanes_of(sets, recipe)
    check_lanes(lanes, size, sets, recipe)
    return mix_of(sets, recipe, lanes)


def lanes_of(sets: Sequence[ShardSet], recipe: Recipe) -> int:
    """Returns the number of lanes that a recipe's order of `sets` has from its beginning."""
    return choose_lanes(min(map(_chunks_that_count, sets)), recipe.training.total_batch_size, recipe.data.max_lanes)


def check_lanes(lanes: int, size: int, sets: Sequence[ShardSet], recipe: Recipe) -> None:
    """Raises RecipeError if `size` workers cannot share so many lanes."""
    if lanes % size:
        fewest = min(sets, key=_chunks_that_count)
        raise RecipeError(
            f"{size} workers cannot share the {lanes} reading lanes of {fewest.folder} "
            f"({fewest.num_chunks} chunks, training.total_batch_size={recipe.training.total_batch_size}, "
            f"data.max_lanes={recipe.data.max_lanes}); {_way_out(size, lanes)}"
        )


def mix_of(sets: Sequence[ShardSet], recipe: Recipe, lanes: int, seq_length: int = 0, course: int = 0) -> Mix:
    """Returns the order of one course of a run over `sets`, in so many lanes.

    `seq_length` is the recipe's, or another that the run had before. DataError if a set is too small for it.
    """
    data, training = recipe.data, recipe.training
    orders: list[Order] = []
    for shards in sets:
        kind = SequenceOrder if _is_small(shards) else ChunkOrder
        order = kind(
            fingerprint=shards.fingerprint,
            num_full=shards.num_full,
            chunk_tokens=shards.chunk_tokens,
            tail_tokens=shards.tail_tokens,
            seed=training.seed,
            seq_length=seq_length or data.seq_length,
            lanes=lanes,
            window=data.window,
            course=course,
        )
        if order.sequences_per_epoch == 0:
            raise DataError(
                f"{shards.folder}: {shards.manifest.tokens:,} tokens are too few for one sequence of "
                f"data.seq_length={order.seq_length}; use more text or a smaller seq_length"
            )
        orders.append(order)
    return Mix(tuple(orders), shares_of(data.train_weights or [order.sequences_per_epoch for order in orders]))


def _chunks_that_count(shards: ShardSet) -> int:
    """Returns the chunks of a set, of which every lane needs some; a small set has no say in the number of lanes."""
    return 1 << 40 if _is_small(shards) else shards.num_chunks


def _is_small(shards: ShardSet) -> bool:
    return shards.manifest.tokens * shards.dtype.itemsize <= SMALL_SET_BYTES


def _way_out(size: int, lanes: int) -> str:
    if size & (size - 1):
        return "lanes are a power of two, so run a number of workers that is one"
    return (
        f"run a number of workers that divides {lanes}, or make more of them: total_batch_size and max_lanes divisible "
        f"by {size}, and in a set above 32 MiB {size * MIN_CHUNKS_PER_LANE} chunks (`kogpt2 shard` without --chunk-kib)"
    )
