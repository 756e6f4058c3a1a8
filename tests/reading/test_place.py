"""A reader that goes on with another batch or sequence length: nothing is left out or read twice unless it says so."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.reading import open_sets, shard_reader
from kogpt2_gluon.reading.mix import Mix
from kogpt2_gluon.reading.place import BATCH, LENGTH, Place, find_place
from kogpt2_gluon.reading.shard_reader import ShardReader
from kogpt2_gluon.recipe import Recipe, parse_recipe
from kogpt2_gluon.shards.shard_set import ShardSet
from tests.reading.order_helpers import CHUNK, SEQ, write_set


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Sets of 140 full chunks and a tail, and of 70 chunks; every token is the number of its place."""
    work = tmp_path_factory.mktemp("place")
    write_set(work / "set0", 140 * CHUNK + 61, 1000)
    write_set(work / "set1", 70 * CHUNK, 1_000_000)
    return [work / "set0", work / "set1"]


@pytest.fixture()
def sets(folders: list[Path]) -> Iterator[list[ShardSet]]:
    opened = [ShardSet(folder) for folder in folders]
    yield opened
    for each in opened:
        each.close()


@pytest.fixture(params=["chunk", "sequence"])
def dealt(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of dealing, whatever the set's size."""
    monkeypatch.setattr(open_sets, "SMALL_SET_BYTES", 0 if request.param == "chunk" else 1 << 40)
    return str(request.param)


@pytest.fixture(autouse=True)
def little_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_reader, "BLOCK_BYTES", 20_000)
    monkeypatch.setattr(shard_reader, "READ_AHEAD_BYTES", 40_000)


def recipe(batch: int = 8, length: int = SEQ, **data: object) -> Recipe:
    settings = {"seq_length": length, "window": 3, **data}
    return parse_recipe({"data": settings, "training": {"total_batch_size": batch, "seed": 5}})


def begin(
    sets: list[ShardSet], now: Recipe, saved: Any = None, size: int = 1, **changed: Any
) -> tuple[Mix, Place, ShardReader]:
    """Goes on as a run does, from a state that has been through JSON; `changed`: batch=, length= of before."""
    names = {"batch": BATCH, "length": LENGTH}
    before = {names[name]: value for name, value in changed.items()}
    saved = saved and json.loads(json.dumps(saved))
    mix, place = find_place(sets, now, size, saved, "runs/a/step-1", before)
    return mix, place, ShardReader(sets, mix, now.training.total_batch_size, 1, place=place)


def read(reader: ShardReader, updates: int) -> tuple[np.ndarray, dict[str, Any], list[bool]]:
    """The first tokens of the sequences, (updates, batch); the state after them; where an epoch ended."""
    rows, ended = [], []
    with reader:
        for _, update in zip(range(updates), reader):
            rows.append(update[0, :, 0].copy())
            ended.append(reader.epoch_ended)
        return np.stack(rows), reader.state(), ended


@pytest.mark.parametrize("batch", [16, 24, 40, 64])
def test_a_larger_batch_reads_on_where_the_smaller_one_stopped(sets: list[ShardSet], dealt: str, batch: int) -> None:
    """Every sequence once an epoch, in the same order, over more than an epoch and a half."""
    one = sets[:1]
    mix, _, reader = begin(one, recipe(8))
    updates = mix.sequences_per_epoch // 8 // 4
    first, state, _ = read(reader, updates)
    now, place, reader = begin(one, recipe(batch), state, batch=8)
    assert (now.lanes, place.consumed, now.orders[0].course) == (8, 8 * updates, 0)
    assert place.note == (
        f"training.total_batch_size 8 -> {batch}: the order of sequences stays, and goes on after the {8 * updates:,} "
        "that were read"
    )
    more = 6 * updates // (batch // 8)
    second, state, _ = read(reader, more)
    straight, *_ = read(begin(one, recipe(8))[2], updates + more * batch // 8)
    assert np.array_equal(lanes_of(first, second), lanes_of(straight))
    again, place, reader = begin(one, recipe(batch), state)  # without a change: the lanes are those of the state
    assert (again.lanes, place.note, place.consumed) == (8, "", state["consumed"])
    third, *_ = read(reader, 5)
    straight, *_ = read(begin(one, recipe(8))[2], updates + (more + 5) * batch // 8)
    assert np.array_equal(lanes_of(first, second, third), lanes_of(straight))


def lanes_of(*parts: np.ndarray) -> np.ndarray:
    """The 8 lanes' sequences in their order, (8, n): a lane has neighbouring rows of an update."""
    return np.concatenate([part.reshape(len(part), 8, -1).transpose(1, 0, 2).reshape(8, -1) for part in parts], axis=1)


def check_whole_epoch(rows: np.ndarray, per_epoch: int, length: int) -> None:
    """No two of an epoch's sequences overlap, so each comes once."""
    starts = np.sort(rows.ravel()[:per_epoch])
    assert len(starts) == per_epoch and (np.diff(starts) >= length).all()


def test_fewer_lanes_of_one_small_set_read_the_same_row(sets: list[ShardSet], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_sets, "SMALL_SET_BYTES", 1 << 40)
    mix, _, reader = begin(sets[:1], recipe(16))
    per_epoch = mix.sequences_per_epoch
    first, state, _ = read(reader, 20)
    now, place, reader = begin(sets[:1], recipe(4), state, batch=16)
    assert (mix.lanes, now.lanes, place.consumed, now.orders[0].course) == (16, 4, 320, 0)
    assert "the order of sequences stays, and goes on after the 320" in place.note
    second, *_ = read(reader, -(-(per_epoch - 320) // 4))
    check_whole_epoch(np.concatenate([first.ravel(), second.ravel()]), per_epoch, SEQ)


def test_lanes_that_no_longer_divide_the_batch_begin_a_course(sets: list[ShardSet], dealt: str) -> None:
    which = sets[:1] if dealt == "chunk" else sets  # several small sets are dealt by periods, which are a lane's own
    mix, _, reader = begin(which, recipe(16))
    _, state, _ = read(reader, 20)
    now, place, reader = begin(which, recipe(4), state, batch=16)
    per_epoch = mix.sequences_per_epoch
    assert (mix.lanes, now.lanes, place.consumed, now.orders[0].course) == (16, 4, 0, 1)
    assert place.note == (
        "training.total_batch_size 16 -> 4 (16 lanes -> 4): needs another order of sequences; the epoch in progress "
        f"ends: 320 of its {per_epoch:,} sequences of {SEQ} tokens were read, {per_epoch - 320:,} are left out, and a "
        "whole epoch begins"
    )
    assert reader.epoch == pytest.approx(320 / per_epoch)
    reader.close()


@pytest.mark.parametrize("length", [SEQ // 2, SEQ + 3, 2 * SEQ])
def test_another_length_ends_the_epoch_and_begins_a_whole_one(sets: list[ShardSet], dealt: str, length: int) -> None:
    one, updates = sets[:1], 300
    mix, _, reader = begin(one, recipe(8))
    per_epoch = mix.sequences_per_epoch
    _, state, _ = read(reader, updates)
    now, place, reader = begin(one, recipe(8, length), state, length=SEQ)
    in_epoch = 8 * updates % per_epoch
    assert f"data.seq_length {SEQ} -> {length}: " in place.note
    assert f"{in_epoch:,} of its {per_epoch:,} sequences of {SEQ} tokens were read, " in place.note
    assert f"{per_epoch - in_epoch:,} are left out, and a whole epoch begins" in place.note
    assert reader.epoch == pytest.approx(8 * updates / per_epoch) and reader.notes == [place.note]
    needed = -(-now.sequences_per_epoch // 8) + 200
    after, state, ended = read(reader, needed)
    if dealt == "sequence":
        check_whole_epoch(after, now.sequences_per_epoch, length)
    else:  # the lanes pass the end of an epoch within two chunks of each other
        spare = 8 * 2 * now.orders[0].full_sequences
        check_whole_epoch(after, now.sequences_per_epoch - spare, length)
    assert ended.index(True) == -(-now.sequences_per_epoch // 8) - 1
    assert state["course"] == 1 and state["consumed"] == 8 * needed
    assert len(json.dumps(state)) < 1000
    # It is not the order with which a run of that length would have begun.
    assert not np.array_equal(after[:20], read(begin(one, recipe(8, length))[2], 20)[0])
    # Stopped and resumed, without leave to change, it goes on exactly.
    halfway, state, _ = read(
        begin(one, recipe(8, length), read_state(one, recipe(8, length), updates), length=SEQ)[2], 9
    )
    rest, *_ = read(begin(one, recipe(8, length), state)[2], 30)
    assert np.array_equal(np.concatenate([halfway, rest]), after[:39])


def read_state(sets: list[ShardSet], now: Recipe, updates: int) -> dict[str, Any]:
    """The state of the run that `now` resumes with another length."""
    return read(begin(sets, recipe(now.training.total_batch_size))[2], updates)[1]


def test_a_curriculum_never_takes_an_order_again(sets: list[ShardSet], dealt: str) -> None:
    """32 -> 16 -> 32 -> 16: every course has its own epochs, and two runs that do the same read the same."""

    def run() -> list[np.ndarray]:
        _, state, _ = read(begin(sets[:1], recipe(8, 32))[2], 12)
        rows = []
        for before, now in ((32, 16), (16, 32), (32, 16)):
            part, state, _ = read(begin(sets[:1], recipe(8, now), state, length=before)[2], 12)
            rows.append(part)
        assert state["course"] == 3
        assert state["epochs_before"] > 0
        return rows

    first, second = run(), run()
    assert all(np.array_equal(one, other) for one, other in zip(first, second))
    assert not np.array_equal(first[0], first[2])


def test_batch_and_length_together(sets: list[ShardSet], dealt: str) -> None:
    _, state, _ = read(begin(sets[:1], recipe(8))[2], 30)
    now, place, reader = begin(sets[:1], recipe(16, 2 * SEQ), state, batch=8, length=SEQ)
    assert now.lanes == 16 and now.orders[0].course == 1
    assert place.note.startswith(
        f"training.total_batch_size 8 -> 16, data.seq_length {SEQ} -> {2 * SEQ} (8 lanes -> 16): needs another"
    )
    reader.close()


def test_a_change_where_an_epoch_ends_leaves_nothing_out(sets: list[ShardSet], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_sets, "SMALL_SET_BYTES", 1 << 40)
    mix, _, reader = begin(sets[1:], recipe(8))
    assert mix.sequences_per_epoch % 8 == 4  # so two epochs are a whole number of updates
    _, state, _ = read(reader, mix.sequences_per_epoch // 4)
    now, place, reader = begin(sets[1:], recipe(8, 2 * SEQ), state, length=SEQ)
    assert "needs another order of sequences; the last epoch was read whole, and a whole epoch begins" in place.note
    assert (place.epochs_before, reader.epoch_ended, now.orders[0].course) == (2.0, True, 1)
    reader.close()


def test_a_change_before_anything_was_read_is_a_run_of_that_length(sets: list[ShardSet], dealt: str) -> None:
    now, place, reader = begin(sets, recipe(8, 2 * SEQ), begin_state(sets), length=SEQ)
    assert "nothing was read so far" in place.note and now.orders[0].course == 0
    assert np.array_equal(read(reader, 5)[0], read(begin(sets, recipe(8, 2 * SEQ))[2], 5)[0])


def begin_state(sets: list[ShardSet]) -> dict[str, Any]:
    with begin(sets, recipe(8))[2] as reader:
        return reader.state()


def test_sets_without_weights_are_known_by_their_old_shares(sets: list[ShardSet], dealt: str) -> None:
    """Their shares are their numbers of sequences, which another length rounds in another way."""
    mix, _, reader = begin(sets, recipe(8, 16))
    _, state, _ = read(reader, 5)
    now, _, reader = begin(sets, recipe(8, 15), state, length=16)
    _, state, _ = read(reader, 5)
    assert state["fingerprint"] == now.fingerprint
    begin(sets, recipe(8, 15), state)[2].close()
    with pytest.raises(DataError, match="its data had fingerprint"):
        begin(sets[::-1], recipe(8, 32), state, length=15)
    assert mix.orders[0].fingerprint == now.orders[0].fingerprint


def test_an_epoch_that_ended_just_before_a_change_stays_ended(sets: list[ShardSet], dealt: str) -> None:
    """And the first update of a larger batch does not make it end twice."""
    mix, _, reader = begin(sets[:1], recipe(8))
    last = -(-mix.sequences_per_epoch // 8)
    _, state, ended = read(reader, last)
    assert ended == [False] * (last - 1) + [True] and state["epoch_ended"]
    for now, changed in ((recipe(16), {"batch": 8}), (recipe(8, 2 * SEQ), {"length": SEQ})):
        reader = begin(sets[:1], now, state, **changed)[2]
        assert reader.epoch_ended
        assert read(reader, 2)[2] == [False, False]
    _, state, ended = read(begin(sets[:1], recipe(8))[2], last + 1)
    for saved in (state, older(state)):
        reader = begin(sets[:1], recipe(64), saved, batch=8)[2]
        assert not reader.epoch_ended  # though 64 sequences ago it was another epoch
        reader.close()


def older(state: dict[str, Any]) -> dict[str, Any]:
    """The state as the version before wrote it."""
    new = ("course", "epochs_before", "epoch_ended")
    return {**{key: value for key, value in state.items() if key not in new}, "version": 2}


def test_a_state_of_the_version_before_goes_on(sets: list[ShardSet], dealt: str) -> None:
    whole, *_ = read(begin(sets, recipe(8))[2], 60)
    _, state, _ = read(begin(sets, recipe(8))[2], 40)
    rest, *_ = read(begin(sets, recipe(8), older(state))[2], 20)
    assert np.array_equal(rest, whole[40:])


# --- what is refused


def test_without_leave_nothing_changes(sets: list[ShardSet], dealt: str) -> None:
    _, state, _ = read(begin(sets[:1], recipe(16))[2], 5)
    for now, what in (
        (recipe(16, 2 * SEQ), "seq_length"),
        (recipe(4), "lanes"),
        (recipe(16, max_lanes=2), "lanes"),
        (recipe(16, window=4), "window"),
    ):
        with pytest.raises(DataError, match=f"runs/a/step-1: its data had {what} "):
            begin(sets[:1], now, state)
    # Leave to change one thing is no leave to change another.
    with pytest.raises(DataError, match="its data had window"):
        begin(sets[:1], recipe(16, 2 * SEQ, window=4), state, length=SEQ)
    with pytest.raises(DataError, match="its data had seq_length"):
        begin(sets[:1], recipe(32, 2 * SEQ), state, batch=16)


def test_more_lanes_than_before_may_be_admitted(sets: list[ShardSet], dealt: str) -> None:
    """data.max_lanes is a bound: the order has its lanes, and keeps them."""
    _, state, _ = read(begin(sets[:1], recipe(16, max_lanes=4))[2], 5)
    now, place, reader = begin(sets[:1], recipe(16), state)
    assert (now.lanes, place.note) == (4, "")
    reader.close()


def test_workers_that_cannot_share_the_lanes(sets: list[ShardSet], dealt: str) -> None:
    _, state, _ = read(begin(sets[:1], recipe(8))[2], 8)
    with pytest.raises(RecipeError, match="16 workers cannot share the 8 reading lanes"):
        find_place(sets[:1], recipe(8), 16, state, "here", {})
    mix, place = find_place(sets[:1], recipe(64), 16, state, "here", {BATCH: 8})  # as many lanes as 64 admits
    begun_again = (16, 1, 0) if dealt == "chunk" else (64, 0, 64)  # one row, of which 64 were read
    assert (mix.lanes, mix.orders[0].course, place.consumed) == begun_again
    with pytest.raises(RecipeError, match="3 workers cannot share"):
        find_place(sets[:1], recipe(24), 3, state, "here", {BATCH: 8})


@pytest.mark.parametrize(
    "wrong",
    [
        {"consumed": 3},
        {"consumed": -8},
        {"consumed": "8"},
        {"consumed": None},
        {"lanes": 0},
        {"lanes": True},
        {"lanes": 1 << 80},
        {"seq_length": 0},
        {"seq_length": 1 << 40},
        {"course": -1},
        {"course": 1.0},
        {"skipped": []},
        {"epochs_before": "many"},
        {"version": 1},
        {"version": 4},
        {"source": "text"},
    ],
)
def test_a_state_that_no_reader_wrote_is_refused(sets: list[ShardSet], dealt: str, wrong: dict[str, Any]) -> None:
    _, state, _ = read(begin(sets[:1], recipe(8))[2], 6)
    with pytest.raises(DataError) as caught:
        begin(sets[:1], recipe(4, 2 * SEQ), {**state, **wrong}, batch=8, length=SEQ)
    assert "\n" not in str(caught.value)
