"""Readers and trainings that start and stop, 200 times: no thread outlives the loop, and nothing hangs at exit."""

from __future__ import annotations

import contextlib
import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from kogpt2_gluon.errors import INTERRUPTED, DataError, PreemptedError
from kogpt2_gluon.machine.worker import Worker
from kogpt2_gluon.reading import open_sets
from kogpt2_gluon.reading.training_data import open_training_reader
from kogpt2_gluon.recipe import load_recipe
from tests.chaos.scenario import Chance, Scenario, Trial
from tests.chaos.world import Training, World, wait_until

CLEAN = "no thread or file left"
READERS = ("by the sequence", "by the chunk", "cached", "text")
ENDS = ("close", "error", "before the first block")  # of a reader
# Of a training, each with the exit codes that are right; a signal may come before there is anything to save.
TRAININGS = {
    "done": (0,),
    "SIGTERM": (PreemptedError.exit_code, -signal.SIGTERM),
    "SIGINT": (PreemptedError.exit_code, INTERRUPTED, -signal.SIGINT),
    "damaged data": (DataError.exit_code,),
}
SHORT, PER_READER, PER_TRAINING = 1, 14, 8  # 14 x 4 x 3 readers and 8 x 4 trainings: 200


class Failed(Exception):
    """The error that a loop over a reader fails with."""


def threads_and_files() -> tuple[set[threading.Thread], int]:
    """This process's threads, and the number of its open files."""
    return set(threading.enumerate()), sum(1 for _ in Path("/proc/self/fd").iterdir())


def check_clean(before: tuple[set[threading.Thread], int]) -> str:
    after = threads_and_files()
    left = sorted(thread.name for thread in after[0] - before[0])
    assert not left, f"threads that outlive the reader: {', '.join(left)}"
    assert after[1] <= before[1], f"{after[1] - before[1]} files are still open"
    return CLEAN


def start_and_stop_a_reader(world: World, folder: Path, kind: str, end: str, draw: random.Random) -> str:
    """Opens a reader, reads some of it, and leaves it at once, while its threads read on."""
    more = {
        "cached": ["data.cache=full", f"data.cache_dir={folder / 'cache'}"],
        "text": [
            "data.source=text",
            f"data.train={world.shards / 'text.txt'}",
            f"data.tokenizer={world.shards / 'tokenizer.model'}",
        ],
    }
    recipe = load_recipe("debug_cpu", world.settings(folder / "run", *more.get(kind, [])))
    small = 1 << 40 if kind == "by the sequence" else 0
    before = threads_and_files()
    patch = mock.patch.object(open_sets, "SMALL_SET_BYTES", small)
    with contextlib.suppress(Failed), patch, open_training_reader(recipe, Worker()) as reader:
        blocks = reader.blocks()
        for _ in range(0 if end == "before the first block" else draw.randint(1, 4)):
            next(blocks)
        time.sleep(draw.choice([0.0, 0.0, 0.01, 0.1]))
        if end == "error":
            raise Failed
    return check_clean(before)


def start_and_stop_a_training(world: World, folder: Path, end: str, draw: random.Random) -> str:
    """Starts `kogpt2 train` and lets it end, or ends it, somewhere between its first line and its last."""
    steps = 2000 if end.startswith("SIG") else 3
    settings = [f"training.num_steps={steps}", "checkpoint.interval=2"]
    if end == "damaged data":
        train = folder / "train"
        train.mkdir()
        for file in (world.shards / "train").iterdir():
            (train / file.name).write_bytes(file.read_bytes())
        shard = next(train.glob("*.ktok"))
        shard.write_bytes(bytes(20_000) + shard.read_bytes()[20_000:])
        settings.append(f"data.train={train}")
    training: Training = world.start(folder / "run", *settings, record=False)
    if end.startswith("SIG"):
        if draw.random() < 0.3:  # before there is anything to save
            time.sleep(draw.uniform(0.0, 2.0))
        else:
            wait_until(lambda: "step    " in training.output(), "its first step")
            time.sleep(draw.uniform(0.0, 0.5))
        training.process.send_signal(getattr(signal, end))
    ended = training.wait()
    assert ended.code in TRAININGS[end], f"exit code {ended.code}\n{ended.output[-2000:]}"
    return f"training, code {ended.code}"


def _trials(world: World, chance: Chance) -> Iterator[Trial]:
    start_and_stop_a_reader(world, world.folder / "warm", "text", "close", random.Random(0))  # what is imported late
    for number in range(SHORT if chance.short else PER_READER):
        for kind in READERS:
            for end in ENDS:
                name = f"reader-{kind}-{end}-{number}".replace(" ", "_")
                draw = chance.draw(name)

                def read(folder: Path, kind: str = kind, end: str = end, draw: random.Random = draw) -> str:
                    return start_and_stop_a_reader(world, folder, kind, end, draw)

                yield Trial(name, read)
    for number in range(SHORT if chance.short else PER_TRAINING):
        for end in chance.sample("trainings", TRAININGS, 2):
            name = f"training-{end}-{number}".replace(" ", "_")
            draw = chance.draw(name)

            def train(folder: Path, end: str = end, draw: random.Random = draw) -> str:
                return start_and_stop_a_training(world, folder, end, draw)

            yield Trial(name, train)


# One at a time: the threads of a reader are those of this process.
SCENARIOS = [Scenario("starts", "starts and stops of readers and trainings", _trials, at_once=1)]
