"""kill -9 in front of every operation on files of a run, in the middle of each write, and after a resume from there.

A run is carried out once to list its operations. Then it is started again for each of them, in a process that kills
itself there, looked at as it lies on the disk, and resumed by the same command. Saves happen in the background.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from kogpt2_gluon.runs.checkpoint import newest_whole
from kogpt2_gluon.storage.files import remove_partials
from tests.chaos.scenario import Chance, Scenario, Trial
from tests.chaos.world import KILLED, World, check_same_end, check_same_files, entries, record_of

# Three saves (of the steps 0, 1 and 2) and two prunes; evaluations move the best checkpoint.
STEPS = ("training.num_steps=2", "checkpoint.interval=1", "checkpoint.keep=1", "evaluation.interval=1")
SMALL = ("model.num_layers=1", "model.units=16", *STEPS)
COMMITTED = re.compile(r"rename \.step-.*\* step-(\d{8})")
NAMED = "replace .latest.* latest"  # from here on a resume takes the checkpoint that was committed before


def committed(done: Sequence[str]) -> int:
    """The step from which a resume goes on after these operations, at least; -1 if nothing was saved yet."""
    step = -1
    for at, line in enumerate(done):
        found = COMMITTED.fullmatch(line)
        if found and (step < 0 or NAMED in done[at:]):
            step = int(found[1])
    return step


class Kills:
    """The trials of one kind of run.

    Parameters
    ----------
    name : str
    inside, outside : str
        The part of the run folder whose operations count, and a part of it that does not.
    settings : sequence of str
    prepared : sequence of str, optional
        The settings of a run to its end that comes first, which the killed one goes on from.
    back : str, optional
        A step's name: the killed run goes back to it, the one that resumes it does not.
    do : str, optional
        The action that ends it, one of a FileLayer.
    exchanges : bool, optional
        False: on a file system that cannot exchange two names.
    """

    def __init__(
        self,
        name: str,
        settings: Sequence[str],
        inside: str = "checkpoints",
        outside: str = "",
        prepared: Sequence[str] = (),
        back: str = "",
        do: str = "kill",
        exchanges: bool = True,
    ) -> None:
        self.name, self.settings, self.inside, self.outside = name, settings, inside, outside
        self.prepared, self.back = prepared, back
        self._do, self._exchanges = do, exchanges
        self._operations: list[str] = []

    def straight(self, world: World) -> Path:
        """The folder of the undisturbed run; its record has both parts if there are two."""
        return self._listed_run(world) if self.prepared else world.straight("small", *self.settings)

    def _listed_run(self, world: World) -> Path:
        """An undisturbed run, whose operations are listed next to it."""
        run_dir = world.folder / "straight" / self.name
        if not run_dir.exists():
            run_dir.parent.mkdir(exist_ok=True)
            self._prepare(world, run_dir)
            log = run_dir.with_name(f"{self.name}.operations")
            ended = world.train(run_dir, *self._killed(run_dir), files={**self._files(run_dir), "log": str(log)})
            assert ended.code == 0, ended
            self._operations = [line.partition(" ")[2] for line in log.read_text().splitlines()]
        return run_dir

    def operations(self, world: World) -> list[str]:
        """Lists the operations that the trials are about."""
        self._listed_run(world)
        return self._operations

    def _files(self, run_dir: Path) -> dict[str, Any]:
        """The operations that count."""
        without = str(run_dir / self.outside) if self.outside else ""
        return {"folder": str(run_dir / self.inside), "without": without, "exchanges": self._exchanges}

    def _killed(self, run_dir: Path) -> list[str]:
        """The settings and flags of the run that is killed."""
        flags = ["--resume", str(run_dir / "checkpoints" / self.back)] if self.back else []
        return [*self.settings, *flags]

    def _prepare(self, world: World, run_dir: Path) -> None:
        if self.prepared:
            first = world.straight(f"{self.name}.prepared", *self.prepared)
            shutil.copytree(first, run_dir)
            shutil.copytree(record_of(first), record_of(run_dir))

    def trials(self, world: World, chance: Chance, short: int, torn_short: int) -> Iterator[Trial]:
        found = self.operations(world)
        places = chance.sample(self.name, range(1, len(found) + 1), short)
        yield from (self._trial(world, found, at, 0.0) for at in places)
        writes = [at for at, line in enumerate(found, 1) if line.startswith("write ")]
        torn = chance.sample(self.name, writes, torn_short, len(writes) // 3) if self._do == "kill" else []
        yield from (self._trial(world, found, at, 0.5) for at in torn)

    def _trial(self, world: World, found: Sequence[str], at: int, torn: float) -> Trial:
        def run(folder: Path) -> str:
            straight, run_dir = self.straight(world), folder / "run"
            self._prepare(world, run_dir)
            before = newest_step(run_dir / "checkpoints")
            given = {"torn": torn} if torn else {}
            files = {**self._files(run_dir), "do": self._do, "at": at, **given}
            ended = world.train(run_dir, *self._killed(run_dir), files=files)
            assert ended.code == KILLED, f"in front of {found[at - 1]!r}: exit code {ended.code}\n{ended.output}"
            where = f"killed in front of {found[at - 1]!r}"
            expected = max(before, committed(found[: at - 1]))
            if not self._exchanges:
                remove_partials(run_dir / "checkpoints")  # as the run does first: a name may be between two renames
            left = newest_step(run_dir / "checkpoints")
            if self.inside and not self.back:
                assert left >= expected, f"{where}: step {left} is left, not {expected}"
            ended = world.train(run_dir, *self.settings)
            assert ended.code == 0, f"{where}, resumed: exit code {ended.code}\n{ended.output}"
            try:
                check_same_end(run_dir, straight)
                if self.back:
                    _check_nothing_deleted(run_dir, straight)
                else:
                    check_same_files(run_dir, straight)
            except AssertionError as error:
                raise AssertionError(f"{where}: {error}\n{entries(run_dir)}") from None
            return "torn" if torn else "resumed"

        return Trial(f"{self.name}-{at}{'-torn' if torn else ''}", run)


def newest_step(ckpt_dir: Path) -> int:
    """The step of the checkpoint that a resume would take; -1 if there is none. None is damaged."""
    found, faults = newest_whole(ckpt_dir)
    assert not faults, f"damaged: {faults}"
    return int(found.state()["step"]) if found else -1


def _check_nothing_deleted(run_dir: Path, straight: Path) -> None:
    names = {path.name for path in straight.rglob("step-*")}
    assert {path.name for path in run_dir.rglob("step-*")} == names, "a checkpoint is gone"
    hidden = [path.name for path in (run_dir / "checkpoints").glob(".*")]
    assert not hidden, f"left over: {hidden}"


SAVE = Kills("save", SMALL)
RECORD = Kills("record", SMALL, inside="", outside="checkpoints")
# The held-out data is new to a finished run, so the last step is evaluated and saved again under the same name.
AGAIN = Kills("again", (*SMALL, "checkpoint.keep_best=false"), prepared=(*SMALL, "data.test="))
NO_EXCHANGE = Kills("two-renames", AGAIN.settings, prepared=AGAIN.prepared, exchanges=False)
POWER = Kills("power", SMALL, do="cut-power")
ALL = (*SMALL, "checkpoint.keep=0", "checkpoint.keep_best=false")
BACK = Kills("back", ALL, prepared=ALL, back="step-00000001")


def _trials(kills: Kills, short: int, torn_short: int) -> Any:
    def make(world: World, chance: Chance) -> Iterable[Trial]:
        return kills.trials(world, chance, short, torn_short)

    return make


SCENARIOS = (
    Scenario("save", "kill -9 at each file operation of saves and prunes", _trials(SAVE, 1, 1)),
    Scenario("power", "a power cut at each of them: what is not forced onto the disk is gone", _trials(POWER, 1, 0)),
    Scenario("record", "kill -9 at each other file operation of a run", _trials(RECORD, 1, 0)),
    Scenario("back", "kill -9 while a run goes back to an earlier step", _trials(BACK, 1, 0)),
    Scenario("again", "kill -9 while a step is saved again", _trials(AGAIN, 1, 0)),
    Scenario("two-renames", "the same where names cannot be exchanged (NFS)", _trials(NO_EXCHANGE, 1, 0)),
)
