"""Signals to one of two workers, and a bit that flips in the memory of one: all workers end together, and alike."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

from kogpt2_gluon.errors import CorruptionError, PreemptedError
from tests.chaos.kills import newest_step
from tests.chaos.record import lives
from tests.chaos.relaunch import settings_of
from tests.chaos.scenario import Chance, Scenario, Trial
from tests.chaos.world import Training, World, check_same_end, check_same_files, record_of, wait_until

COMPARED = 4  # steps between two comparisons of the workers
IN_TIME = 10.0  # seconds from the last step to the end of every worker


def pid_of(run_dir: Path, rank: int) -> int:
    return int(next(record_of(run_dir).glob(f"*-{rank}-*")).name.split("-")[2])


def wait_for_step(training: Training, run_dir: Path, step: int) -> None:
    def is_there() -> bool:
        assert training.process.poll() is None, training.output()
        found = list(record_of(run_dir).glob("*-*-*")) if record_of(run_dir).is_dir() else []
        return len(found) == 2 and all(path.read_bytes().count(b"\n") >= step for path in found)

    wait_until(is_there, f"step {step}")


def _signal(name: str, training: Training, run_dir: Path, target: str) -> None:
    """Sends a signal to one rank, or at once to all that was started, as a scheduler does to a group of processes."""
    number = getattr(signal, name)
    if target != "all":
        os.kill(pid_of(run_dir, int(target)), number)
        return
    for process in [*psutil.Process(training.process.pid).children(recursive=True), training.process]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def _stop_trials(world: World, chance: Chance) -> Iterator[Trial]:
    settings = settings_of(chance)
    stops = [("SIGTERM", "1"), ("SIGTERM", "0"), ("SIGTERM", "all"), ("SIGINT", "0"), ("SIGHUP", "1")]
    for name, target in stops[:1] if chance.short else stops:

        def run(folder: Path, name: str = name, target: str = target) -> str:
            straight, run_dir = world.straight("two", *settings, size=2), folder / "run"
            training = world.launch(run_dir, *settings)
            wait_for_step(training, run_dir, chance.draw(f"{name} {target}").randint(5, 40))
            _signal(name, training, run_dir, target)
            ended = training.wait()
            assert ended.code == PreemptedError.exit_code, ended
            ends = [json.loads(path.read_text()) for path in Path(f"{record_of(run_dir)}.ends").iterdir()]
            assert sorted(end["rank"] for end in ends) == [0, 1], ends
            assert [end["code"] for end in ends] == [PreemptedError.exit_code] * 2, ends
            both = {life.rank: life for life in lives(record_of(run_dir))}
            steps = {max(life.updates) for life in both.values()}
            step = newest_step(run_dir / "checkpoints")
            assert steps == {step}, f"the workers made {steps} steps, and step {step} is saved"
            for end in ends:
                seconds = end["at"] - both[end["rank"]].times[-1]
                assert seconds < IN_TIME, f"rank {end['rank']} ended {seconds:.1f} s after its last step began"
            again = world.launch(run_dir, *settings).wait()
            assert again.code == 0, again
            check_same_end(run_dir, straight)
            check_same_files(run_dir, straight)
            return "same step, 75"

        yield Trial(f"{name}-{target}", run)


def _flip_trials(world: World, chance: Chance) -> Iterator[Trial]:
    settings = settings_of(chance)
    for number in range(10):
        draw = chance.draw(f"flip {number}")
        flip = {"rank": draw.randrange(2), "array": draw.randrange(1000), "place": draw.randrange(10**9)}
        flip |= {"bit": draw.randrange(32), "after": draw.randint(2, 50)}
        yield Trial(f"flip-{number}", lambda folder, flip=flip: _flipped(world, settings, folder, flip))
    yield Trial("flip-one-of-four", lambda folder: _one_of_four(world, settings, folder))


def _flipped(world: World, settings: Sequence[str], folder: Path, flip: dict[str, int]) -> str:
    """The run ends at the next comparison, and goes on from what was agreed before."""
    straight, run_dir = world.straight("two", *settings, size=2), folder / "run"
    ended = world.launch(run_dir, *settings, memory=flip).wait()
    assert ended.code == CorruptionError.exit_code, ended
    said = re.search(r"step (\d+): (rank 0 \(.*) and (rank 1 \(.*) differ in (\d+) of \d+ arrays", ended.output)
    assert said, ended.output
    assert flip["after"] <= int(said[1]) < flip["after"] + COMPARED, f"{flip}: found at step {said[1]}"
    again = world.launch(run_dir, *settings).wait()
    assert again.code == 0, again
    check_same_end(run_dir, straight)
    return "found, both named"


def _one_of_four(world: World, settings: Sequence[str], folder: Path) -> str:
    """With more than two workers, the one that differs is named."""
    flip = {"rank": 2, "array": 7, "place": 5, "bit": 3, "after": 6}
    ended = world.launch(folder / "run", *settings, size=4, memory=flip).wait()
    assert ended.code == CorruptionError.exit_code, ended
    assert re.search(r"step 8: rank 2 \(.*\) differs from the 3 other workers", ended.output), ended.output
    return "found, one named"


SCENARIOS = (
    Scenario("stop", "a signal to one of two workers", _stop_trials, at_once=1),
    # The short form of this is tests/training/test_replicas.py.
    Scenario("memory", "a bit flips in the memory of one worker", _flip_trials, at_once=1, long=True),
)
