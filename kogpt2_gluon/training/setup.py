"""What a run is made of, before its first step: worker, data, network, optimizer, and where to go on from."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from kogpt2_gluon.data.reader import TrainingReader, training_order
from kogpt2_gluon.data.shards import MANIFEST, ShardSet
from kogpt2_gluon.data.tokenizer import Tokenizer
from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.model.gpt2 import GPT2Model, build_model, load_arrays
from kogpt2_gluon.model.loss import LanguageModelLoss
from kogpt2_gluon.recipe import Recipe
from kogpt2_gluon.runtime import context, mx
from kogpt2_gluon.training.resume import check_same_run, find_resume_point
from kogpt2_gluon.training.state import Parts, TrainState
from kogpt2_gluon.training.update import Update
from kogpt2_gluon.training.worker import start_worker


def set_up(recipe: Recipe, resume: str) -> Parts:
    """Builds the parts; every fault of recipe or data shows here, before anything is computed."""
    # This worker, its device, and its share of the batch.
    worker = start_worker()
    ctx = context(recipe.training.device, worker.local_rank)
    accumulate = recipe.accumulate(worker.size)
    if recipe.evaluation.stop_improvement and not recipe.data.test:
        raise RecipeError("evaluation.stop_improvement needs held-out data; set data.test=DIR")

    # Data, and the order in which all workers together read it.
    shards = open_shards(recipe.data.train, "data.train", recipe)
    held_out = open_shards(recipe.data.test, "data.test", recipe) if recipe.data.test else None
    if held_out and held_out.manifest.tokenizer_sha256 != shards.manifest.tokenizer_sha256:
        raise DataError(f"{held_out.folder}: made with another tokenizer than {shards.folder}; shard the text again")
    order = training_order(shards, recipe, worker.size)

    # Network and optimizer: new from the seed, or as a checkpoint left them.
    checkpoint = find_resume_point(resume, recipe.ckpt_dir, worker)
    net = new_network(recipe, ctx)
    state, consumed, changed = TrainState(), 0, []
    if checkpoint:
        changed = check_same_run(checkpoint, recipe, order)
        saved = checkpoint.state()
        state = TrainState(**{entry.name: saved[entry.name] for entry in fields(TrainState)})
        if saved["held_out_fingerprint"] != (held_out.fingerprint if held_out else None):
            state.epoch_perplexity, state.evaluation = None, None  # scores of another set compare with nothing
        consumed = saved["reader"]["consumed"]
        load_arrays(net, checkpoint.model_arrays(), source=str(checkpoint.path))
    decoder = net.for_decoding()
    update = Update(net, recipe.training, worker, accumulate, state.step)
    if checkpoint:
        update.load_arrays(checkpoint.optimizer_arrays())
    worker.broadcast_parameters(update.parameters)

    loss_block = LanguageModelLoss(net)
    loss_block.hybridize(static_alloc=True, static_shape=True)
    reader = TrainingReader(shards, order, recipe.training.batch_size, accumulate, worker.rank, worker.size, consumed)
    return Parts(
        state=state,
        worker=worker,
        ctx=ctx,
        shards=shards,
        held_out=held_out,
        tokenizer=Tokenizer.load(shards.tokenizer_path),
        net=net,
        decoder=decoder,
        loss_block=loss_block,
        update=update,
        reader=reader,
        batches=iter(reader),
        resumed=checkpoint,
        changed=changed,
    )


def new_network(recipe: Recipe, ctx: Any) -> GPT2Model:
    """A network with weights drawn from the recipe's seed."""
    mx.random.seed(derive_seed(recipe, "weights"))
    np.random.seed(derive_seed(recipe, "weights"))  # some of MXNet's initializers draw from NumPy's global generator
    net = build_model(recipe.model)
    net.initialize(ctx=ctx)
    return net


def open_shards(folder: str, key: str, recipe: Recipe) -> ShardSet:
    """Opens a set of shards for a recipe; DataError if it is missing or holds ids that the model does not."""
    if not folder:
        raise DataError(f"{key} is empty; name a folder that `kogpt2 shard` wrote: {key}=DIR")
    if key == "data.test" and not (Path(folder) / MANIFEST).is_file():
        raise DataError(f"{folder}: no shards there for data.test; name their folder, or train without any: data.test=")
    shards = ShardSet(Path(folder))
    if Tokenizer.load(shards.tokenizer_path).sha256 != shards.manifest.tokenizer_sha256:
        raise DataError(f"{shards.tokenizer_path}: not the tokenizer that these shards were made with; make them again")
    shards.manifest.compare_vocabulary(recipe.model.vocab_size, shards.folder)
    return shards


def derive_seed(recipe: Recipe, *purpose: Any) -> int:
    """A 31-bit seed for one purpose, from the recipe's one seed: nothing random needs to be saved."""
    return xxhash.xxh32_intdigest(repr((recipe.training.seed, *purpose)).encode()) & 0x7FFFFFFF


def describe(recipe: Recipe, parts: Parts) -> str:
    """What is about to happen, in a few lines."""
    count = sum(int(np.prod(parameter.shape)) for parameter in parts.update.parameters.values())
    manifest, order = parts.shards.manifest, parts.reader.order
    epochs = recipe.training.num_steps * recipe.training.total_batch_size / order.sequences_per_epoch
    lines = [
        f"{recipe.name}: {count:,} parameters; {parts.worker.size} worker(s) on {parts.ctx}; "
        f"{recipe.tokens_per_step:,} tokens a step; {recipe.training.num_steps:,} steps are {epochs:.1f} epochs",
        f"{parts.shards.folder}: {manifest.tokens:,} tokens, {parts.shards.num_chunks} chunks, {order.lanes} lanes",
    ]
    lines += [remark] if (remark := manifest.compare_vocabulary(recipe.model.vocab_size, parts.shards.folder)) else []
    if parts.resumed:
        lines.append(f"going on from {parts.resumed.path}")
    lines += [f"changed since then: {change}" for change in parts.changed]
    if parts.state.step >= recipe.training.num_steps:
        lines.append(f"already at its last step, {parts.state.step:,}; raise training.num_steps to go on")
    if parts.state.stop_rule_met:
        lines.append("its stop rule was met before; there is nothing left to do")
    return "\n".join(lines)
