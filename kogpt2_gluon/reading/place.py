"""Where the reader of shards goes on from a saved state, and what a changed batch or sequence length does to it.

The order of sequences depends on the number of lanes and on seq_length. A run keeps its lanes as long as they divide
total_batch_size, so most changes of the batch leave the order alone, and nothing is left out or read twice. One small
set by itself is dealt sequence by sequence, so there the same holds for fewer lanes.

Any other change needs another order, in which the old place means nothing. Then the epoch in progress ends: what it has
not read is left out of it, and a new course begins with a whole epoch, under keys of its own. The log says so, with the
numbers. Nothing comes twice within an epoch, before the change or after it. Where a set is dealt by the chunk, a place
near the end of an epoch is within two chunks of it in each lane (reading/order.py), and the numbers are over all lanes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.reading.mix import STATE_VERSION, Mix, current
from kogpt2_gluon.reading.open_sets import check_alike, check_lanes, lanes_of, mix_of, training_mix
from kogpt2_gluon.reading.order import SequenceOrder
from kogpt2_gluon.reading.saved_state import check_source
from kogpt2_gluon.recipe import Recipe
from kogpt2_gluon.shards.shard_set import ShardSet

BATCH, LENGTH = "training.total_batch_size", "data.seq_length"


@dataclass(frozen=True)
class Place:
    """A place in the data.

    Attributes
    ----------
    consumed : int
        Sequences of this course, over all workers, that earlier updates used.
    epochs_before : float
        Passes over the data in the courses before.
    epoch_ended : bool
        True if the last update completed an epoch.
    skipped : int
        Damaged chunks that were skipped so far.
    note : str
        A line for the log, if the batch or the sequence length has changed.
    """

    consumed: int = 0
    epochs_before: float = 0.0
    epoch_ended: bool = False
    skipped: int = 0
    note: str = ""


def find_place(
    sets: Sequence[ShardSet],
    recipe: Recipe,
    size: int,
    saved: Mapping[str, Any] | None,
    source: str,
    changed: Mapping[str, Any],
) -> tuple[Mix, Place]:
    """Returns the order in which `size` workers go on, and their place in it.

    `saved` is the state of a reader, from checkpoint `source`, or None for a new run. `changed` has the values that
    BATCH and LENGTH had in it, of those that this resume may change. DataError or RecipeError if the state is of
    another order, or if the workers cannot share its lanes.
    """
    if saved is None:
        return training_mix(sets, recipe, size), Place()
    check_alike([(shards.folder, shards.manifest) for shards in sets])
    saved = _checked(saved, source)
    before = _saved_mix(sets, recipe, saved, changed)
    before.check_state(saved, source)
    lanes, total = before.lanes, recipe.training.total_batch_size
    if LENGTH in changed or (BATCH in changed and (total % lanes or lanes % size)):
        lanes = lanes_of(sets, recipe)
    check_lanes(lanes, size, sets, recipe)
    return _go_on(before, _place_in(before, saved, changed, recipe), lanes, changed, sets, recipe)


def _saved_mix(sets: Sequence[ShardSet], recipe: Recipe, saved: Mapping[str, Any], changed: Mapping[str, Any]) -> Mix:
    """Returns the order of the saved state: its lanes as far as the recipe admits them, its length if that may change.

    The state is then compared with this order.
    """
    lanes, total = saved["lanes"], recipe.training.total_batch_size
    fits = total % lanes == 0 and lanes <= recipe.data.max_lanes
    lanes = lanes if fits or BATCH in changed else lanes_of(sets, recipe)
    seq_length = saved["seq_length"] if LENGTH in changed else recipe.data.seq_length
    return mix_of(sets, recipe, lanes, seq_length, saved["course"])


def _place_in(before: Mix, saved: Mapping[str, Any], changed: Mapping[str, Any], recipe: Recipe) -> Place:
    consumed, per_epoch = saved["consumed"], before.sequences_per_epoch
    last = changed.get(BATCH, recipe.training.total_batch_size)  # of the last update; an earlier version did not say
    ended = saved.get("epoch_ended", consumed // per_epoch > max(0, consumed - last) // per_epoch)
    return Place(consumed, saved.get("epochs_before", 0.0), bool(ended), saved["skipped"])


def _go_on(
    before: Mix, place: Place, lanes: int, changed: Mapping[str, Any], sets: Sequence[ShardSet], recipe: Recipe
) -> tuple[Mix, Place]:
    now = {BATCH: recipe.training.total_batch_size, LENGTH: recipe.data.seq_length}
    what = ", ".join(f"{key} {changed[key]} -> {now[key]}" for key in now if key in changed)
    consumed, course = place.consumed, before.orders[0].course
    is_row = len(before.orders) == 1 and isinstance(before.orders[0], SequenceOrder) and consumed % lanes == 0
    if LENGTH not in changed and (lanes == before.lanes or is_row):
        note = f"{what}: the order of sequences stays, and goes on after the {consumed:,} that were read"
        return mix_of(sets, recipe, lanes, course=course), replace(place, note=note if what else "")
    if lanes != before.lanes:
        what += f" ({before.lanes} lanes -> {lanes})"
    passes = place.epochs_before + consumed / before.sequences_per_epoch
    mix = mix_of(sets, recipe, lanes, course=course + (consumed > 0))
    note = f"{what}: needs another order of sequences; {_what_is_left(before, consumed)}, and a whole epoch begins"
    return mix, Place(0, passes, place.epoch_ended, place.skipped, note)


def _what_is_left(before: Mix, consumed: int) -> str:
    """Says how far an order was read that ends here."""
    per_epoch = before.sequences_per_epoch
    read = consumed % per_epoch
    if not read:
        return "the last epoch was read whole" if consumed else "nothing was read so far"
    return (
        f"the epoch in progress ends: {read:,} of its {per_epoch:,} sequences of {before.seq_length} tokens were read, "
        f"{per_epoch - read:,} are left out"
    )


def _checked(saved: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Returns a saved state in the current version; DataError unless the numbers in it can be those of a reader."""
    saved = current(dict(saved))
    check_source(saved, "shards", STATE_VERSION, source)
    counts = {"lanes": 1, "seq_length": 1, "course": 0, "consumed": 0, "skipped": 0}
    wrong = [key for key, least in counts.items() if type(saved.get(key)) is not int or saved[key] < least]
    if not wrong and saved["consumed"] % saved["lanes"]:
        wrong = ["consumed"]
    if not wrong and type(saved.get("epochs_before", 0.0)) is not float:
        wrong = ["epochs_before"]
    if wrong:
        raise DataError(f"{source}: not the state of a reader: {wrong[0]} is {saved.get(wrong[0])!r}")
    return saved
