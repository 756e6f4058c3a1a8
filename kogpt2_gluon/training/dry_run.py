"""Computes and checks what `kogpt2 train --dry-run` prints: the recipe's numbers, and the data that it names.

The arithmetic is in :mod:`kogpt2_gluon.estimate`; this file opens shards, tokenizers and lists of text files.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.estimate import size_of, time_and_cost
from kogpt2_gluon.machine.job import job_size
from kogpt2_gluon.machine.worker import Worker
from kogpt2_gluon.reading.mix import show_passes
from kogpt2_gluon.reading.open_sets import open_held_out, open_shards, training_mix
from kogpt2_gluon.reading.text.files import TextChoice, list_text_files
from kogpt2_gluon.reading.training_data import training_tokenizer
from kogpt2_gluon.recipe import Recipe
from kogpt2_gluon.shards.format import Manifest
from kogpt2_gluon.wording import gib


def describe(recipe: Recipe, size: int = 0) -> str:
    """The text of `kogpt2 train --dry-run` for `size` workers (0: as many as a launcher started)."""
    size = size or job_size()
    accumulate = recipe.accumulate(size)
    sizes, training = size_of(recipe), recipe.training
    tokens = recipe.tokens_per_step * training.num_steps
    kept = recipe.checkpoint.keep or max(
        1, training.num_steps // max(1, recipe.checkpoint.interval or training.num_steps)
    )
    lines = [
        recipe.to_yaml().rstrip(),
        "",
        f"parameters         {sizes.parameters:,}",
        f"batch              {training.batch_size} sequences x {size} worker(s) x {accumulate} micro step(s) "
        f"= {training.total_batch_size} of {recipe.data.seq_length} tokens",
        f"tokens             {recipe.tokens_per_step:,} a step, {tokens:,} in {training.num_steps:,} steps"
        + _data(recipe, tokens),
        f"memory             {gib(sizes.memory)} a worker: weights {gib(sizes.weights)}, gradients "
        f"{gib(sizes.gradients)}, optimizer {gib(sizes.optimizer)}, activations about {gib(sizes.activations)}",
        f"disk               {gib(sizes.checkpoint)} a checkpoint, {gib(sizes.checkpoint * (kept + 1))} at most",
        *time_and_cost(recipe, size),
    ]
    return "\n".join(lines)


def check_data(recipe: Recipe, size: int = 0) -> list[str]:
    """Opens the recipe's data for `size` workers (0: as launched); raises the errors that `kogpt2 train` would raise.

    Returns what a look at text files found, a line each. An empty data.train is not an error: a recipe can be estimated
    before there is data.
    """
    data, size = recipe.data, size or job_size()
    tokenizer = training_tokenizer(recipe) if data.train_sets else None
    with ExitStack() as opened:
        if held_out := open_held_out(recipe, tokenizer):
            opened.callback(held_out.close)
        if data.source == "text" and data.train_sets:
            files = list_text_files(TextChoice.of_recipe(data), Worker())
            files.deal(size)
            return [f"text               {files.count}", *files.remarks]
        elif data.train_sets:
            sets = []
            for folder in data.train_sets:
                sets.append(open_shards(folder, "data.train", recipe))
                opened.callback(sets[-1].close)
            training_mix(sets, recipe, size)
    return []


def _data(recipe: Recipe, tokens: int) -> str:
    """The number of epochs, and a remark if the vocabulary does not fit; unknown where the shards cannot be read."""
    folders = recipe.data.train_sets
    if not folders:
        return "; epochs unknown (data.train is empty)"
    if recipe.data.source == "text":
        return "; epochs unknown (text is tokenized on the fly)"
    try:
        manifests = [Manifest.load(Path(folder)) for folder in folders]
    except DataError as error:
        return f"; epochs unknown ({error})"
    sizes = [manifest.tokens for manifest in manifests]
    lines = [f" = {show_passes(tokens / sum(sizes))} epochs of {sum(sizes):,}"]
    shares = recipe.data.train_weights or [size / sum(sizes) for size in sizes]
    if len(folders) > 1:
        for folder, size, share in zip(folders, sizes, shares):
            passes = tokens * share / size
            lines.append(f"  {folder}: {size:,} tokens, {share:.2%} of what is read, {show_passes(passes)} passes")
    remarks = [each.compare_vocabulary(recipe.model.vocab_size, Path(at)) for each, at in zip(manifests, folders)]
    return "\n".join([*lines, *filter(None, remarks)])
