"""Updates that are skipped, rolled back or end the run, in real trainings on odd batches and odd gradients."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from kogpt2_gluon.errors import DataError, DivergedError, PreemptedError
from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.recipe import load_recipe
from kogpt2_gluon.runs.checkpoint import open_checkpoint
from kogpt2_gluon.training import batches as made
from kogpt2_gluon.training import loop
from kogpt2_gluon.training.rollback import RollBack, merged
from kogpt2_gluon.training.saved_records import check_records
from tests.helpers import run
from tests.training.run_helpers import HORUN, log_of, losses, parameters

OPTIONS = ["training.num_steps=26", "training.learning_rate=1e-2", "training.warmup_ratio=0.1", "data.test="]
OPTIONS += ["checkpoint.interval=8", "training.spike_window=16", "training.spike_sigmas=5"]


def train(tiny: list[str], run_dir: Path, *options: str):
    return loop.train(load_recipe("debug_cpu", [*tiny, *OPTIONS, *options, f"tracking.run_dir={run_dir}"]))


@pytest.fixture
def odd_batches(monkeypatch):
    """Call it with the attempts that get sequences of noise, whenever the run gets there."""
    device_batches = made.device_batches

    def at(*attempts: int) -> None:
        def batches(reader, ctx):
            for tokens, array in device_batches(reader, ctx):
                if reader.consumed // reader.sequences_per_update in attempts:
                    tokens = np.random.RandomState(0).randint(5, 1200, tokens.shape, np.int32)
                    array = mx.nd.array(tokens, ctx=ctx, dtype="int32")
                yield tokens, array

        monkeypatch.setattr(made, "device_batches", batches)

    return at


@pytest.fixture
def odd_gradients(monkeypatch):
    """Call it with the attempts whose gradients are not finite."""
    accumulate = loop.accumulate_gradients

    def at(*attempts: int) -> None:
        def accumulated(run, *arguments):
            losses = accumulate(run, *arguments)
            if run.state.attempt + 1 in attempts:
                run.update.parameters["_final_ln.beta"].grad()[:1] = np.nan
            return losses

        monkeypatch.setattr(loop, "accumulate_gradients", accumulated)

    return at


def test_by_default_a_spike_is_a_line_in_the_log(tiny, tmp_path, odd_batches):
    odd_batches(21)
    assert train(tiny, tmp_path / "log").skipped == 0
    assert train(tiny, tmp_path / "off", "training.on_spike=off").recent == []
    line = next(line for line in log_of(tmp_path / "log").splitlines() if "above the mean" in line)
    assert " step 21: loss " in line and line.endswith("; sequences 160 to 167 of the reading order")
    assert parameters(tmp_path / "log") == parameters(tmp_path / "off")


def test_a_rollback_ends_where_skipping_does(tiny, tmp_path, odd_batches):
    """It goes back to the checkpoint of step 16, and the odd sequences are the only ones that are never trained on."""
    odd_batches(21, 22)
    skipping = train(tiny, tmp_path / "skip", "training.on_spike=skip")
    rolled = train(tiny, tmp_path / "rollback", "training.on_spike=rollback")
    assert (skipping.skipped, rolled.skipped) == (2, 2) and rolled.left_out == [[21, 21], [22, 22]]
    assert parameters(tmp_path / "rollback") == parameters(tmp_path / "skip")
    assert losses(tmp_path / "rollback") == losses(tmp_path / "skip") and len(losses(tmp_path / "skip")) == 26
    lines = log_of(tmp_path / "rollback").splitlines()
    assert sum("going on from" in line and "step-00000016" in line for line in lines) == 2
    first = next(line for line in lines if "rolled back from update 21: loss " in line)
    assert "update 21 is left out from here on; sequences 160 to 167 of the reading order" in first
    listed = (tmp_path / "rollback" / "odd_updates.txt").read_text(encoding="utf-8").splitlines()
    assert len(listed) == 2 * 9 and listed[0].endswith(first.partition("ended: ")[2]) and len(set(listed)) == 18
    assert all(re.fullmatch(r"  \S+/train/train-\d+\.ktok token [\d,]+", line) for line in listed[1:9] + listed[10:])
    assert any("update 22 skipped, 2 so far: a rollback left it out; sequences 168 to 175 of" in line for line in lines)


def test_a_rollback_may_leave_out_what_led_to_the_spike(tiny, tmp_path, odd_batches):
    odd_batches(21)
    options = ["training.on_spike=rollback", "training.spike_leave_out=3"]
    state = train(tiny, tmp_path / "run", *options)
    assert state.left_out == [[19, 21]] and (state.skipped, state.odd, state.step) == (3, 1, 26)
    assert open_checkpoint(tmp_path / "run").state()["reader"]["consumed"] == 29 * 8


def test_without_a_checkpoint_it_goes_back_to_the_start(tiny, tmp_path, odd_batches):
    odd_batches(21)
    options = ["checkpoint.interval=0", "training.on_spike=rollback"]
    train(tiny, tmp_path / "rollback", *options)
    train(tiny, tmp_path / "skip", "training.on_spike=skip")
    assert parameters(tmp_path / "rollback") == parameters(tmp_path / "skip")


@pytest.mark.parametrize("action", [pytest.param("skip", marks=pytest.mark.slow), "rollback"])
def test_resuming_is_exact_around_an_odd_update(tiny, tmp_path, monkeypatch, odd_batches, action):
    """Stopped before, at and after it. A run that is asked to stop does not roll back any more: it skips."""
    odd_batches(21)
    straight = train(tiny, tmp_path / "straight", f"training.on_spike={action}")
    run_step = loop.run_step
    for attempt in (20, 21, 23):

        def stop_after_it(recipe, training_run, stop, *more, attempt=attempt):
            if training_run.state.attempt + 1 == attempt:
                stop.ask()
            return run_step(recipe, training_run, stop, *more)

        folder = tmp_path / str(attempt)
        with monkeypatch.context() as patch, pytest.raises(PreemptedError):
            patch.setattr(loop, "run_step", stop_after_it)
            train(tiny, folder, f"training.on_spike={action}")
        state = train(tiny, folder, f"training.on_spike={action}")
        assert parameters(folder) == parameters(tmp_path / "straight")
        assert losses(folder) == losses(tmp_path / "straight")
        assert (state.recent, state.skipped, state.odd) == (straight.recent, straight.skipped, straight.odd)


def test_a_run_that_dies_after_a_rollback_ends_the_same(tiny, tmp_path, monkeypatch, odd_batches):
    """Before its next save: it meets the spike again. And after it: the checkpoint says what is left out."""
    odd_batches(21)
    train(tiny, tmp_path / "skip", "training.on_spike=skip")
    run_step = loop.run_step
    for attempt in (22, 26):
        rolled_back = []

        def dies(recipe, training_run, stop, *more, attempt=attempt, rolled_back=rolled_back):
            rolled_back.append(bool(training_run.state.left_out))
            if rolled_back[-1] and training_run.state.attempt + 1 == attempt:
                raise ZeroDivisionError
            return run_step(recipe, training_run, stop, *more)

        with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
            patch.setattr(loop, "run_step", dies)
            train(tiny, tmp_path / str(attempt), "training.on_spike=rollback", "checkpoint.interval=4")
        train(tiny, tmp_path / str(attempt), "training.on_spike=rollback", "checkpoint.interval=4")
        assert parameters(tmp_path / str(attempt)) == parameters(tmp_path / "skip")
        assert log_of(tmp_path / str(attempt)).count("rolled back from update 21: loss") == {22: 4, 26: 2}[attempt]


def test_a_request_to_stop_survives_a_rollback(tiny, tmp_path, monkeypatch, odd_batches):
    """A signal that arrives after the workers have agreed on the step's sums, while the run goes back."""
    odd_batches(21)
    leave_quietly = loop.StopRequest.__exit__

    def leave(self, kind, error, *rest):
        if isinstance(error, RollBack):
            self.ask()
        return leave_quietly(self, kind, error, *rest)

    monkeypatch.setattr(loop.StopRequest, "__exit__", leave)
    with pytest.raises(PreemptedError, match="stopped at step 17"):
        train(tiny, tmp_path / "run", "training.on_spike=rollback")


def test_what_is_not_finite_stops_by_default(tiny, tmp_path, odd_gradients):
    odd_gradients(12)
    with pytest.raises(DivergedError, match=r"^step 12: loss \d\.\d+, gradient norm nan; lower training.learning_rate"):
        train(tiny, tmp_path / "run")
    assert open_checkpoint(tmp_path / "run").state()["step"] == 8


def test_what_is_not_finite_may_be_skipped_or_rolled_back(tiny, tmp_path, odd_gradients):
    odd_gradients(12)
    for action in ("skip", "rollback"):
        state = train(tiny, tmp_path / action, f"training.on_nonfinite={action}")
        assert (state.skipped, state.odd, state.odd_in_a_row) == (1, 1, 0)
    assert parameters(tmp_path / "skip") == parameters(tmp_path / "rollback")
    assert "update 12 skipped, 1 so far: loss " in log_of(tmp_path / "skip")


@pytest.mark.parametrize("action", ["skip", pytest.param("rollback", marks=pytest.mark.slow)])
def test_there_is_an_end_to_it(tiny, tmp_path, odd_gradients, action):
    odd_gradients(*range(5, 100))
    with pytest.raises(DivergedError, match=r"step 5: .*, after 10 updates in a row that were skipped or rolled"):
        train(tiny, tmp_path / "row", f"training.on_nonfinite={action}")
    odd_gradients(*range(5, 100, 2))
    with pytest.raises(DivergedError, match=r"step 8: .*, after 3 updates .*\(training.most_skipped\)"):
        train(tiny, tmp_path / "whole", f"training.on_nonfinite={action}", "training.most_skipped=3")


TWICE = """
import sys
import numpy as np
from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.recipe import load_recipe
from kogpt2_gluon.training import batches as made
from kogpt2_gluon.training import loop

device_batches = made.device_batches

def batches(reader, ctx):
    for tokens, array in device_batches(reader, ctx):
        if reader.consumed // reader.sequences_per_update == 21:
            tokens = np.random.RandomState(0).randint(5, 1200, tokens.shape, np.int32)
            array = mx.nd.array(tokens, ctx=ctx, dtype="int32")
        yield tokens, array

made.device_batches = batches
for action in ("skip", "rollback"):
    options = [*sys.argv[2:], f"training.on_spike={action}", f"tracking.run_dir={sys.argv[1]}/{action}"]
    state = loop.train(load_recipe("debug_cpu", options))
    print("DONE", action, state.step, state.skipped, flush=True)
"""


def test_two_workers_roll_back_together(tiny, tmp_path):
    done = run(*HORUN, "--gloo", "-np", 2, sys.executable, "-c", TWICE, tmp_path, *tiny, *OPTIONS)
    assert done.stdout.count("DONE skip 26 1") == done.stdout.count("DONE rollback 26 1") == 2, done.stdout
    assert parameters(tmp_path / "rollback") == parameters(tmp_path / "skip")
    assert "going on from" in log_of(tmp_path / "rollback")


def test_a_state_with_other_records_is_refused():
    good = {"odd": 0, "odd_in_a_row": 2, "recent": [[3.5, 1.0]], "left_out": [[3, 5]]}
    check_records(json.loads(json.dumps(good)), "here")
    bad = {"odd": [-1, 1.5, None, True], "odd_in_a_row": ["2"], "left_out": [[3], [[1.5, 2]], {}, [[1, 2, 3]]]}
    bad["recent"] = [[[3.5]], [[3.5, None]], [["a", 1.0]], 7, [[3.5, 1.0], 5], [[float("nan"), 1.0]]]
    for key, values in bad.items():
        for value in values:
            with pytest.raises(DataError, match=f'here: "{key}" in its state'):
                check_records({**good, key: value}, "here")


def test_ranges_come_once_and_in_order():
    assert merged([[5, 7], [1, 2]], [[5, 7], [3, 9]]) == [[1, 2], [3, 9], [5, 7]]
