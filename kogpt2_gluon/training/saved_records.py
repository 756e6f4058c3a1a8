"""The records in a checkpoint's state that a run goes on from are checked before it does; without MXNet."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.recipe import known_keys

COUNTS = ("step", "seq_length", "sequences")  # in `best`, with "loss" and "held_out"; see training/best.py


def check_records(saved: Mapping[str, Any], source: str) -> None:
    """Raises DataError, which names `source`, if a saved state's records are not those of a run.

    They are ``best``, ``changes``, and those of the update check. A state of an earlier version has none of them.
    """
    if not _is_best(saved.get("best")):
        raise DataError(f'{source}: "best" in its state is not the record of a best checkpoint')
    changes = saved.get("changes", [])
    if not isinstance(changes, list) or not all(map(_is_change, changes)):
        raise DataError(f'{source}: "changes" in its state is not the record of changed settings')
    for key, is_right in UPDATE_CHECK.items():
        if key in saved and not is_right(saved[key]):
            raise DataError(f'{source}: "{key}" in its state is not a record of odd updates')


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _are_pairs(value: Any, is_right: Callable[[Any], bool]) -> bool:
    """Returns True for a list of pairs, all of whose members are right."""
    pairs = isinstance(value, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in value)
    return pairs and all(is_right(each) for pair in value for each in pair)


def _is_finite(value: Any) -> bool:
    return type(value) is float and math.isfinite(value)


# Of training/update_check.py, by their names in TrainState.
UPDATE_CHECK: dict[str, Callable[[Any], bool]] = {
    "odd": _is_count,
    "odd_in_a_row": _is_count,
    "recent": lambda value: _are_pairs(value, _is_finite),
    "left_out": lambda value: _are_pairs(value, _is_count),
}


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
