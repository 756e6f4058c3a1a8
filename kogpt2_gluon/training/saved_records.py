"""The records in a checkpoint's state that a run goes on from are checked before it does; without MXNet."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.recipe import admits, known_keys

COUNTS = ("step", "seq_length", "sequences")  # in `best`, with "loss" and "held_out"; see training/best.py


def check_records(saved: Mapping[str, Any], source: str) -> None:
    """Raises DataError, which names `source`, if a saved state's records are not those of a run.

    They are ``best``, ``changes``, those of the update check, and the numbers of the run, the loss scale and the last
    evaluation. What the reader of the data saved is checked by that reader. A state of an earlier version lacks some.
    """
    if not _is_best(saved.get("best")):
        raise DataError(f'{source}: "best" in its state is not the record of a best checkpoint')
    changes = saved.get("changes", [])
    if not isinstance(changes, list) or not all(map(_is_change, changes)):
        raise DataError(f'{source}: "changes" in its state is not the record of changed settings')
    for key, is_right in UPDATE_CHECK.items():
        if key in saved and not is_right(saved[key]):
            raise DataError(f'{source}: "{key}" in its state is not a record of odd updates')
    for key, is_right in OTHERS.items():
        if key in saved and not is_right(saved[key]):
            raise DataError(f'{source}: "{key}" in its state is not what a run writes there')


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


def _is_loss_scale(value: Any) -> bool:
    """The state of a DynamicLossScale, or none."""
    if value is None:
        return True
    known = isinstance(value, dict) and all(map(_is_count, map(value.get, ("clean_updates", "skipped_at_smallest"))))
    return known and _is_finite(value.get("scale")) and value["scale"] > 0


def _is_evaluation(value: Any) -> bool:
    known = isinstance(value, dict) and _is_count(value.get("step")) and _is_count(value.get("attempt", 0))
    return known and type(value.get("perplexity", 0.0)) is float


OTHERS: dict[str, Callable[[Any], bool]] = {
    "skipped": _is_count,
    "live": lambda value: _are_live(value),
    "epoch_perplexity": lambda value: value is None or type(value) is float,
    "not_best_in_a_row": _is_count,
    "stop_rule_met": lambda value: type(value) is bool,
    "evaluation": lambda value: value is None or _is_evaluation(value),
    "begun_as": lambda value: isinstance(value, str),
    "loss_scale": _is_loss_scale,
    "reader": lambda value: isinstance(value, dict),
}


def _is_best(best: Any) -> bool:
    if best is None:
        return True
    known = isinstance(best, dict) and isinstance(best.get("held_out"), str)
    known = known and all(type(best.get(name)) is int and best[name] >= 0 for name in COUNTS)
    if known and ("metric" in best or "score" in best):  # of a task
        known = isinstance(best.get("metric"), str) and _is_finite(best.get("score"))
    return known and type(best.get("loss")) is float and math.isfinite(best["loss"])


def _is_change(change: Any) -> bool:
    """A key of a recipe with its two values, after some step; and who asked, if it changed while the run trained."""
    if not isinstance(change, dict) or not _is_change_of(change.get("key"), change, {"key", "step", "from", "to"}):
        return False
    return all(_is_finite(value) or _is_count(value) or admits(change["key"], value) for value in _values(change))


def _are_live(live: Any) -> bool:
    """Changes that a recipe takes over, by their keys."""
    if not isinstance(live, dict):
        return False
    records = all(_is_change_of(key, change, {"step", "from", "to"}) and "by" in change for key, change in live.items())
    return records and all(admits(key, value) for key, change in live.items() for value in _values(change))


def _is_change_of(key: Any, change: Any, fields: set[str]) -> bool:
    known = isinstance(key, str) and key in known_keys() and isinstance(change, dict)
    known = known and change.keys() - {"by"} == fields and _is_count(change["step"])
    return known and isinstance(change.get("by", ""), str)


def _values(change: Mapping[str, Any]) -> list[Any]:
    return [change["from"], change["to"]]
