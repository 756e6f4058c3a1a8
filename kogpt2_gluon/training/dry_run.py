"""Computes and checks what `kogpt2 train --dry-run` prints: the recipe's numbers, and the data that it names.

The arithmetic is in :mod:`kogpt2_gluon.estimate`; this file opens shards, tokenizers and lists of text files.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.estimate import checkpoints_kept, possible_operators, recomputed_share, size_of, time_and_cost
from kogpt2_gluon.machine.job import job_size, local_size
from kogpt2_gluon.machine.limits import host_memory
from kogpt2_gluon.machine.worker import Float64Array, Worker
from kogpt2_gluon.ops.kernels import known_precision, network_of
from kogpt2_gluon.reading.mix import show_passes
from kogpt2_gluon.recipe import Recipe
from kogpt2_gluon.runs.lock import check_unlocked
from kogpt2_gluon.shards.format import Manifest
from kogpt2_gluon.storage.disk import free_bytes
from kogpt2_gluon.training import fitting
from kogpt2_gluon.training.mirror_start import describe_mirrors
from kogpt2_gluon.training.start import check_start
from kogpt2_gluon.wording import gib, gigabytes


def describe(recipe: Recipe, size: int = 0) -> str:
    """The text of `kogpt2 train --dry-run` for `size` workers (0: as many as a launcher started)."""
    size = size or job_size()
    accumulate = recipe.accumulate(size)
    sizes, training = size_of(recipe), recipe.training
    tokens = recipe.tokens_per_step * training.num_steps
    kept = checkpoints_kept(recipe)
    lines = [
        recipe.to_yaml().rstrip(),
        "",
        f"parameters         {sizes.parameters:,}",
        f"batch              {training.batch_size} sequences x {size} worker(s) x {accumulate} micro step(s) "
        f"= {training.total_batch_size} of {recipe.data.seq_length} tokens",
        f"tokens             {recipe.tokens_per_step:,} a step, {tokens:,} in {training.num_steps:,} steps"
        + _data(recipe, tokens),
        *_memory(recipe, accumulate),
        *fitting.lines(recipe, size, host_memory(), local_size()),
        f"disk               {gib(sizes.checkpoint)} a checkpoint, {gib(sizes.checkpoint * (kept + 1))} at most",
        f"saving             {_saving(recipe, sizes.checkpoint)}",
        *describe_mirrors(recipe),
        *time_and_cost(recipe, size),
        *_precision(recipe),
    ]
    return "\n".join(lines)


def _saving(recipe: Recipe, size: int) -> str:
    if recipe.checkpoint.in_background:
        return f"in the background, with {gib(size)} more of the first worker's host memory"
    return "training waits for the disk (checkpoint.in_background=false)"


def _memory(recipe: Recipe, accumulate: int) -> list[str]:
    """The memory of a worker with each set of operators that may be taken, and what recomputing layers changes."""
    now = recipe.training.recompute
    other = "layer" if now == "none" else "none"
    changed = replace(recipe, training=replace(recipe.training, recompute=other))
    sizes = size_of(recipe)
    lines = [
        f"memory             a worker: weights {gib(sizes.weights)}, gradients {gib(sizes.gradients)}, optimizer "
        f"{gib(sizes.optimizer)}; with activations, by operators:"
    ]
    for operators in possible_operators(recipe):
        size, instead = (size_of(each, operators, accumulate) for each in (recipe, changed))
        choice = "" if recipe.task.name else f"; with training.recompute={other} {gib(instead.memory)}"
        lines.append(f"  {operators.name:<17}{gib(size.memory)}, activations about {gib(size.activations)}{choice}")
    if recipe.task.name:
        return lines
    share = recomputed_share(recipe)
    lines.append(
        f"recompute          layer: {share:.0%} more operations a step, which the times below include"
        if now == "layer"
        else f"recompute          none; layer would take {share:.0%} more operations a step"
    )
    return lines


def _precision(recipe: Recipe) -> list[str]:
    """Says what training.precision=auto would take on this machine's CPU, if that was measured before."""
    if recipe.training.precision != "auto":
        return []
    known = known_precision(network_of(recipe)) or "a run measures it when it starts"
    return [f"precision          auto; on this CPU {known}"]


class PlannedWorker(Worker):
    """Rank 0 of workers that do not run yet: it takes part for all of them, as if they saw what it sees."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.local_size = min(size, local_size())

    def gather(self, values: ArrayLike) -> Float64Array:
        mine = np.asarray(values, np.float64)
        return np.repeat(mine[np.newaxis], self.size, axis=0)


def check(recipe: Recipe, resume: str = "auto", size: int = 0, allow_change: Sequence[str] = ()) -> list[str]:
    """Makes the checks of a run of `size` workers (0: as launched); returns lines on what it would start from.

    They are the run's own (training/start.py), so the errors of `kogpt2 train` are raised. It does not ask for the
    device or the operators, which are those of the machine that trains. An empty data.train is not an error: a recipe
    can be estimated before there is data.
    """
    worker, has_data = PlannedWorker(size or job_size()), bool(recipe.task.name or recipe.data.train_sets)
    with ExitStack() as opened:
        start, found = check_start(recipe, resume, worker, opened, has_data, allow_change, fetch=False), []
        if has_data:
            saved = start.saved and start.saved.get("reader")
            found = start.objective.check_reader(worker, saved, start.source, start.values_before)
    check_unlocked(recipe.run_dir)
    lines = [*found, f"free disk          {gigabytes(free_bytes(recipe.ckpt_dir))} for {recipe.ckpt_dir}", *start.notes]
    if not has_data:
        lines.append("start              not before data.train names data")
    elif start.to_fetch:
        lines.append(
            f"start              fetches {start.to_fetch}, since {recipe.ckpt_dir} has no checkpoint, and resumes"
        )
    elif start.checkpoint:
        done = start.step >= recipe.training.num_steps
        at_end = ", already at its last step" if done else ""
        lines.append(f"start              resumes from step {start.step:,} ({start.checkpoint.path}){at_end}")
    else:
        lines.append("start              at step 0: there is no checkpoint to resume from")
    lines += [f"changed since then {change}" for change in start.changed]
    return lines


def _data(recipe: Recipe, tokens: int) -> str:
    """The number of epochs, and a remark if the vocabulary does not fit; unknown where the shards cannot be read."""
    if recipe.task.name:
        return "; an upper bound, and so are memory and time: most rows are shorter"
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
