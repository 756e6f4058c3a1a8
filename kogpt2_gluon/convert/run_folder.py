"""The folder of a run as the target of a conversion: a checkpoint that everything here takes.

`kogpt2 generate`, `evaluate` and `train --init-from` take it as they take the run of a training. With the optimizer's
state, `kogpt2 train OUT/recipe.yaml` goes on from it.
"""

from __future__ import annotations

from pathlib import Path

from kogpt2_gluon.convert.names import bytes_of, checked
from kogpt2_gluon.convert.optimizer import no_optimizer
from kogpt2_gluon.convert.source import Source
from kogpt2_gluon.convert.target import target_folder
from kogpt2_gluon.runs.checkpoint import WEIGHTS_ALONE, save_checkpoint
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
        state = {**{key: state[key] for key in ("step", "evaluation") if key in state}, WEIGHTS_ALONE: True}
    recipe.tracking.run_dir = str(out)
    arrays = checked(source.model_arrays(), recipe.model, str(source.model_path))
    needed = bytes_of(recipe.model) * 2 + sum(each.nbytes for each in moments.values())
    with target_folder(out, needed) as folder:
        save_checkpoint(folder / CHECKPOINTS, state, arrays, moments, recipe, stored_tokenizer(source.tokenizer_path))
        (folder / RECIPE).write_text(recipe.to_yaml(), encoding="utf-8")
