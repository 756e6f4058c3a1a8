"""The weights that a new run begins with: those of another run's checkpoint, if they fit; without MXNet."""

from __future__ import annotations

from pathlib import Path

from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.recipe import Recipe
from kogpt2_gluon.runs.checkpoint import Checkpoint, open_checkpoint
from kogpt2_gluon.tokens.tokenizer import UNUSED, Tokenizer

FREE = ("dropout",)  # settings of `model` that no weight depends on


def find_initial_weights(recipe: Recipe, tokenizer: Tokenizer | None) -> Checkpoint:
    """Opens and verifies ``training.init_from``; `tokenizer` is the data's, None where there is no data yet.

    RecipeError if it is of another network, or of a tokenizer with other ids. A tokenizer in which `kogpt2 tokenizer
    rename` gave some of its ``<unusedN>`` a name has the same ids.
    """
    checkpoint = open_checkpoint(Path(recipe.training.init_from))
    checkpoint.verify(optimizer=False)
    theirs, ours = checkpoint.recipe().to_dict()["model"], recipe.to_dict()["model"]
    differ = [
        f"model.{key}: {theirs[key]} -> {ours[key]}" for key in ours if key not in FREE and theirs[key] != ours[key]
    ]
    if differ:
        raise RecipeError(
            f"training.init_from={recipe.training.init_from}: {checkpoint.path} is of another network "
            f"({', '.join(differ)}); take its sizes"
        )
    if tokenizer:
        _check_tokenizer(checkpoint, tokenizer)
    return checkpoint


def _check_tokenizer(checkpoint: Checkpoint, tokenizer: Tokenizer) -> None:
    source = Tokenizer.load(checkpoint.tokenizer_path)
    if source.sha256 == tokenizer.sha256:
        return
    for token, (before, now) in enumerate(zip(source.pieces, tokenizer.pieces)):
        if before != now and not UNUSED.fullmatch(before):
            raise _other_tokenizer(checkpoint, tokenizer, f"id {token} is {now!r} there and {before!r} here")
    if source.vocab_size != tokenizer.vocab_size:
        sizes = f"{tokenizer.vocab_size:,} pieces there and {source.vocab_size:,} here"
        raise _other_tokenizer(checkpoint, tokenizer, sizes)


def _other_tokenizer(checkpoint: Checkpoint, tokenizer: Tokenizer, what: str) -> RecipeError:
    return RecipeError(
        f"{tokenizer.path}: the data has another tokenizer than {checkpoint.path} ({what}); shard the text with "
        f"{checkpoint.tokenizer_path}"
    )
