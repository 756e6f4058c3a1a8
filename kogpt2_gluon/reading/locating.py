"""Finds where in the shards the sequences of an update are, so that a person can look at them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from kogpt2_gluon.reading.mix import PERIOD, Mix
from kogpt2_gluon.shards.shard_set import ShardSet


def locate(mix: Mix, sets: Sequence[ShardSet], first: int, stop: int) -> Iterator[tuple[Path, int]]:
    """Yields the file of each sequence from number `first` to `stop` of a course, and its first token in that file.

    The numbers count all lanes, and are multiples of their number, as those of updates are. The sequences come in the
    order of an update: lane by lane. A damaged chunk that was replaced is not known here.
    """
    assert first % mix.lanes == stop % mix.lanes == 0
    for lane in range(mix.lanes):
        for place in range(first // mix.lanes, stop // mix.lanes):
            period, within = divmod(place, PERIOD)
            k = int(mix.sets(lane, period)[within])
            chunk, offset = mix.orders[k].sequence_at(lane, int(mix.own_places(lane, place)[k]))
            found = sets[k].locate(chunk)
            yield (
                sets[k].folder / sets[k].manifest.shards[found.shard].name,
                found.within * sets[k].chunk_tokens + offset,
            )
