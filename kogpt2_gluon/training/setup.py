"""What a run is made of, before its first step: worker, data, network, optimizer, and where to go on from."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import numpy as np
import xxhash

from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.machine.runtime import context, mx
from kogpt2_gluon.model.gpt2 import GPT2Model, build_model, load_arrays, structural_parameters
from kogpt2_gluon.model.loss import LanguageModelLoss
from kogpt2_gluon.ops.choose import choose_ops
from kogpt2_gluon.reading.open_sets import open_held_out
from kogpt2_gluon.reading.training_data import open_training_reader, training_tokenizer
from kogpt2_gluon.recipe import Recipe
from kogpt2_gluon.training.batches import device_batches
from kogpt2_gluon.training.loss_scale import loss_scale_for
from kogpt2_gluon.training.progress import Progress
from kogpt2_gluon.training.resume import check_same_run, find_resume_point, restore_state
from kogpt2_gluon.training.state import Parts, TrainState
from kogpt2_gluon.training.update import Update
from kogpt2_gluon.training.worker import start_worker


def set_up(recipe: Recipe, resume: str) -> Parts:
    """Builds the parts; every fault of recipe or data shows here, before anything is computed."""
    with ExitStack() as opened:  # what is open is closed again if a later part cannot be made
        parts = _set_up(recipe, resume, opened)
        opened.pop_all()
    return parts


def _set_up(recipe: Recipe, resume: str, opened: ExitStack) -> Parts:
    # This worker, its device, and its share of the batch.
    worker, training = opened.enter_context(start_worker()), recipe.training
    ctx = context(training.device, worker.local_rank)
    accumulate = recipe.accumulate(worker.size)
    if recipe.evaluation.stop_improvement and not recipe.data.test:
        raise RecipeError("evaluation.stop_improvement needs held-out data; set data.test=DIR")

    # Data, where to go on from, and the order in which all workers together read it.
    tokenizer = training_tokenizer(recipe)
    held_out = open_held_out(recipe, tokenizer)
    if held_out:
        opened.callback(held_out.close)
    checkpoint = find_resume_point(resume, recipe.ckpt_dir, worker)
    changed = check_same_run(checkpoint, recipe) if checkpoint else []
    saved = checkpoint.state() if checkpoint else None
    reader = open_training_reader(recipe, worker, saved and saved["reader"], str(checkpoint and checkpoint.path))
    opened.callback(reader.close)

    # Network and optimizer: new from the seed, or as the checkpoint left them.
    ops = choose_ops(training.ops, training.precision, ctx, recipe.model.dropout)
    net = new_network(recipe, ctx, ops)
    state = TrainState()
    if checkpoint and saved:
        state = restore_state(saved)
        state.stop_rule_met = state.stop_rule_met and recipe.evaluation.stop_improvement > 0
        if saved["held_out_fingerprint"] != (held_out.fingerprint if held_out else None):
            state.epoch_perplexity, state.evaluation = None, None  # scores of another set compare with nothing
        load_arrays(net, checkpoint.model_arrays(), source=str(checkpoint.path))
    worker.broadcast_parameters(structural_parameters(net))
    decoder = net.for_decoding()
    update = Update(net, training, worker, accumulate, state.step, fused=ops.name == "fused")
    if checkpoint:
        update.load_arrays(checkpoint.optimizer_arrays())

    loss_block = LanguageModelLoss(net, rows_apart=True)
    loss_block.hybridize(static_alloc=True, static_shape=True)
    return Parts(
        state=state,
        worker=worker,
        progress=Progress(),
        ctx=ctx,
        held_out=held_out,
        tokenizer=tokenizer,
        net=net,
        decoder=decoder,
        loss_block=loss_block,
        update=update,
        loss_scale=loss_scale_for(training.precision, saved and saved.get("loss_scale")),
        reader=reader,
        batches=device_batches(reader, ctx),
        resumed=checkpoint,
        changed=changed,
    )


def new_network(recipe: Recipe, ctx: Any, ops: Any) -> GPT2Model:
    """A network of the operators `ops`, with weights drawn from the recipe's seed: the same ones for any operators."""
    mx.random.seed(derive_seed(recipe, "weights"))
    np.random.seed(derive_seed(recipe, "weights"))  # some of MXNet's initializers draw from NumPy's global generator
    net = build_model(recipe.model, ops)
    net.initialize(ctx=ctx)
    return net


def derive_seed(recipe: Recipe, *purpose: Any) -> int:
    """A 31-bit seed for one purpose, from the recipe's one seed: nothing random needs to be saved."""
    return xxhash.xxh32_intdigest(repr((recipe.training.seed, *purpose)).encode()) & 0x7FFFFFFF


def describe(recipe: Recipe, parts: Parts) -> str:
    """What is about to happen, in a few lines."""
    count = sum(int(np.prod(parameter.shape)) for parameter in parts.update.parameters.values())
    lines = [
        f"{recipe.name}: {count:,} parameters; {parts.worker.size} worker(s) on {parts.ctx}; "
        f"{recipe.tokens_per_step:,} tokens a step; {recipe.training.num_steps:,} steps",
        parts.reader.describe(recipe.training.num_steps * recipe.training.total_batch_size),
    ]
    if spare := recipe.model.vocab_size - parts.tokenizer.vocab_size:
        lines.append(
            f"note: {parts.tokenizer.path.parent}: its tokenizer has {parts.tokenizer.vocab_size} tokens, so {spare} "
            f"rows of the model's embedding are never used; model.vocab_size={parts.tokenizer.vocab_size} would do "
            "without them"
        )
    if parts.resumed:
        lines.append(f"going on from {parts.resumed.path}")
    lines += [f"changed since then: {change}" for change in parts.changed]
    if parts.state.step >= recipe.training.num_steps:
        lines.append(f"already at its last step, {parts.state.step:,}; raise training.num_steps to go on")
    if parts.state.stop_rule_met:
        lines.append("its stop rule was met before; evaluation.stop_improvement=0 goes on to training.num_steps")
    return "\n".join(lines)
