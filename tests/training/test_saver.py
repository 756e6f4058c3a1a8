"""Saves in the background: what is written is the state at the time of the save, and no error is lost."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path

import numpy as np
import pytest

from kogpt2_gluon.errors import DiskFullError, DivergedError
from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.recipe import load_recipe
from kogpt2_gluon.runs.checkpoint import newest_checkpoint
from kogpt2_gluon.training import saver as module
from kogpt2_gluon.training.host_copies import HostCopies, room_of
from kogpt2_gluon.training.loop import run_step, train
from kogpt2_gluon.training.saved_arrays import SavedArrays
from kogpt2_gluon.training.saver import Saver
from kogpt2_gluon.training.setup import set_up
from kogpt2_gluon.training.signals import StopRequest

BACKGROUND = pytest.mark.parametrize("in_background", [True, False], ids=["background", "waiting"])


def tiny(shards: Path, folder: Path, *overrides: str):
    model = ["model.units=16", "model.num_heads=2", "model.num_layers=1", "model.max_length=16", "data.seq_length=16"]
    steps = ["training.num_steps=6", "training.batch_size=2", "training.total_batch_size=2", "training.warmup_ratio=0"]
    data = [f"data.train={shards / 'train'}", "data.test=", f"tracking.run_dir={folder / 'run'}"]
    return load_recipe("debug_cpu", [*model, *steps, *data, *overrides])


class Gate:
    """Stands in for a slow disk: nothing is written before `open`."""

    def __init__(self, monkeypatch) -> None:
        self.open, self.reached, self.write = threading.Event(), threading.Event(), module.save_checkpoint
        monkeypatch.setattr(module, "save_checkpoint", self.wait)

    def wait(self, *arguments, **options):
        self.reached.set()
        assert self.open.wait(60)
        return self.write(*arguments, **options)


@pytest.fixture
def gate(monkeypatch) -> Gate:
    return Gate(monkeypatch)


def test_steps_go_on_and_the_checkpoint_is_of_the_step_that_was_saved(shards, tmp_path, gate):
    recipe = tiny(shards, tmp_path)
    with set_up(recipe, "never") as run, Saver(recipe, run, print) as saver:
        stop = StopRequest()
        run_step(recipe, run, stop)
        mx.nd.waitall()
        before = {name: array.asnumpy() for name, array in {**run.update.masters, **run.update.moments()}.items()}
        reader = run.reader.state()
        saver.save()
        assert gate.reached.wait(60)
        for _ in range(3):
            run_step(recipe, run, stop)
            saver.check()
        mx.nd.waitall()
        assert not saver.is_written() and newest_checkpoint(recipe.ckpt_dir) is None
        gate.open.set()
        saver.finish()
        assert saver.is_written()
        found = newest_checkpoint(recipe.ckpt_dir)
        arrays = {**found.model_arrays(), **found.optimizer_arrays()}
        assert all(np.array_equal(arrays[name], array) for name, array in before.items())
        assert found.state()["step"] == 1 and found.state()["reader"]["consumed"] == reader["consumed"] == 2
        changed = [
            name for name, array in run.update.masters.items() if not np.array_equal(array.asnumpy(), before[name])
        ]
        assert len(changed) == len(run.update.masters)  # the training did go on


@pytest.mark.parametrize("read_before", [0, 1, 5, 17])
def test_arrays_are_read_in_place_until_an_update_changes_them(shards, tmp_path, monkeypatch, read_before):
    recipe, reached, changed, count = tiny(shards, tmp_path), threading.Event(), threading.Event(), itertools.count()
    read, copied = SavedArrays.read, []

    def wait_once(saved: SavedArrays, name: str) -> np.ndarray:
        if next(count) == read_before:
            reached.set()
            assert changed.wait(60)
        return read(saved, name)

    def take(copies: HostCopies, arrays: dict, room: int) -> dict:
        if len(arrays) > 1:  # not one that is being read
            copied.append(len(arrays))
        return take_all(copies, arrays, room)

    take_all = HostCopies.take
    monkeypatch.setattr(SavedArrays, "read", wait_once)
    monkeypatch.setattr(HostCopies, "take", take)
    with set_up(recipe, "never") as run, Saver(recipe, run, print) as saver:
        before = {name: array.asnumpy() for name, array in {**run.update.masters, **run.update.moments()}.items()}
        saver.save()
        assert reached.wait(60)
        run_step(recipe, run, StopRequest())
        mx.nd.waitall()
        changed.set()
        saver.finish()
    found = newest_checkpoint(recipe.ckpt_dir)
    arrays = {**found.model_arrays(), **found.optimizer_arrays()}
    assert all(np.array_equal(arrays[name], array) for name, array in before.items())
    assert copied == [len(before) - read_before]


def test_the_next_save_waits_for_the_one_before(shards, tmp_path, gate):
    recipe = tiny(shards, tmp_path)
    with set_up(recipe, "never") as run, Saver(recipe, run, print) as saver:
        stop = StopRequest()
        run_step(recipe, run, stop)
        saver.save()
        run_step(recipe, run, stop)
        second = threading.Thread(target=saver.save)
        second.start()
        second.join(0.3)
        assert second.is_alive()
        gate.open.set()
        second.join(60)
        saver.finish()
    assert [path.name for path in sorted(recipe.ckpt_dir.glob("step-*"))] == ["step-00000001", "step-00000002"]


@BACKGROUND
def test_both_ways_write_the_same_bytes(shards, tmp_path, in_background):
    whole = tiny(shards, tmp_path / "whole")
    train(whole)
    recipe = tiny(shards, tmp_path / "other", f"checkpoint.in_background={in_background}")
    train(recipe)
    for name in ("model.params", "optimizer.params"):
        mine, theirs = (newest_checkpoint(each.ckpt_dir).path / name for each in (whole, recipe))
        assert mine.read_bytes() == theirs.read_bytes()


@BACKGROUND
def test_a_number_that_is_not_finite_ends_the_run(shards, tmp_path, in_background):
    recipe = tiny(shards, tmp_path, f"checkpoint.in_background={in_background}")
    refused = pytest.raises(DivergedError, match=r"step 1: _final_ln\.beta is not finite; nothing was saved")
    with refused, set_up(recipe, "never") as run, Saver(recipe, run, print) as saver:
        run_step(recipe, run, StopRequest())
        run.update.masters["_final_ln.beta"][3] = np.nan
        saver.save()
        saver.finish()
    assert newest_checkpoint(recipe.ckpt_dir) is None


def test_a_failed_save_is_raised_at_the_next_step(shards, tmp_path, monkeypatch):
    recipe = tiny(shards, tmp_path, "checkpoint.interval=2")

    def full(*arguments, **options):
        raise DiskFullError("no room")

    monkeypatch.setattr(module, "save_checkpoint", full)
    with pytest.raises(DiskFullError, match="no room"):
        train(recipe)


def test_an_error_of_the_training_does_not_hide_a_failed_save(shards, tmp_path, monkeypatch):
    recipe, said = tiny(shards, tmp_path), []

    def full(*arguments, **options):
        raise DiskFullError("no room")

    monkeypatch.setattr(module, "save_checkpoint", full)
    with pytest.raises(ZeroDivisionError), set_up(recipe, "never") as run, Saver(recipe, run, said.append) as saver:
        saver.save()
        raise ZeroDivisionError
    assert said == ["no room"]


def test_an_error_of_the_training_waits_for_the_save(shards, tmp_path, gate):
    recipe = tiny(shards, tmp_path)
    threading.Timer(0.3, gate.open.set).start()
    with pytest.raises(ZeroDivisionError), set_up(recipe, "never") as run, Saver(recipe, run, print) as saver:
        run_step(recipe, run, StopRequest())
        saver.save()
        raise ZeroDivisionError
    assert newest_checkpoint(recipe.ckpt_dir).state()["step"] == 1


# ---- the copies ------------------------------------------------------------------------------------------------------


def test_copies_are_the_arrays_and_use_their_memory_again():
    draw = np.random.RandomState(0)
    arrays = {str(n): mx.nd.array(draw.randn(*shape)) for n, shape in enumerate([(3,), (1000, 70), (1, 2, 3), (1,)])}
    arrays["half"] = mx.nd.array(draw.randn(5), dtype="float16")
    copies = HostCopies()
    first = copies.take(arrays, room_of(arrays))
    assert {name: (copy.dtype, copy.shape) for name, copy in first.items()} == {
        name: (np.dtype(array.dtype), array.shape) for name, array in arrays.items()
    }
    assert all(np.array_equal(first[name], array.asnumpy()) for name, array in arrays.items())
    arrays["1"] += 1
    second = copies.take(arrays, room_of(arrays))
    assert np.array_equal(second["1"], arrays["1"].asnumpy()) and second["1"].ctypes.data == first["1"].ctypes.data
    assert all(copy.ctypes.data % 64 == 0 for copy in second.values())
    del arrays["0"]
    some = copies.take({name: arrays[name] for name in ("2", "half")}, room_of(arrays))
    assert all(np.array_equal(some[name], arrays[name].asnumpy()) for name in some) and some.keys() == {"2", "half"}
