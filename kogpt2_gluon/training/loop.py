"""The training loop, top to bottom.

A step: every worker adds up the gradients of its micro steps, the workers average them, the global norm is clipped, the
optimizer moves the parameters. What happens between steps (log, evaluation, checkpoint, stop) is decided from numbers
that are the same on every worker, so that all of them always meet in the same collective operation.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import psutil

from kogpt2_gluon.errors import DivergedError, PreemptedError
from kogpt2_gluon.evaluation.language_model import evaluate, scored_sums
from kogpt2_gluon.generation import Sampling, generate
from kogpt2_gluon.recipe import Recipe
from kogpt2_gluon.runtime import mx
from kogpt2_gluon.tracking.metrics import tracker_for, write_environment
from kogpt2_gluon.tracking.report import write_report
from kogpt2_gluon.training.resume import save_state
from kogpt2_gluon.training.schedule import learning_rate
from kogpt2_gluon.training.setup import Parts, TrainState, derive_seed, describe, set_up
from kogpt2_gluon.training.signals import StopRequest


@dataclass(frozen=True)
class StepResult:
    """One update, the same on every worker.

    loss : nats a token, over the tokens that evaluation scores too (all but `<s>`), so that both curves compare.
    grad_norm : global, before clipping. stop_wanted : whether any worker was asked to stop.
    """

    loss: float
    grad_norm: float
    learning_rate: float
    stop_wanted: bool


def train(recipe: Recipe, resume: str = "auto") -> TrainState:
    """Runs a recipe to its end on this worker; returns the last state.

    Raises the errors of :mod:`kogpt2_gluon.errors`: a bad recipe or bad data before the first step, DivergedError on a
    loss or gradient that is not finite, PreemptedError after SIGTERM or SIGINT, once the state is saved.
    """
    parts = set_up(recipe, resume)
    state, worker, num_steps = parts.state, parts.worker, recipe.training.num_steps
    tracker = tracker_for(worker.rank, recipe.run_dir, num_steps, state.step, recipe.tracking.tensorboard)
    with tracker, StopRequest() as stop, parts.reader:
        if worker.rank == 0:
            (recipe.run_dir / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
            write_environment(recipe.run_dir)
            tracker.message(describe(recipe, parts))
        if state.step == 0:
            run_evaluation(recipe, parts, tracker, recipe.evaluation.max_sequences)

        stopwatch = Stopwatch()
        finished = state.step >= num_steps
        while not finished:
            result = run_step(recipe, parts, stop)
            stopwatch.count(recipe.tokens_per_step)
            finished = state.step == num_steps

            if finished or _due(state.step, recipe.tracking.log_interval):
                mx.nd.waitall()  # the engine runs ahead of Python: without this the clock would not see its work
                tracker.log_step(
                    step=state.step,
                    loss=result.loss,
                    learning_rate=result.learning_rate,
                    grad_norm=result.grad_norm,
                    tokens_per_second=stopwatch.rate(),
                    memory_mb=psutil.Process().memory_info().rss / 2**20,
                    epoch=parts.reader.epoch,
                    tokens=state.step * recipe.tokens_per_step,
                )
            with stopwatch.paused():
                if finished or _due(state.step, recipe.evaluation.interval):
                    run_evaluation(recipe, parts, tracker, 0 if finished else recipe.evaluation.max_sequences)
                if recipe.evaluation.stop_improvement and parts.reader.epoch_ended:
                    finished = stop_rule_met(recipe, parts, tracker) or finished
                if finished or result.stop_wanted or _due(state.step, recipe.checkpoint.interval):
                    save_state(recipe, asdict(state), parts)
            if result.stop_wanted and not finished:
                raise PreemptedError(f"stopped at step {state.step}, saved in {recipe.ckpt_dir}; run again to go on")
    if worker.rank == 0:
        write_report(recipe.run_dir)
    return state


def run_step(recipe: Recipe, parts: Parts, stop: StopRequest) -> StepResult:
    """One update of the parameters. DivergedError before anything is changed if loss or gradient is not finite."""
    batch = next(parts.batches)  # (accumulate, batch_size, seq_length + 1)
    parts.state.step += 1
    step = parts.state.step
    parts.update.start()
    token_losses = []
    for micro_step, tokens in enumerate(batch):
        # Dropout is a function of (seed, rank, step, micro_step): a resumed run draws what an unbroken one would have.
        mx.random.seed(derive_seed(recipe, "dropout", parts.worker.rank, step, micro_step), ctx=parts.ctx)
        with mx.autograd.record():
            token_losses.append(parts.loss_block(mx.nd.array(tokens, ctx=parts.ctx, dtype="int32")))
            loss = token_losses[-1].mean() / len(batch)
        loss.backward()
    norm = parts.update.reduce()
    bos = parts.tokenizer.bos_id
    sums = [scored_sums(losses.asnumpy(), tokens, bos) for losses, tokens in zip(token_losses, batch)]
    loss_sum, num_tokens, stops = parts.worker.sum(np.append(np.sum(sums, axis=0), stop.wanted))
    mean_loss = float(loss_sum / num_tokens) if num_tokens else math.nan
    if not (math.isfinite(mean_loss) and math.isfinite(norm)):
        raise DivergedError(
            f"step {step}: loss {mean_loss:g}, gradient norm {norm:g}; lower training.learning_rate, lengthen the "
            f"warm-up, or go on from an earlier checkpoint in {recipe.ckpt_dir}"
        )
    rate = learning_rate(recipe.training, step)
    parts.update.apply(rate, norm)
    return StepResult(mean_loss, norm, rate, bool(stops))


def run_evaluation(recipe: Recipe, parts: Parts, tracker: Any, max_sequences: int) -> None:
    """Scores the held-out set, if there is one, and continues the recipe's prompts."""
    if parts.held_out is None:
        return
    state, worker = parts.state, parts.worker
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
    )
    state.evaluation = {"step": state.step, **scores.to_dict()}
    tracker.log_evaluation(
        state.step, {name: state.evaluation[name] for name in ("loss", "perplexity", "bits_per_byte")}
    )
    if worker.rank == 0 and recipe.tracking.sample_prompts:
        sampling = Sampling(recipe.tracking.sample_length, top_k=40, seed=recipe.training.seed)
        prompts = recipe.tracking.sample_prompts
        texts = [generate(parts.decoder, parts.tokenizer, prompt, sampling, ctx=parts.ctx)[0] for prompt in prompts]
        tracker.log_samples(state.step, list(zip(prompts, texts)))


def stop_rule_met(recipe: Recipe, parts: Parts, tracker: Any) -> bool:
    """The original's rule (KoGPT2 issue #23): an epoch that improves held-out perplexity by too little is the last."""
    run_evaluation(recipe, parts, tracker, 0)
    assert parts.state.evaluation  # a recipe with a stop rule and no held-out set was refused at the start
    before, now = parts.state.epoch_perplexity, parts.state.evaluation["perplexity"]
    parts.state.epoch_perplexity = now
    met = before is not None and now > before * (1 - recipe.evaluation.stop_improvement)
    if met:
        tracker.message(f"stop rule met: perplexity {before:.3f} -> {now:.3f} over epoch {parts.reader.epoch:.0f}")
    return met


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
