"""A run on one worker: what changes from step to step, and the parts that change it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kogpt2_gluon.model.gpt2 import GPT2Model
from kogpt2_gluon.model.loss import LanguageModelLoss
from kogpt2_gluon.reading.reader import Batch, Reader
from kogpt2_gluon.runs.checkpoint import Checkpoint
from kogpt2_gluon.shards.shard_set import ShardSet
from kogpt2_gluon.tokens.tokenizer import Tokenizer
from kogpt2_gluon.training.loss_scale import LossScale
from kogpt2_gluon.training.progress import Progress
from kogpt2_gluon.training.update import Update
from kogpt2_gluon.training.worker import Worker


@dataclass
class TrainState:
    """What changes from step to step and is saved besides arrays, loss scale and the reader's place."""

    step: int = 0  # updates made
    skipped: int = 0  # updates left out because their gradients overflowed; training/loss_scale.py
    epoch_perplexity: float | None = None  # held-out, at the end of the last whole epoch; for the stop rule
    evaluation: dict[str, Any] | None = None  # the last one, with the step and the attempt after which it was made
    stop_rule_met: bool = False

    @property
    def attempt(self) -> int:
        """Updates tried: made or skipped. Each consumed `total_batch_size` sequences."""
        return self.step + self.skipped


@dataclass
class Parts:
    """The parts of a run on one worker; leaving them closes the data, and tells the other workers of an error here."""

    state: TrainState
    worker: Worker
    progress: Progress
    ctx: Any
    held_out: ShardSet | None
    tokenizer: Tokenizer
    net: GPT2Model
    decoder: GPT2Model  # the same parameters, for generation
    loss_block: LanguageModelLoss
    update: Update
    loss_scale: LossScale
    reader: Reader
    batches: Iterator[tuple[Batch, Any]]  # the tokens of each update, in NumPy and on the device
    resumed: Checkpoint | None
    changed: list[str]  # settings that differ from the checkpoint's

    def __enter__(self) -> Parts:
        return self

    def __exit__(self, *error: Any) -> None:
        self.reader.close()
        if self.held_out:
            self.held_out.close()
        self.worker.__exit__(*error)
        self.progress.close()
