"""Ranks runs whose held-out figures compare."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from pathlib import Path

from kogpt2_gluon.errors import KoGPT2Error
from kogpt2_gluon.recipe import Recipe
from kogpt2_gluon.runs.run_folder import RunFolder
from kogpt2_gluon.shards.format import Manifest


def rank(runs: Sequence[RunFolder]) -> dict[str, list[RunFolder]]:
    """Returns the runs that were evaluated, by the data that they were evaluated on, the best first.

    Bits per byte are best if low, scores of tasks if high.
    """
    boards: dict[str, list[RunFolder]] = {}
    for run in runs:
        if not math.isnan(run.final):
            boards.setdefault(held_out_of(run.recipe), []).append(run)
    for ranked in boards.values():
        sign = 1 if ranked[0].measure == "bits_per_byte" else -1
        ranked.sort(key=lambda run: (sign * run.final, str(run.path)))
    return boards


def held_out_of(recipe: Recipe) -> str:
    """Returns the held-out data in words that are the same for runs whose figures compare.

    A task and its folder; the documents and the bytes of the test shards, whatever tokenizer they are by; else a path.
    """
    if recipe.task.name:
        locales = f" ({', '.join(recipe.task.locales)})" if recipe.task.locales else ""
        return f"{recipe.task.name} in {recipe.task.data}{locales}"
    if recipe.data.source == "shards":
        with contextlib.suppress(KoGPT2Error, OSError):
            manifest = Manifest.load(Path(recipe.data.test))
            return f"{manifest.documents:,} documents of {manifest.text_bytes:,} bytes"
    return recipe.data.test
