"""Ranks runs whose held-out figures compare."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from kogpt2_gluon.errors import KoGPT2Error
from kogpt2_gluon.runs.comparability import held_out_of, text_in_words
from kogpt2_gluon.runs.run_folder import LOW_IS_BEST, RunFolder
from kogpt2_gluon.shards.format import Manifest


def rank(runs: Sequence[RunFolder]) -> dict[str, list[RunFolder]]:
    """Returns the runs that were evaluated, by the data that they were evaluated on, the best first.

    Bits per byte are best if low, scores of tasks if high. A run that was evaluated before its first update alone is
    left out.
    """
    boards: dict[str, list[RunFolder]] = {}
    for run, held_out in zip(runs, held_out_of(runs, documents_of)):
        if run.last_of(run.measure)[0]:
            boards.setdefault(held_out, []).append(run)
    for ranked in boards.values():
        sign = 1 if ranked[0].measure in LOW_IS_BEST else -1
        ranked.sort(key=lambda run: (sign * run.final, str(run.path)))
    return boards


def documents_of(run: RunFolder) -> str:
    """Returns the documents and the bytes of a run's held-out shards as they are now; "" if they cannot be read."""
    with contextlib.suppress(KoGPT2Error, OSError):
        if run.recipe.data.test:
            manifest = Manifest.load(Path(run.recipe.data.test))
            return text_in_words(manifest.documents, manifest.text_bytes)
    return ""
