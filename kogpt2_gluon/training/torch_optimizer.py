"""Going on with a run's optimizer in PyTorch, and coming back: for folders of `kogpt2 convert --with-optimizer`.

::

    model = GPT2LMHeadModel.from_pretrained(folder)
    optimizer, schedule = load_optimizer(folder, model)
    ...                                          # loss, backward, clip_grad_norm_, optimizer.step(), schedule.step()
    save_optimizer(folder, model, optimizer, step)

PyTorch makes the same updates up to rounding: `adamw` and `adam` are its AdamW and Adam, and `bertadam` is AdamW
without bias correction, which a very large number of steps turns off. It has no LAMB. Adam's epsilon is added before
the bias correction in MXNet, after it in PyTorch; no gradient that matters shows it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from kogpt2_gluon.convert.names import parameters_of
from kogpt2_gluon.convert.optimizer import MOMENTS, OPTIMIZER, RECIPE, STATE
from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.recipe import Recipe, load_recipe
from kogpt2_gluon.storage.files import replace_file, write_file
from kogpt2_gluon.storage.links import read_file
from kogpt2_gluon.storage.safetensors_file import SafetensorsFile, write_safetensors
from kogpt2_gluon.training.schedule import learning_rate

NO_CORRECTION = 1e9  # steps after which 1 - beta**steps is 1 in every number format


def load_optimizer(folder: str | Path, model: Any) -> tuple[Any, Any]:
    """Returns (torch.optim.AdamW or Adam, its LambdaLR), which go on where the run stopped.

    Parameters
    ----------
    folder : str or Path
        Made by `kogpt2 convert --with-optimizer`.
    model : GPT2LMHeadModel
        Loaded from there, in float32, on any device.

    The gradients' norm is the caller's to clip: `torch.nn.utils.clip_grad_norm_(model.parameters(), clip_norm)` with
    the recipe's `training.clip_norm`. RecipeError for a run with an optimizer that PyTorch does not have; DataError,
    naming the file, if the folder lacks the state or has that of another network.
    """
    import torch

    folder = Path(folder)
    recipe, step = load_recipe(str(folder / RECIPE)), int(_state(folder)["step"])
    training = recipe.training
    if training.optimizer == "lamb":
        raise RecipeError(f"{folder / RECIPE}: training.optimizer=lamb: PyTorch does not have it")
    kind = torch.optim.Adam if training.optimizer == "adam" else torch.optim.AdamW
    named = dict(model.named_parameters())
    groups = [
        {"params": [each for each in named.values() if each.ndim > 1], "weight_decay": training.weight_decay},
        {"params": [each for each in named.values() if each.ndim == 1], "weight_decay": 0.0},
    ]
    betas, peak = (training.beta1, training.beta2), training.learning_rate
    optimizer = kind(groups, lr=peak, betas=betas, eps=training.epsilon)
    count = NO_CORRECTION if training.optimizer == "bertadam" else float(step)
    file = SafetensorsFile(folder / OPTIMIZER)
    for name, parameter in named.items():
        moments = {each: torch.from_numpy(_moment(file, each, name, tuple(parameter.shape))) for each in MOMENTS}
        placed = {each: moment.to(parameter.device) for each, moment in moments.items()}
        optimizer.state[parameter] = {"step": torch.tensor(count), **placed}
    rates = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: learning_rate(training, step + n + 1) / peak)
    return optimizer, rates


def save_optimizer(folder: str | Path, model: Any, optimizer: Any, step: int, recipe_name: str = "") -> None:
    """Writes the weights, the optimizer's state and the step into the folder that they came from.

    Parameters
    ----------
    folder : str or Path
        With config.json and a tokenizer.
    model : GPT2LMHeadModel
    optimizer : torch.optim.AdamW or Adam
        It has made at least one step.
    step : int
        Updates made since the training began, here and there.
    recipe_name : str
        A recipe or its path, for a training that began in PyTorch. "": the folder has one.

    `kogpt2 convert FOLDER RUN --to checkpoint --with-optimizer` makes a run of it that goes on. The data goes on after
    the sequences of the steps made here, as if the run itself had made them; that of a training that began in PyTorch
    begins at its start. DataError if it was read from text on the fly, whose place cannot be computed.
    """
    folder = Path(folder)
    if recipe_name:
        recipe = load_recipe(recipe_name)
        state: dict[str, Any] = {"step": 0}
        write_file(folder / RECIPE, recipe.to_yaml().encode())
    else:
        recipe, state = load_recipe(str(folder / RECIPE)), _state(folder)
    reader = state.get("reader")
    if reader is not None:
        if reader.get("source", "shards") != "shards":
            raise DataError(f"{folder / STATE}: its data was text on the fly, which cannot go on elsewhere; shard it")
        reader["consumed"] += (step - int(state["step"])) * recipe.training.total_batch_size
    state["step"] = step
    state.update(evaluation=None, epoch_perplexity=None, best=None)  # those of other weights
    named = dict(model.named_parameters())
    arrays = {
        f"{each}.{name}": optimizer.state[parameter][each].detach().float().cpu().numpy()
        for each in MOMENTS
        for name, parameter in named.items()
    }
    model.save_pretrained(folder)
    with replace_file(folder / OPTIMIZER) as stream:
        write_safetensors(Path(stream.name), arrays, _shapes(recipe))
    write_file(folder / STATE, json.dumps(state, indent=1).encode())


def _shapes(recipe: Recipe) -> dict[str, tuple[int, ...]]:
    return {
        f"{moment}.{p.in_transformers}": p.transformers_shape for moment in MOMENTS for p in parameters_of(recipe.model)
    }


def _moment(file: SafetensorsFile, moment: str, name: str, shape: tuple[int, ...]) -> Any:
    """Reads one array; `shape` is the parameter's."""
    key = f"{moment}.{name}"
    array = file.get(key)
    if array is None or array.shape != shape or array.dtype != np.float32:
        found = "missing" if array is None else f"{array.dtype} of shape {array.shape}"
        raise DataError(f"{file.path}: {key} is {found}; the model needs float32 of shape {shape}")
    return array


def _state(folder: Path) -> dict[str, Any]:
    try:
        state = json.loads(read_file(folder / STATE).decode())
        int(state["step"])
    except (OSError, ValueError, LookupError, TypeError, OverflowError, RecursionError):
        raise DataError(
            f"{folder / STATE}: missing or damaged; the folder must be made by kogpt2 convert --with-optimizer"
        ) from None
    return dict(state)
