"""The training loop, top to bottom.

A step: every worker adds up the gradients of its micro steps, the workers average them, the global norm is clipped, and
the optimizer moves the parameters. In float16 a step may take several attempts (training/loss_scale.py). What happens
between steps (log, evaluation, checkpoint, stop) is decided from numbers that are the same on every worker, so that all
of them always meet in the same collective operation.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from kogpt2_gluon.errors import PreemptedError
from kogpt2_gluon.machine import job
from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.recipe import Recipe
from kogpt2_gluon.runs.data_record import write_data_record
from kogpt2_gluon.runs.followers.chosen import followers_of
from kogpt2_gluon.runs.lock import RunLock
from kogpt2_gluon.runs.metrics import NullTracker, StepRecord, tracker_for, write_environment
from kogpt2_gluon.runs.report import write_report
from kogpt2_gluon.storage.disk import full_disk_named
from kogpt2_gluon.storage.files import remove_partials, write_file
from kogpt2_gluon.training.evaluation import evaluate_if_due, is_due
from kogpt2_gluon.training.live_changes import Asked, LiveRequests
from kogpt2_gluon.training.out_of_memory import memory_named
from kogpt2_gluon.training.phases import Phase, unmarked
from kogpt2_gluon.training.resume import save_is_due
from kogpt2_gluon.training.rollback import RollBack, with_rollbacks
from kogpt2_gluon.training.saver import Saver, last_save
from kogpt2_gluon.training.schedule import learning_rate
from kogpt2_gluon.training.setup import derive_seed, describe, set_up
from kogpt2_gluon.training.signals import StopRequest
from kogpt2_gluon.training.start import check_folder
from kogpt2_gluon.training.state import TrainingRun, TrainState
from kogpt2_gluon.training.step_sums import StepSums
from kogpt2_gluon.training.stopwatch import Reading, Stopwatch, memory_in_use
from kogpt2_gluon.training.utilisation import utilisation


@dataclass(frozen=True)
class StepResult:
    """The outcome of one attempt at an update, the same on every worker.

    Attributes
    ----------
    made : bool
        False for an update that was skipped; see training/update_check.py.
    loss : float
        Over what evaluation scores too, in the objective's unit, so that both curves compare.
    grad_norm : float
        Global, before clipping.
    learning_rate : float
    stop_wanted, save_wanted : bool
        True if any worker was asked to stop, or to save its state and go on.
    messages : list of str
        Lines for the log.
    """

    made: bool
    loss: float
    grad_norm: float
    learning_rate: float
    stop_wanted: bool
    save_wanted: bool
    messages: list[str]


def train(
    recipe: Recipe,
    resume: str = "auto",
    allow_change: Sequence[str] = (),
    asked: StopRequest | None = None,
    until: float = math.inf,
) -> TrainState:
    """Runs a recipe to its end on this worker; returns the last state.

    `asked`, if given, is a StopRequest that is entered already: a request at the very end of the run stays in it. A
    step `until` before the end is one after which the run stops as if it had been asked to, once it is evaluated.

    Raises the errors of :mod:`kogpt2_gluon.errors`: a bad recipe, bad data or another run in the same folder before
    the first step, DivergedError on a loss or gradient that is not finite, CorruptionError if the workers hold
    different parameters, PreemptedError after SIGTERM, SIGINT or SIGHUP, once the state is saved, DiskFullError if the
    run folder's disk is full.
    """
    is_writer = not job.rank()  # one writer of the folder: rank 0
    if is_writer:
        check_folder(recipe.run_dir, "tracking.run_dir")
    full = full_disk_named(recipe.run_dir, lambda: f"the record of the run needs room too; {last_save(recipe)}")
    with full, memory_named(recipe), RunLock(recipe.run_dir) if is_writer else nullcontext():
        if is_writer:
            remove_partials(recipe.ckpt_dir)  # a killed run may have left some
        return with_rollbacks(lambda back: _train(recipe, resume, allow_change, asked, until, back))


def _train(
    recipe: Recipe,
    resume: str,
    allow_change: Sequence[str],
    asked: StopRequest | None,
    until: float,
    back: RollBack | None,
) -> TrainState:
    run = set_up(recipe, resume, allow_change, back)
    state, worker, num_steps = run.state, run.worker, recipe.training.num_steps
    begun = state.step if run.resumed else None
    followers = functools.partial(followers_of, recipe, is_new=begun is None)
    tracker = tracker_for(
        worker.rank, recipe.run_dir, num_steps, begun, recipe.tracking.tensorboard, followers=followers
    )
    # Only rank 0 looks for the stop file; each step's sums pass the request on to all workers.
    stop_file = job.stop_file(recipe.run_dir) if worker.rank == 0 else None
    live = LiveRequests(recipe.run_dir if worker.rank == 0 else None)
    own = nullcontext(asked) if asked else StopRequest(wanted=bool(back and back.stop_wanted))
    with run, tracker, own as stop, Saver(recipe, run, tracker.message) as saver:
        stop.watch(stop_file, live)
        if worker.rank == 0:
            record_start(recipe, run, tracker)
        stopwatch = Stopwatch(worker)
        saved_step, saved_attempt, stop_wanted, save_wanted = state.step, state.attempt, False, False
        while True:
            # Between steps. A resumed run passes here first, and makes up for what a stop left undone.
            with stopwatch.paused():
                requests = live.take(recipe, state, worker, tracker) if save_wanted else Asked()
                # A run that was asked to stop does not begin an evaluation: somebody is waiting.
                evaluated = not stop_wanted and evaluate_if_due(recipe, run, tracker, requests.evaluate)
                finished = state.stop_rule_met or state.step >= num_steps
                stop_wanted = stop_wanted or (state.step >= until and not finished)
                due = finished or stop_wanted or save_wanted or save_is_due(recipe, state)
                # After a skipped update there is something new to save only when the run stops there.
                new = state.attempt != saved_attempt if stop_wanted else state.step != saved_step
                saving = due and (evaluated or new)
                run.replicas.compare_if_due(state.step, state.attempt, saving)
                if saving or requests.changes:
                    saver.save()
                    saved_step, saved_attempt = state.step, state.attempt
            if stop_wanted or finished:
                saver.finish(in_haste=stop_wanted)
            if stop_wanted:
                again = "run again" if resume == "auto" else "run again with --resume auto"
                raise PreemptedError(f"stopped at step {state.step}, saved in {recipe.ckpt_dir}; {again} to go on")
            if requests.changes:  # perhaps of num_steps, so before the end
                saver.finish()
                live.begin_again(requests)
            if finished:
                break

            result = run_step(recipe, run, stop, stopwatch.phase)
            saver.check()
            stop_wanted, save_wanted = result.stop_wanted, result.save_wanted
            log_attempt(recipe, run, tracker, result, stopwatch)
    if worker.rank == 0:
        write_report(recipe.run_dir)
    saver.check_mirrors()
    return state


def record_start(recipe: Recipe, run: TrainingRun, tracker: NullTracker) -> None:
    """Writes down what this start begins with: recipe, environment, data, and settings that were changed."""
    write_file(recipe.run_dir / "recipe.yaml", recipe.to_yaml().encode())
    write_environment(recipe.run_dir)
    write_data_record(recipe.run_dir, run.reader.fingerprint, run.objective.facts_of_data())
    tracker.message(describe(recipe, run))
    tracker.log_changes(run.state.step, run.state.changes)


def run_step(recipe: Recipe, run: TrainingRun, stop: StopRequest, phase: Phase = unmarked) -> StepResult:
    """Attempts one update of the parameters; it is made or skipped, on every worker alike.

    `phase` marks the phases of the step (training/phases.py). Raises what UpdateCheck.judge raises, before anything is
    changed.
    """
    # 1. The gradients of this worker's sequences, `scale` times too large.
    state = run.state
    with phase("read"):
        batch, batch_on_device = next(run.batches)  # `accumulate` micro batches
    scale = run.loss_scale.scale
    losses = accumulate_gradients(run, batch_on_device, recipe.training.seed, phase)

    # 2. Their mean over the workers, and the loss and norm that all workers agree on.
    with phase("reduce"):
        squared_norm = run.update.reduce()
    with phase("agree"):
        sums_of = run.objective.sums
        loss, parts = np.sum([sums_of(each.asnumpy(), part) for each, part in zip(losses, batch)], axis=0).tolist()
        asked = stop.wanted, stop.take_save_request()
        mine = StepSums(loss, parts, squared_norm / run.worker.size, *asked, run.reader.notices())
        sums = mine.over(run.worker)
        messages = run.reader.agree(sums.notices, run.worker)
    mean_loss = sums.loss / sums.parts if sums.parts else math.nan
    norm = math.sqrt(sums.squared_norm) / scale

    # 3. The update, unless its gradients overflow or something about it is odd.
    stop_wanted = sums.stop_requests > 0
    judgement = run.check.judge(mean_loss, norm, mine.loss, stop_wanted)
    rate = learning_rate(recipe.training, state.step + 1)
    if judgement.made:
        with phase("update"):
            run.update.apply(rate, norm, scale)
        state.step += 1
    else:
        state.skipped += 1
    messages += [judgement.message] * bool(judgement.message)
    return StepResult(judgement.made, mean_loss, norm, rate, stop_wanted, sums.save_requests > 0, messages)


def accumulate_gradients(run: TrainingRun, batch: Any, seed: int, phase: Phase = unmarked) -> list:
    """Leaves the gradients of the scaled loss in the parameters; returns each micro step's losses, unscaled.

    `batch` has `accumulate` micro batches on the device; `seed` is the recipe's. Does not wait for MXNet.
    """
    losses = []
    with phase("forward"):
        run.update.start()
    for micro_step in range(len(batch)):
        with phase("forward"):
            # Dropout is a function of (seed, rank, attempt, micro_step), so a resumed run draws what an unbroken one
            # would have. An attempt is a step, except that float16 may skip some.
            drawn = derive_seed(seed, "dropout", run.worker.rank, run.state.attempt + 1, micro_step)
            mx.random.seed(drawn, ctx=run.ctx)
            with mx.autograd.record():
                losses.append(run.loss_block(batch[micro_step]))
                loss = losses[-1].mean() * run.loss_scale.scale / len(batch)
        with phase("backward"):
            loss.backward()
            run.loss_block.complete_gradients()
    return losses


def log_attempt(
    recipe: Recipe, run: TrainingRun, tracker: NullTracker, result: StepResult, stopwatch: Stopwatch
) -> None:
    """Notes that an attempt was made, and logs it if that is due."""
    step = run.state.step
    run.progress.at_step(step)
    for message in result.messages:
        tracker.message(message)
    stopwatch.count(run.objective.tokens_per_step)
    if result.made and (step == recipe.training.num_steps or is_due(step, recipe.tracking.log_interval)):
        mx.nd.waitall()  # the engine runs ahead of Python: without this the clock would not see its work
        tracker.log_step(step_record(run, result, stopwatch.reading()))


def step_record(run: TrainingRun, result: StepResult, measured: Reading) -> StepRecord:
    """The log's record of the update just made."""
    state = run.state
    return StepRecord(
        step=state.step,
        loss=result.loss,
        learning_rate=result.learning_rate,
        grad_norm=result.grad_norm,
        tokens_per_second=measured.tokens_per_second,
        memory_mb=memory_in_use(run.ctx) / 2**20,
        epoch=run.reader.epoch,
        tokens=run.objective.tokens(state),
        loss_scale=run.loss_scale.scale if run.products.precision == "float16" else None,
        skipped=state.skipped,
        utilisation=utilisation(run, measured.tokens_per_second),
        data_wait=measured.data_wait,
        communication=measured.communication,
        last=measured.last,
    )
