"""The training loop, top to bottom.

A step: every worker adds up the gradients of its micro steps, the workers average them, the global norm is clipped, the
optimizer moves the parameters. In float16 it may take several attempts (training/loss_scale.py). What happens between
steps (log, evaluation, checkpoint, stop) is decided from numbers that are the same on every worker, so that all of them
always meet in the same collective operation.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil

from kogpt2_gluon.errors import DivergedError, PreemptedError
from kogpt2_gluon.inference.evaluation import evaluate, scored_sums
from kogpt2_gluon.inference.generation import Sampling, generate
from kogpt2_gluon.machine import job
from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.recipe import Recipe
from kogpt2_gluon.runs.metrics import tracker_for, write_environment
from kogpt2_gluon.runs.report import write_report
from kogpt2_gluon.training.resume import save_state
from kogpt2_gluon.training.schedule import learning_rate
from kogpt2_gluon.training.setup import derive_seed, describe, set_up
from kogpt2_gluon.training.signals import StopRequest
from kogpt2_gluon.training.state import Parts, TrainState


@dataclass(frozen=True)
class StepResult:
    """One update, the same on every worker.

    made : whether it was; float16 skips one whose gradients overflow. loss : nats a token, over the tokens that
    evaluation scores too (all but `<s>`), so that both curves compare. grad_norm : global, before clipping.
    stop_wanted : whether any worker was asked to stop. messages : for the log.
    """

    made: bool
    loss: float
    grad_norm: float
    learning_rate: float
    stop_wanted: bool
    messages: list[str]


def train(recipe: Recipe, resume: str = "auto") -> TrainState:
    """Runs a recipe to its end on this worker; returns the last state.

    Raises the errors of :mod:`kogpt2_gluon.errors`: a bad recipe or bad data before the first step, DivergedError on a
    loss or gradient that is not finite, PreemptedError after SIGTERM or SIGINT, once the state is saved.
    """
    parts = set_up(recipe, resume)
    state, worker, num_steps = parts.state, parts.worker, recipe.training.num_steps
    tracker = tracker_for(worker.rank, recipe.run_dir, num_steps, state.step, recipe.tracking.tensorboard)
    # One worker looks for the file: what it sees goes to all in each step's sum.
    stop_file = job.stop_file(recipe.run_dir) if worker.rank == 0 else None
    with parts, tracker, StopRequest(stop_file) as stop:
        if worker.rank == 0:
            (recipe.run_dir / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
            write_environment(recipe.run_dir)
            tracker.message(describe(recipe, parts))
        stopwatch = Stopwatch()
        saved_step, saved_attempt, stop_wanted = state.step, state.attempt, False
        while True:
            # Between steps. A resumed run passes here first, and makes up for what a stop left undone.
            with stopwatch.paused():
                # Whoever asks us to stop does not wait for an evaluation.
                evaluated = not stop_wanted and evaluate_if_due(recipe, parts, tracker)
                finished = state.stop_rule_met or state.step >= num_steps
                due = finished or stop_wanted or _due(state.step, recipe.checkpoint.interval)
                # After a skipped update there is something new to save only when the run stops there.
                new = state.attempt != saved_attempt if stop_wanted else state.step != saved_step
                if due and (evaluated or new):
                    save_state(recipe, parts)
                    saved_step, saved_attempt = state.step, state.attempt
            if stop_wanted:
                again = "run again" if resume == "auto" else "run again with --resume auto"
                raise PreemptedError(f"stopped at step {state.step}, saved in {recipe.ckpt_dir}; {again} to go on")
            if finished:
                break

            result = run_step(recipe, parts, stop)
            stop_wanted = result.stop_wanted
            parts.progress.at_step(state.step)
            for message in result.messages:
                tracker.message(message)
            stopwatch.count(recipe.tokens_per_step)
            if result.made and (state.step == num_steps or _due(state.step, recipe.tracking.log_interval)):
                mx.nd.waitall()  # the engine runs ahead of Python: without this the clock would not see its work
                tracker.log_step(**step_record(recipe, parts, result, stopwatch.rate()))
    if worker.rank == 0:
        write_report(recipe.run_dir)
    return state


def run_step(recipe: Recipe, parts: Parts, stop: StopRequest) -> StepResult:
    """One update of the parameters, made or skipped; which of both, and the rest, is the same on every worker.

    DivergedError before anything is changed if the loss is not finite, or the gradient, where no loss scale mends that.
    """
    # 1. The gradients of this worker's sequences, `scale` times too large.
    state, loss_scale = parts.state, parts.loss_scale
    batch, batch_on_device = next(parts.batches)  # (accumulate, batch_size, seq_length + 1)
    scale = loss_scale.scale
    token_losses = accumulate_gradients(recipe, parts, batch_on_device)

    # 2. Their mean over the workers; loss and norm, which all of them agree on.
    squared_norm = parts.update.reduce()
    bos = parts.tokenizer.bos_id
    sums = [scored_sums(losses.asnumpy(), tokens, bos) for losses, tokens in zip(token_losses, batch)]
    mine = [squared_norm / parts.worker.size, stop.wanted]
    totals = parts.worker.sum(np.concatenate([np.sum(sums, axis=0), mine, parts.reader.notices()]))
    loss_sum, num_tokens, squared_norm, stops = totals[:4].tolist()
    messages = parts.reader.agree(totals[4:], parts.worker)
    mean_loss = loss_sum / num_tokens if num_tokens else math.nan
    norm = math.sqrt(squared_norm) / scale

    # 3. Whether to make the update.
    made = math.isfinite(norm)
    loss_scale.count(made)
    if loss_scale.exhausted or not math.isfinite(mean_loss):
        raise _diverged(recipe, state.step + 1, mean_loss, norm)
    rate = learning_rate(recipe.training, state.step + 1)
    if made:
        parts.update.apply(rate, norm, scale)
        state.step += 1
    else:
        state.skipped += 1
        messages.append(
            f"update {state.attempt} skipped, {state.skipped} so far: its gradients overflow float16; loss scale "
            f"{scale:.0f} -> {loss_scale.scale:.0f}"
        )
    return StepResult(made, mean_loss, norm, rate, bool(stops), messages)


def accumulate_gradients(recipe: Recipe, parts: Parts, batch: Any) -> list:
    """Leaves the gradients of the scaled loss in the parameters; returns the losses of each micro step's tokens.

    `batch` (accumulate, batch_size, seq_length + 1) is on the device. Nothing is waited for.
    """
    parts.update.start()
    token_losses = []
    for micro_step in range(len(batch)):
        # Dropout is a function of (seed, rank, attempt, micro_step), so a resumed run draws what an unbroken one would
        # have. Attempts are steps, but for what float16 skips.
        seed = derive_seed(recipe, "dropout", parts.worker.rank, parts.state.attempt + 1, micro_step)
        mx.random.seed(seed, ctx=parts.ctx)
        with mx.autograd.record():
            token_losses.append(parts.loss_block(batch[micro_step]))
            loss = token_losses[-1].mean() * parts.loss_scale.scale / len(batch)
        loss.backward()
        parts.loss_block.add_embedding_gradient()
    return token_losses


def _diverged(recipe: Recipe, step: int, loss: float, norm: float) -> DivergedError:
    more_range = ", take training.precision=float32" if recipe.training.precision == "float16" else ""
    return DivergedError(
        f"step {step}: loss {loss:g}, gradient norm {norm:g}; lower training.learning_rate, lengthen the warm-up"
        f"{more_range}, or go on from an earlier checkpoint in {recipe.ckpt_dir}"
    )


def step_record(recipe: Recipe, parts: Parts, result: StepResult, tokens_per_second: float) -> dict[str, Any]:
    """What the log says of the update just made."""
    state = parts.state
    return {
        "step": state.step,
        "loss": result.loss,
        "learning_rate": result.learning_rate,
        "grad_norm": result.grad_norm,
        "tokens_per_second": tokens_per_second,
        "memory_mb": memory_in_use(parts.ctx) / 2**20,
        "epoch": parts.reader.epoch,
        "tokens": state.step * recipe.tokens_per_step,
        "loss_scale": parts.loss_scale.scale if recipe.training.precision == "float16" else None,
        "skipped": state.skipped,
    }


def evaluate_if_due(recipe: Recipe, parts: Parts, tracker: Any) -> bool:
    """Scores the held-out set if this step calls for it and has not had it; applies the stop rule at an epoch's end.

    A skipped update does not call for it, unless it was the one that completed an epoch.
    During training the first evaluation and those between use `evaluation.max_sequences`; the last one, and those that
    the stop rule compares, use the whole set. Returns whether anything was done.
    """
    state = parts.state
    before = state.evaluation or {"step": None, "attempt": None}
    if parts.held_out is None or before["attempt"] == state.attempt:
        return False
    last = state.step >= recipe.training.num_steps
    epoch_ended = recipe.evaluation.stop_improvement > 0 and parts.reader.epoch_ended
    due = state.step == 0 or last or _due(state.step, recipe.evaluation.interval)
    if not (epoch_ended or (due and before["step"] != state.step)):
        return False
    run_evaluation(recipe, parts, tracker, 0 if last or epoch_ended else recipe.evaluation.max_sequences)
    if epoch_ended:
        apply_stop_rule(recipe, parts, tracker)
    return True


def run_evaluation(recipe: Recipe, parts: Parts, tracker: Any, max_sequences: int) -> None:
    """Scores the held-out set and, on rank 0, continues the recipe's prompts."""
    state, worker = parts.state, parts.worker
    assert parts.held_out
    scores = evaluate(
        parts.loss_block,
        parts.held_out,
        recipe.data.seq_length,
        recipe.evaluation.batch_size,
        parts.ctx,
        max_sequences,
        worker.rank,
        worker.size,
        worker.sum,
        parts.progress.beat,
    )
    if not math.isfinite(scores.loss):
        raise DivergedError(f"step {state.step}: held-out loss {scores.loss:g}; nothing was saved for this step")
    state.evaluation = {"step": state.step, "attempt": state.attempt, **scores.to_dict()}
    shown = ("loss", "perplexity", "bits_per_byte")
    tracker.log_evaluation(state.step, {name: state.evaluation[name] for name in shown})
    if worker.rank == 0 and recipe.tracking.sample_prompts:
        sampling = Sampling(recipe.tracking.sample_length, top_k=40, seed=recipe.training.seed)
        prompts = recipe.tracking.sample_prompts
        texts = [generate(parts.decoder, parts.tokenizer, prompt, sampling, ctx=parts.ctx)[0] for prompt in prompts]
        tracker.log_samples(state.step, list(zip(prompts, texts)))


def apply_stop_rule(recipe: Recipe, parts: Parts, tracker: Any) -> None:
    """The original's rule (KoGPT2 issue #23): an epoch that improves held-out perplexity by too little is the last."""
    state = parts.state
    assert state.evaluation
    before, now = state.epoch_perplexity, state.evaluation["perplexity"]
    state.epoch_perplexity = now
    if before is not None and now > before * (1 - recipe.evaluation.stop_improvement):
        state.stop_rule_met = True
        tracker.message(f"stop rule met: perplexity {before:.3f} -> {now:.3f} over epoch {parts.reader.epoch:.0f}")


def memory_in_use(ctx: Any) -> int:
    """Bytes: of this process on a CPU, of the whole device on a GPU."""
    if ctx.device_type == "gpu":
        free, total = mx.context.gpu_memory_info(ctx.device_id)
        return int(total - free)
    return int(psutil.Process().memory_info().rss)


class Stopwatch:
    """Tokens a second since the last reading; what happens while it is paused does not count."""

    def __init__(self) -> None:
        self._began, self._tokens, self._paused_at = time.perf_counter(), 0, 0.0

    def count(self, tokens: int) -> None:
        self._tokens += tokens

    def rate(self) -> float:
        """Tokens a second since the last call, which starts anew."""
        now = time.perf_counter()
        rate = self._tokens / max(1e-9, now - self._began)
        self._began, self._tokens = now, 0
        return rate

    def paused(self) -> Stopwatch:
        return self

    def __enter__(self) -> None:
        self._paused_at = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._began += time.perf_counter() - self._paused_at


def _due(step: int, interval: int) -> bool:
    return interval > 0 and step % interval == 0
