"""A checkpoint in use: scoring shards with it, and continuing texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.inference.evaluation import LanguageModelScore, evaluate
from kogpt2_gluon.inference.generation import Sampling, generate
from kogpt2_gluon.machine.runtime import context
from kogpt2_gluon.model.gpt2 import GPT2Model, build_model, load_arrays
from kogpt2_gluon.model.loss import LanguageModelLoss
from kogpt2_gluon.ops.choose import choose_ops
from kogpt2_gluon.recipe import Recipe
from kogpt2_gluon.runs.checkpoint import open_checkpoint
from kogpt2_gluon.shards.shard_set import ShardSet
from kogpt2_gluon.tokens.tokenizer import Tokenizer
from kogpt2_gluon.training.precision import cast_network


def load_checkpoint(
    path: Path, device: str = "auto", precision: str = "float32", ops: str = "auto"
) -> tuple[GPT2Model, Tokenizer, Recipe, Any]:
    """(network, tokenizer, recipe, context) of a checkpoint, verified. `path` may be the run's folder.

    `precision` and `ops` are as in a recipe's `training`. float32, whatever the training was in, is what any device has
    and what a converted model gives.
    """
    checkpoint = open_checkpoint(path)
    checkpoint.verify()
    recipe = checkpoint.recipe()
    ctx = context(device)
    net = build_model(recipe.model, choose_ops(ops, precision, ctx, recipe.model.dropout))
    net.initialize(ctx=ctx)
    load_arrays(net, checkpoint.model_arrays(), source=str(checkpoint.path))
    cast_network(net, precision)
    return net, Tokenizer.load(checkpoint.tokenizer_path), recipe, ctx


def evaluate_checkpoint(
    path: Path,
    data: Path,
    batch_size: int = 8,
    seq_length: int = 0,
    device: str = "auto",
    precision: str = "float32",
    ops: str = "auto",
) -> LanguageModelScore:
    """Scores a checkpoint on shards made with its own tokenizer; DataError if they were not."""
    net, tokenizer, recipe, ctx = load_checkpoint(path, device, precision, ops)
    seq_length = seq_length or recipe.data.seq_length
    if not 1 <= seq_length <= net.max_length:
        raise RecipeError(f"seq_length={seq_length}: the network takes 1 to {net.max_length} tokens at a time")
    with ShardSet(data) as shards:
        if shards.manifest.tokenizer_sha256 != tokenizer.sha256:
            raise DataError(f"{data}: made with another tokenizer than {path} was trained with; shard the text again")
        loss_block = LanguageModelLoss(net)
        loss_block.hybridize(static_alloc=True, static_shape=True)
        return evaluate(loss_block, shards, seq_length, batch_size, ctx)


def generate_from_checkpoint(
    path: Path,
    prompt: str,
    num_samples: int = 1,
    device: str = "auto",
    precision: str = "float32",
    ops: str = "auto",
    **sampling: Any,
) -> list[str]:
    """Continuations of `prompt`; `sampling` are the fields of :class:`kogpt2_gluon.inference.generation.Sampling`."""
    chosen = Sampling(**sampling)
    net, tokenizer, _, ctx = load_checkpoint(path, device, precision, ops)
    return generate(net, tokenizer, prompt, chosen, num_samples, ctx)
