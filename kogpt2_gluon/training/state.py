"""A training run on one worker: the state that changes from step to step, and the objects that change it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from kogpt2_gluon.machine.worker import Worker
from kogpt2_gluon.model.gpt2 import GPT2Model
from kogpt2_gluon.reading.reader import Reader
from kogpt2_gluon.recipe import Recipe
from kogpt2_gluon.runs.checkpoint import Checkpoint
from kogpt2_gluon.tokens.tokenizer import Tokenizer
from kogpt2_gluon.training.loss_scale import LossScale
from kogpt2_gluon.training.objective import Objective
from kogpt2_gluon.training.products import Products
from kogpt2_gluon.training.progress import Progress
from kogpt2_gluon.training.replicas import Replicas
from kogpt2_gluon.training.resume_rules import Change
from kogpt2_gluon.training.update import Update
from kogpt2_gluon.training.update_check import UpdateCheck


@dataclass
class TrainState:
    """The numbers that change from step to step, as a checkpoint holds them next to arrays and the reader's state."""

    step: int = 0  # updates made
    skipped: int = 0  # updates that were not made; see training/update_check.py
    epoch_perplexity: float | None = None  # held-out, at the end of the last whole epoch; for the stop rule
    evaluation: dict[str, Any] | None = None  # the last one, with the step and the attempt after which it was made
    stop_rule_met: bool = False
    best: dict[str, Any] | None = None  # step and held-out score of the best checkpoint; see training/best.py
    not_best_in_a_row: int = 0  # evaluations; for evaluation.patience
    changes: list[dict[str, Any]] = field(default_factory=list)  # {step, key, from, to} of settings changed on purpose
    live: dict[str, Any] = field(default_factory=dict)  # changed while it trained; see training/live_changes.py
    odd: int = 0  # updates skipped because something about them was odd; see training/update_check.py
    odd_in_a_row: int = 0
    recent: list[list[float]] = field(default_factory=list)  # [loss, gradient norm] of the last updates made
    begun_as: str = ""  # fingerprints of recipe and data when it began, which name the run for its mirrors
    left_out: list[list[int]] = field(default_factory=list)  # [first, last] attempt that a rollback leaves out

    @property
    def attempt(self) -> int:
        """The number of updates tried, made or skipped. Each consumed `total_batch_size` sequences."""
        return self.step + self.skipped

    def tokens(self, recipe: Recipe) -> int:
        """Tokens trained on so far, over all workers; batch and length may have changed on the way."""
        batch, length = "training.total_batch_size", "data.seq_length"
        sizes = {batch: recipe.training.total_batch_size, length: recipe.data.seq_length}
        tokens, step = 0, self.step
        for change in reversed(self.changes):
            if change["key"] in sizes:
                tokens += (step - change["step"]) * math.prod(sizes.values())
                step, sizes[change["key"]] = change["step"], change["from"]
        return tokens + step * math.prod(sizes.values())


@dataclass
class TrainingRun:
    """The objects of a running training on one worker.

    Use it as a context manager: leaving it closes the data, and reports an error of this worker to the others.
    """

    state: TrainState
    worker: Worker
    progress: Progress
    ctx: Any
    objective: Objective
    tokenizer: Tokenizer
    net: GPT2Model
    decoder: GPT2Model  # the same parameters, for generation
    loss_block: Any  # takes a micro batch on the device to its losses
    update: Update
    products: Products
    loss_scale: LossScale
    replicas: Replicas
    check: UpdateCheck
    reader: Reader
    batches: Iterator[tuple[Any, Any]]  # the micro batches of each update; see Objective.batches
    resumed: Checkpoint | None
    changed: list[Change]  # settings that differ from the checkpoint's
    notes: list[str]  # lines for the log, from the checks before the start

    def __enter__(self) -> TrainingRun:
        return self

    def __exit__(self, *error: Any) -> None:
        self.reader.close()
        if self.objective.held_out:
            self.objective.held_out.close()
        self.worker.__exit__(*error)
        self.progress.close()
