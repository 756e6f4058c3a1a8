"""The records in a checkpoint's state that a run goes on from are checked before it does; without MXNet."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.recipe import known_keys

COUNTS = ("step", "seq_length", "sequences")  # in `best`, with "loss" and "held_out"; see training/best.py


def check_records(saved: Mapping[str, Any], source: str) -> None:
    """Raises DataError, which names `source`, if a saved state's ``best`` or ``changes`` are not those of a run.

    A state of an earlier version has neither.
    """
    if not _is_best(saved.get("best")):
        raise DataError(f'{source}: "best" in its state is not the record of a best checkpoint')
    changes = saved.get("changes", [])
    if not isinstance(changes, list) or not all(map(_is_change, changes)):
        raise DataError(f'{source}: "changes" in its state is not the record of changed settings')


def _is_best(best: Any) -> bool:
    if best is None:
        return True
    known = isinstance(best, dict) and isinstance(best.get("held_out"), str)
    known = known and all(type(best.get(name)) is int and best[name] >= 0 for name in COUNTS)
    return known and type(best.get("loss")) is float and math.isfinite(best["loss"])


def _is_change(change: Any) -> bool:
    """A key of a recipe with two numbers, after some step."""
    if not isinstance(change, dict) or change.keys() != {"step", "key", "from", "to"}:
        return False
    numbers = all(type(change[name]) in (int, float) and math.isfinite(change[name]) for name in ("from", "to"))
    return numbers and type(change["step"]) is int and change["key"] in known_keys()
