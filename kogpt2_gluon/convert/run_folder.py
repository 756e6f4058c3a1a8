"""The folder of a run as the target of a conversion: a checkpoint that everything here takes.

`kogpt2 generate`, `evaluate` and `train --init-from` take it as they take the run of a training. With the optimizer's
state, `kogpt2 train OUT/recipe.yaml` goes on from it.
"""

from __future__ import annotations

from collections import ChainMap
from pathlib import Path

from kogpt2_gluon.convert.heads import WithoutHeads, head_arrays, task_of
from kogpt2_gluon.convert.names import bytes_of, checked
from kogpt2_gluon.convert.optimizer import no_optimizer
from kogpt2_gluon.convert.source import Source
from kogpt2_gluon.convert.target import target_folder
from kogpt2_gluon.runs.checkpoint import WEIGHTS_ALONE, save_checkpoint
from kogpt2_gluon.runs.saved_task import TASK
from kogpt2_gluon.storage.tokenizer_file import stored_tokenizer

RECIPE, CHECKPOINTS = "recipe.yaml", "checkpoints"


def write_run(source: Source, out: Path, with_optimizer: bool = False) -> None:
    """Writes run folder `out` with one checkpoint, whose step is the source's (0 if that is not known).

    RecipeError if `with_optimizer` and the source has no optimizer's arrays.
    """
    source.verify(optimizer=with_optimizer)
    recipe, state = source.recipe(), source.state()
    moments = dict(source.optimizer_arrays()) if with_optimizer else {}
    if with_optimizer and not moments:
        raise no_optimizer(source)
    if not with_optimizer:
        state = {**{key: state[key] for key in ("step", "evaluation", TASK) if key in state}, WEIGHTS_ALONE: True}
    recipe.tracking.run_dir = str(out)
    task, arrays = task_of(source), source.model_arrays()
    body = checked(WithoutHeads(arrays) if task else arrays, recipe.model, str(source.model_path))
    whole = ChainMap(head_arrays(source, task) if task else {}, body)  # type: ignore[arg-type]  # nothing writes to it
    needed = bytes_of(recipe.model) * 2 + sum(each.nbytes for each in moments.values())
    with target_folder(out, needed) as folder:
        save_checkpoint(folder / CHECKPOINTS, state, whole, moments, recipe, stored_tokenizer(source.tokenizer_path))
        (folder / RECIPE).write_text(recipe.to_yaml(), encoding="utf-8")
