"""Loads a checkpoint for use: its network, tokenizer and recipe."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.machine.runtime import context
from kogpt2_gluon.model.coded_weights import CODED, give_codes
from kogpt2_gluon.model.filling import WeightsToRead, fill_network
from kogpt2_gluon.model.gpt2 import GPT2Model
from kogpt2_gluon.model.precision import cast_network
from kogpt2_gluon.model.prompt import build_network
from kogpt2_gluon.ops.choose import choose_ops
from kogpt2_gluon.recipe import Recipe
from kogpt2_gluon.recipe_sections import AdaptationRecipe
from kogpt2_gluon.runs.checkpoint import PROMPT, Checkpoint, use_checkpoint
from kogpt2_gluon.runs.saved_codes import codes_of
from kogpt2_gluon.runs.saved_task import saved_task
from kogpt2_gluon.runs.tuned_prompt import prompts_for
from kogpt2_gluon.tokens.tokenizer import Tokenizer


def load_checkpoint(
    path: Path,
    device: str = "auto",
    precision: str = "float32",
    ops: str = "auto",
    tuned: Path | None = None,
    weights: str = "",
) -> tuple[GPT2Model, Tokenizer, Recipe, Any]:
    """Verifies and loads a checkpoint; returns (network, tokenizer, recipe, context). `path` may be the run's folder.

    `precision` and `ops` are those of a recipe's `training`. float32, whatever the run was trained in, works on any
    device and gives the numbers of a converted model. The network has no gradients and is not hybridized: it decodes as
    it is, and its `for_decoding` and `with_ops`, which share parameters that have gradients, do not work. `weights` is
    what texts will be written by (:class:`~kogpt2_gluon.model.decoding.FusedWeights`): for codes, those in the
    checkpoint are read too.

    `tuned` is a prompt that was tuned on this network (runs/tuned_prompt.py); the network then has it in front of each
    text, as that of the prompt's own run has it. :func:`prompts_for` says what is refused.

    DataError if it is damaged, or fine-tuned for a task: then it has a head in the place of a language model's output.
    """

    def load(checkpoint: Checkpoint) -> tuple[GPT2Model, Tokenizer, Recipe, Any]:
        checkpoint.verify(optimizer=False, model=False)
        _refuse_fine_tuned(checkpoint)
        recipe, ctx = checkpoint.recipe(), context(device)
        model = recipe.model
        chosen = choose_ops(ops, precision, ctx, model.dropout, model.activation)
        try:
            to_read = _weights(checkpoint, tuned)
            if tuned:
                recipe.adaptation = AdaptationRecipe("prompt", prompt_length=to_read.shapes[PROMPT][0])
            net = build_network(recipe, chosen)
            fill_network(net, to_read, ctx, source=str(checkpoint.path))
        except DataError:
            checkpoint.verify(optimizer=False)  # if it is damaged, that is the reason, and the message says so
            raise
        cast_network(net, precision)
        if weights in CODED:
            give_codes(net, codes_of(checkpoint))
        return net, Tokenizer.load(checkpoint.tokenizer_path), recipe, ctx

    return use_checkpoint(path, load)


def _weights(checkpoint: Checkpoint, tuned: Path | None) -> WeightsToRead:
    """The weights of a checkpoint, with those of a prompt."""
    if not tuned:
        return checkpoint.weights()
    (vectors,) = prompts_for(checkpoint, [tuned])
    return _WithPrompt(checkpoint.weights(), vectors)


class _WithPrompt:
    """Weights on disk, and a prompt, as one."""

    def __init__(self, weights: WeightsToRead, vectors: NDArray[np.float32]) -> None:
        self._weights, self._vectors = weights, vectors
        self.shapes = {**weights.shapes, PROMPT: vectors.shape}

    def read_into(self, arrays: Mapping[str, NDArray[np.float32]]) -> None:
        """Reads every array into the one of its name."""
        self._weights.read_into({name: array for name, array in arrays.items() if name != PROMPT})
        arrays[PROMPT][:] = self._vectors


def _refuse_fine_tuned(checkpoint: Checkpoint) -> None:
    if task := saved_task(checkpoint.state(), checkpoint.path):
        raise DataError(
            f"{checkpoint.path}: is fine-tuned for {task.name}, and what it had learned as a language model was not "
            "kept; its answers: kogpt2 predict"
        )
