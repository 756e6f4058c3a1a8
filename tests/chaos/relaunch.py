"""kill -9 at random moments of a training of two workers: one worker, the other, both, the launcher, or everything.

The launcher starts the workers again by itself; a loop around it, as people write one, starts the launcher again. In
the end the run must have made the same steps with the same sequences as one that nothing happened to.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from kogpt2_gluon.machine.worker import Worker
from kogpt2_gluon.reading.training_data import open_training_reader
from kogpt2_gluon.recipe import load_recipe
from tests.chaos.record import ids_of, in_order
from tests.chaos.scenario import Chance, Scenario, Trial
from tests.chaos.world import Training, World, check_same_end, check_same_files, record_of, wait_until

STEPS, SHORT_STEPS = 250, 60
SETTINGS = (
    "model.num_layers=1",
    "model.units=16",
    "checkpoint.interval=4",
    "checkpoint.keep=2",
    "evaluation.interval=50",
    "training.compare_interval=4",
    "training.total_batch_size=16",  # two micro steps a worker, and more than an epoch in all
)
KILLS, SHORT_KILLS = 15, 1  # a round
ROUNDS = 20
TARGETS = ("rank 0", "rank 1", "both", "launcher", "all")
MOMENTS = ("start", "step", "step", "save")
BUSY = 2  # the exit code of a run that another process still writes


def settings_of(chance: Chance) -> tuple[str, ...]:
    """The settings of the training of two workers."""
    return (*SETTINGS, f"training.num_steps={SHORT_STEPS if chance.short else STEPS}")


class Loop:
    """Starts a launched run again until it is done."""

    def __init__(self, world: World, run_dir: Path, settings: Sequence[str]) -> None:
        self._world, self.run_dir, self._settings = world, run_dir, settings
        self.known: set[str] = set()  # lives of before the last kill
        self.starts, self.refused = 0, 0
        self.launch: Training
        self.start()

    def start(self) -> None:
        self.starts += 1
        self.launch = self._world.launch(self.run_dir, *self._settings, restarts=1000)

    def go_on(self) -> bool:
        """Starts the launcher again if it has ended; True if the run is done."""
        code = self.launch.process.poll()
        if code is None:
            return False
        if code == 0:
            return True
        output = self.launch.output()
        if code == BUSY and "trains in it" in output:
            self.refused += 1
            time.sleep(0.5)
        else:
            assert code in (1, 75, -signal.SIGKILL, 128 + signal.SIGKILL), f"exit code {code}\n{output[-3000:]}"
        self.start()
        return False

    def lives(self) -> dict[int, Path]:
        """The record of each rank of the workers that were started after the last kill, if both are there."""
        folder = record_of(self.run_dir)
        new = sorted(path for path in folder.glob("*-*-*") if path.name not in self.known) if folder.is_dir() else []
        found = {int(path.name.split("-")[1]): path for path in new if _alive(path)}
        return found if len(found) == 2 else {}

    def forget(self) -> None:
        self.known = {path.name for path in record_of(self.run_dir).glob("*")}


def _alive(life: Path) -> bool:
    try:
        return (Path("/proc") / life.name.split("-")[2] / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _wait_for(moment: str, lives: dict[int, Path], loop: Loop, draw: random.Random) -> bool:
    """Waits for a moment in the life of two workers; False if one of them ended before it came."""
    steps, delay, since = draw.randint(1, 25), draw.uniform(0, 1.5), time.monotonic()

    def came() -> bool:
        if moment == "start":
            return time.monotonic() - since >= delay
        done = lives[0].read_bytes().count(b"\n")
        if moment == "step":
            return done >= steps
        saving = any((loop.run_dir / "checkpoints").glob(".step-*.partial"))
        return done >= min(steps, 8) and saving

    wait_until(lambda: came() or not all(map(_alive, lives.values())), f"the moment {moment!r}")
    return came()


def disturb(world: World, run_dir: Path, settings: Sequence[str], kills: int, draw: random.Random) -> str:
    """Kills parts of a run `kills` times, lets it finish, and compares it with an undisturbed one."""
    straight = world.straight("two", *settings, size=2)
    loop, done = Loop(world, run_dir, settings), 0
    while done < kills:
        target, moment = draw.choice(TARGETS), draw.choice(MOMENTS)
        early = target in ("launcher", "all") and moment == "start"
        if early:  # even before there are workers
            time.sleep(draw.uniform(0, 3))
            lives = loop.lives()
        else:
            wait_until(lambda: loop.go_on() or loop.lives(), "two workers")
            lives = loop.lives()
            if not lives:
                assert loop.launch.process.poll() != 0, f"the run ended after {done} kills of {kills}"
                continue
            if not _wait_for(moment, lives, loop, draw):
                loop.go_on()
                continue
        victims = {"rank 0": [0], "rank 1": [1], "both": [0, 1], "all": [0, 1]}.get(target, [])
        loop.forget()
        if target in ("launcher", "all"):
            _kill(loop.launch.process.pid)
            loop.launch.process.wait()
        for rank in victims:
            if rank in lives:
                _kill(int(lives[rank].name.split("-")[2]))
        done += 1
        loop.go_on()
    wait_until(loop.go_on, "the end of the run", 600)
    check_same_end(run_dir, straight)
    check_same_files(run_dir, straight)
    left = [path.name for path in record_of(run_dir).iterdir() if _alive(path)]
    assert not left, f"workers are left: {left}"
    return f"x {kills} kills"


def check_each_sequence_once(world: World, settings: Sequence[str]) -> str:
    """Compares the first epoch of the undisturbed run with one that a single process reads in one go."""
    straight = world.straight("two", *settings, size=2)
    recipe = load_recipe("debug_cpu", world.settings(straight, *settings))
    total_batch_size, num_steps = recipe.training.total_batch_size, recipe.training.num_steps
    trained, read = in_order(record_of(straight)), []
    with open_training_reader(recipe, Worker()) as reader:
        for update in reader:
            read.append(ids_of(update))
            if reader.epoch >= 1:
                break
    assert len(trained) == num_steps * total_batch_size
    whole = [each for ids in read for each in ids][: len(trained)]
    assert Counter(trained[: len(whole)]) == Counter(whole), "other sequences than those of an epoch"
    return "once each"


def _trials(world: World, chance: Chance) -> Iterator[Trial]:
    rounds, kills = (1, SHORT_KILLS) if chance.short else (ROUNDS, KILLS)
    settings = settings_of(chance)
    yield Trial("straight", lambda folder: check_each_sequence_once(world, settings))
    for number in range(rounds):
        name = f"round-{number}"

        def run(folder: Path, name: str = name) -> str:
            return disturb(world, folder / "run", settings, kills, chance.draw(name))

        yield Trial(name, run)


SCENARIOS = (Scenario("relaunch", "random kill -9, two workers, a relaunch loop", _trials),)
