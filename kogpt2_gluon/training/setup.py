"""Everything before the first step: worker, data, network, optimizer, and the checkpoint to go on from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
import xxhash

from kogpt2_gluon.inference.generation import prompt_notes
from kogpt2_gluon.machine.memory import own_mappings
from kogpt2_gluon.machine.runtime import context, mx
from kogpt2_gluon.model.gpt2 import GPT2Model, build_model, load_arrays, structural_parameters
from kogpt2_gluon.recipe import Recipe
from kogpt2_gluon.runs.checkpoint import HEADS
from kogpt2_gluon.training.adapted_update import update_for
from kogpt2_gluon.training.best import settle_best
from kogpt2_gluon.training.loss_scale import loss_scale_for
from kogpt2_gluon.training.products import settle_products
from kogpt2_gluon.training.progress import Progress
from kogpt2_gluon.training.replicas import Replicas
from kogpt2_gluon.training.resume import restore_state
from kogpt2_gluon.training.resume_point import record_resume_point
from kogpt2_gluon.training.rollback import RollBack, merged
from kogpt2_gluon.training.start import Start, check_start
from kogpt2_gluon.training.state import TrainingRun, TrainState
from kogpt2_gluon.training.update_check import UpdateCheck
from kogpt2_gluon.training.worker import start_worker


def set_up(recipe: Recipe, resume: str, allow_change: Sequence[str] = (), back: RollBack | None = None) -> TrainingRun:
    """Builds a run. Every fault of recipe or data is raised here, before anything is computed.

    After a RollBack, `back`, the run goes on from its newest checkpoint, whatever `resume` says.
    """
    with ExitStack() as opened:  # closes what is open already if a later object cannot be made
        run = _set_up(recipe, "auto" if back else resume, allow_change, opened)
        if back:
            run.state.left_out = merged(run.state.left_out, back.left_out)
            run.notes.insert(0, str(back))
        opened.pop_all()
    return run


def _set_up(recipe: Recipe, resume: str, allow_change: Sequence[str], opened: ExitStack) -> TrainingRun:
    # This worker, its device, and its share of the batch.
    worker, training = opened.enter_context(start_worker()), recipe.training
    ctx = context(training.device, worker.local_rank)

    # Folders, data, where to go on from, and the order in which all workers together read the data.
    start = check_start(recipe, resume, worker, opened, allow_change=allow_change)
    objective, checkpoint, saved = start.objective, start.checkpoint, start.saved
    assert objective.tokenizer
    reader = objective.open_reader(worker, saved and saved.get("reader"), start.source, start.values_before)
    opened.callback(reader.close)

    # Network and optimizer: new from the seed, or as the checkpoint left them.
    products = settle_products(recipe, ctx, worker, saved)
    ops, training = products.ops, replace(training, precision=products.precision)
    with own_mappings():
        net = new_network(recipe, ctx, ops, objective.build_model, random=not (checkpoint or start.initial))
        state = TrainState(begun_as=f"{recipe.fingerprint()}/{reader.fingerprint}")
        if checkpoint and saved:
            state = _restored(recipe, start, saved)
            load_arrays(net, checkpoint.model_arrays(), source=str(checkpoint.path))
        elif start.initial:
            load_arrays(net, start.initial.arrays(), source=str(start.initial.path), but_for=HEADS)
        worker.broadcast_parameters(structural_parameters(net))
        decoder, loss_block = net.for_decoding(), objective.loss_block(net)
        settled = replace(recipe, training=training)
        update = update_for(net, settled, worker, start.accumulate, state.step, fused=ops.name == "fused")
        if checkpoint:
            update.load_moments(checkpoint.optimizer_arrays())
        mx.nd.waitall()  # MXNet allocates an array when it is written

    loss_scale = loss_scale_for(training.precision, saved and saved.get("loss_scale"))
    began_with = checkpoint.path.name if checkpoint else "the start"
    replicas = Replicas(update, worker, training.compare_interval, str(ctx), began_with)
    notes: list[str] = []
    if checkpoint:
        notes += record_resume_point(resume, checkpoint, recipe.ckpt_dir, worker)
        notes += settle_best(recipe, state, objective, checkpoint, worker)
    return TrainingRun(
        state=state,
        worker=worker,
        progress=Progress(),
        ctx=ctx,
        objective=objective,
        tokenizer=objective.tokenizer,
        net=net,
        decoder=decoder,
        loss_block=loss_block,
        update=update,
        products=products,
        loss_scale=loss_scale,
        replicas=replicas,
        check=UpdateCheck(recipe, state, worker, loss_scale, replicas, reader),
        reader=reader,
        batches=objective.batches(reader, ctx),
        resumed=checkpoint,
        changed=start.changed,
        notes=[*start.notes, *reader.notes, *products.notes, *notes],
    )


def _restored(recipe: Recipe, start: Start, saved: dict[str, Any]) -> TrainState:
    """Returns the state of a checkpoint, less what no longer holds by the recipe of now."""
    state, rules, held_out = restore_state(saved), recipe.evaluation, start.objective.held_out
    state.stop_rule_met = state.stop_rule_met and bool(rules.stop_improvement or rules.patience)
    fingerprint = held_out.fingerprint if held_out else None
    if saved.get("held_out_fingerprint") != fingerprint or "data.seq_length" in start.values_before:
        # Scores of another set, or with another length of context, do not compare with new ones.
        state.epoch_perplexity, state.evaluation = None, None
    state.changes += [
        {"step": state.step, "key": change.key, "from": change.before, "to": change.now}
        for change in start.allowed_changes
    ]
    return state


def new_network(
    recipe: Recipe, ctx: Any, ops: Any, build: Callable[[Any], GPT2Model] | None = None, random: bool = True
) -> GPT2Model:
    """A network over the operator set `ops`. Its weights depend on the recipe's seed only, not on the operators.

    Without `random` they are zeros, which takes a tenth of the time, for a network that others follow; but a task's
    head is random. `build` makes the network from its operators; None: a language model.
    """
    seed = derive_seed(recipe.training.seed, "weights")
    mx.random.seed(seed)
    np.random.seed(seed)  # some of MXNet's initializers draw from NumPy's global generator
    net = build(ops) if build else build_model(recipe.model, ops)
    parameters = structural_parameters(net)
    own = {name: parameter.init for name, parameter in parameters.items()}
    for name, parameter in parameters.items():
        if not random and name not in HEADS:
            parameter.init = mx.init.Zero()
    net.initialize(ctx=ctx)
    for name, parameter in parameters.items():  # a network that shares these parameters compares it
        parameter.init = own[name]
    return net


def derive_seed(seed: int, *purpose: Any) -> int:
    """A 31-bit seed for one purpose, made from the recipe's one `seed`, so that nothing random needs to be saved."""
    return xxhash.xxh32_intdigest(repr((seed, *purpose)).encode()) & 0x7FFFFFFF


def describe(recipe: Recipe, run: TrainingRun) -> str:
    """A few lines for the log: what this run is, and what it goes on from."""
    count = sum(master.size for master in run.update.masters.values())
    trained = sum(int(np.prod(parameter.shape)) for parameter in run.update.parameters.values())
    total_batch_size = recipe.training.total_batch_size
    lines = [
        f"{recipe.name}: {count:,} parameters; {run.worker.size} worker(s) on {run.ctx}; "
        f"{run.objective.tokens_per_step:,} tokens a step; {recipe.training.num_steps:,} steps",
        run.reader.describe(run.reader.consumed + (recipe.training.num_steps - run.state.step) * total_batch_size),
    ]
    if trained != count:
        lines.append(f"{trained:,} numbers are trained")
    if spare := recipe.model.vocab_size - run.tokenizer.vocab_size:
        lines.append(
            f"note: {run.tokenizer.path.parent}: its tokenizer has {run.tokenizer.vocab_size} tokens, so {spare} "
            f"rows of the model's embedding are never used; model.vocab_size={run.tokenizer.vocab_size} leaves "
            "them out"
        )
    for prompt in recipe.tracking.sample_prompts if run.objective.held_out else ():
        notes = prompt_notes(run.tokenizer, prompt, recipe.model.max_length, recipe.tracking.sample_length)
        lines += [f"note: tracking.sample_prompts, {prompt[:20]!r}: {note}" for note in notes]
    if run.resumed:
        lines.append(f"going on from {run.resumed.path}")
    lines += [f"changed since then: {change}" for change in run.changed]
    lines += run.notes
    if run.state.step >= recipe.training.num_steps:
        lines.append(f"already at its last step, {run.state.step:,}; raise training.num_steps to go on")
    if run.state.stop_rule_met:
        lines.append(
            "it stopped early; evaluation.stop_improvement=0 evaluation.patience=0 go on to training.num_steps"
        )
    return "\n".join(lines)
