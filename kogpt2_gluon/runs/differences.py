"""Finds in which settings and data runs differ, and separates those that do not change what a run learns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from kogpt2_gluon.recipe import known_keys, value_of
from kogpt2_gluon.runs.run_folder import RunFolder

NOISE = (  # sections and keys that change what is kept, said or how fast it is, not what is learned
    "name",
    "tracking",
    "checkpoint",
    "data.cache",
    "data.cache_dir",
    "data.cache_gib",
    "evaluation.batch_size",
    "evaluation.interval",
    "training.compare_interval",
    "training.threads",
    "training.recompute",
)
LEFT_OUT = ("about", "tracking.run_dir")  # different of course
NOT_FACTS = ("role", "path", "name")  # of a set: the first is in the name of a fact, the others are settings


class Differences(NamedTuple):
    """Settings by their keys and facts about the data by their names, each with a value for each run.

    `noise` has the settings that do not change what is learned; a fact that a run has not on record is None.
    """

    settings: dict[str, list[Any]]
    data: dict[str, list[Any]]
    noise: dict[str, list[Any]]


def differences_of(runs: Sequence[RunFolder]) -> Differences:
    """Returns in what the runs differ, in the order of a recipe's keys."""
    values = {key: [value_of(run.recipe, key) for run in runs] for key in known_keys() if key not in LEFT_OUT}
    differ = {key: found for key, found in values.items() if _differ(found)}
    noise = {key: found for key, found in differ.items() if key in NOISE or key.partition(".")[0] in NOISE}
    settings = {key: found for key, found in differ.items() if key not in noise}
    return Differences(settings, _data(runs), noise)


def _data(runs: Sequence[RunFolder]) -> dict[str, list[Any]]:
    """Returns the facts about the runs' data that differ between the runs that have them on record.

    A fingerprint is left out where something else of its set differs, and a held-out set's fact where it is that of the
    set to train on.
    """
    sets = [run.data for run in runs]
    facts = [_facts(each) for each in sets]
    names = list(dict.fromkeys(name for each in facts for name in each))
    found = {name: [each.get(name) for each in facts] for name in names}
    differ = {name: values for name, values in found.items() if _differ([each for each in values if each is not None])}
    for name, values in list(differ.items()):
        role, _, fact = name.partition(": ")
        others = [other for other in differ if other.startswith(f"{role}: ") and other != name]
        if (fact == "fingerprint" and others) or (role == "held-out" and differ.get(f"train: {fact}") == values):
            del differ[name]
    recorded = ["yes" if each else "no" for each in sets]
    return {**({"data on record": recorded} if _differ(recorded) else {}), **differ}


def _facts(sets: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Returns the facts of a run's sets by ``role: fact``; those of several sets of a role one after another."""
    facts: dict[str, list[str]] = {}
    for each in sets:
        for key, value in each.items():
            if key not in NOT_FACTS:
                facts.setdefault(f"{each.get('role', 'data')}: {key.replace('_', ' ')}", []).append(_written(value))
    return {name: " + ".join(values) for name, values in facts.items()}


def _written(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_written(each)}" for key, each in value.items())
    if isinstance(value, list):
        return ", ".join(map(_written, value))
    return f"{value:,}" if type(value) is int else str(value)


def _differ(values: Sequence[Any]) -> bool:
    return any(value != values[0] for value in values[1:])
