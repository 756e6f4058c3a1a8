"""Disks that are full, read-only, forbidden, gone, slow or failing, and a clock that is set back, while a run saves.

Each trial lets it happen in front of one operation on the files of a run, looks how the run ends, puts the disk right
and runs the same command again. No checkpoint may be lost, the end must have its reason, and the bits be the same.
"""

from __future__ import annotations

import errno
import functools
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kogpt2_gluon.errors import RecipeError
from tests.chaos.kills import RECORD, SAVE, SMALL, committed, newest_step
from tests.chaos.record import lives
from tests.chaos.scenario import LEFT_OUT, Chance, Scenario, Trial
from tests.chaos.world import TRAINER, Ended, World, check_same_end, record_of, wait_until

WENT_ON, ENDED = "went on", "ended with its reason"


@functools.cache
def can_mount() -> bool:
    return os.geteuid() == 0 and subprocess.run(["unshare", "--mount", "true"], check=False).returncode == 0


@contextmanager
def disk(folder: Path, size: int = 16 << 20) -> Iterator[Path]:
    """A file system of its own on a new folder."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)], check=True)
    try:
        yield folder
    finally:
        while subprocess.run(["umount", "--lazy", str(folder)], capture_output=True, check=False).returncode == 0:
            pass


class Night:
    """One run that something happens to.

    Parameters
    ----------
    world, folder
        `folder` has the run folder, and everything else.
    files : dict
        What happens: the arguments of a FileLayer. Its folder is that of the checkpoints.
    repair : callable
        Is called before the run is started again.
    ckpt_dir : Path, optional
        Where the checkpoints are, if not in the run folder.
    """

    def __init__(
        self,
        world: World,
        folder: Path,
        files: dict[str, Any],
        repair: Callable[[], Any] = lambda: None,
        ckpt_dir: Path | None = None,
        **options: Any,
    ) -> None:
        self.world, self.run_dir, self.repair, self.options = world, folder / "run", repair, options
        self.more = [*SMALL, *([f"checkpoint.ckpt_dir={ckpt_dir}"] if ckpt_dir else [])]
        self.ckpt_dir = ckpt_dir or self.run_dir / "checkpoints"
        self.files = {"folder": str(self.ckpt_dir), **files}

    def pass_by(self, straight: Path, reasons: Sequence[str], at_least: int) -> str:
        """Runs, repairs, runs again and compares. `reasons` are words of which one must be in the message of an end."""
        ended = self.world.train(self.run_dir, *self.more, files=self.files, **self.options)
        how = check_end(ended, reasons)
        self.repair()
        step = newest_step(self.ckpt_dir)
        assert step >= at_least, f"step {step} is left, not {at_least}\n{ended.output}"
        again = self.world.train(self.run_dir, *self.more)
        assert again.code == 0, f"after {ended.output}\nrun again: {again}"
        check_same_end(self.run_dir, straight, self.ckpt_dir)
        hidden = [path.name for path in (*self.ckpt_dir.iterdir(), *self.run_dir.iterdir()) if path.name[0] == "."]
        assert not hidden, f"left over: {hidden}"
        return how


def check_end(ended: Ended, reasons: Sequence[str]) -> str:
    """Raises AssertionError unless a run went on to its end, or ended with one line that has one of these words.

    The exit code is 2 where a run could not even begin.
    """
    assert "Traceback" not in ended.output, ended.output
    if ended.code == 0:
        return WENT_ON
    assert ended.code in (1, RecipeError.exit_code), ended
    last = ended.output.strip().splitlines()[-1]
    assert last.startswith("kogpt2: ") and any(reason in last for reason in reasons), ended.output
    return ENDED


def _nights(
    name: str, short: int, long: int, night: Callable[[World, Path, int, list[str]], Night], *reasons: str
) -> Callable[[World, Chance], Iterator[Trial]]:
    """Makes the trials of one kind: the same at a sample of the operations of a save."""

    def trials(world: World, chance: Chance) -> Iterator[Trial]:
        listed = SAVE.operations(world)
        for at in chance.sample(name, range(1, len(listed) + 1), short, long):

            def run(folder: Path, at: int = at) -> str:
                straight = world.straight("small", *SMALL)
                at_least = committed(listed[: at - 1])
                try:
                    return night(world, folder, at, listed).pass_by(straight, reasons, at_least)
                except AssertionError as error:
                    raise AssertionError(f"in front of {listed[at - 1]!r}: {error}") from error

            yield Trial(f"{name}-{at}", run)

    return trials


def _on_disk(
    trials: Callable[[World, Chance], Iterator[Trial]], keep: bool = False
) -> Callable[[World, Chance], Iterator[Trial]]:
    """Gives each trial a disk of its own; they are left out where none can be mounted."""

    def made(world: World, chance: Chance) -> Iterator[Trial]:
        for trial in trials(world, chance):

            def run(folder: Path, trial: Trial = trial) -> str:
                if not can_mount():
                    return LEFT_OUT
                with disk(folder / "disk"):
                    if keep:
                        (folder / "kept").mkdir()
                        subprocess.run(["mount", "--bind", str(folder / "disk"), str(folder / "kept")], check=True)
                    try:
                        return trial.run(folder)
                    finally:
                        if keep:
                            subprocess.run(["umount", "--lazy", str(folder / "kept")], check=True)

            yield Trial(trial.name, run)

    return made


# ---- what happens ----------------------------------------------------------------------------------------------------


def _full(world: World, folder: Path, at: int, listed: list[str]) -> Night:
    """Everything is on the disk: checkpoints, record and log."""
    filler = folder / "disk" / "filler"
    files = {"do": "fill", "at": at, "file": str(filler)}
    return Night(world, folder / "disk", files, repair=lambda: filler.unlink(missing_ok=True))


def _remount(folder: Path, how: str) -> list[str]:
    return ["mount", "-o", f"remount,{how}", str(folder / "disk")]


def _read_only(world: World, folder: Path, at: int, listed: list[str]) -> Night:
    """The checkpoints are on the disk alone; the system refuses the remount while one of them is being written."""
    files = {"do": "run", "at": at, "argv": _remount(folder, "ro")}
    repair = functools.partial(subprocess.run, _remount(folder, "rw"), check=True)
    return Night(world, folder, files, repair, ckpt_dir=folder / "disk" / "checkpoints")


def _vanished(world: World, folder: Path, at: int, listed: list[str]) -> Night:
    """The disk of the checkpoints is taken away, which leaves an empty folder on another disk, and comes back."""
    files = {"do": "run", "at": at, "argv": ["umount", "--lazy", str(folder / "disk")]}
    back = ["mount", "--bind", str(folder / "kept"), str(folder / "disk")]
    repair = functools.partial(subprocess.run, back, check=True)
    return Night(world, folder, files, repair, ckpt_dir=folder / "disk" / "checkpoints")


def _forbidden(world: World, folder: Path, at: int, listed: list[str]) -> Night:
    """chmod 000 on the folder of checkpoints. Root is given up its right to ignore that."""
    path = folder / "checkpoints"
    path.mkdir()
    as_others = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    files = {"do": "chmod", "at": at, "path": str(path), "mode": 0}
    return Night(world, folder, files, lambda: path.chmod(0o755), path, program=[*as_others, *TRAINER])


def _failing(number: int) -> Callable[[World, Path, int, list[str]], Night]:
    """One call fails, and the next one works again, as file servers have it."""

    def night(world: World, folder: Path, at: int, listed: list[str]) -> Night:
        return Night(world, folder, {"do": "fail", "at": at, "error": number})

    return night


def _record_failing(world: World, chance: Chance) -> Iterator[Trial]:
    """One call on the record of the run fails: log, metrics, report, recipe, environment, lock."""
    listed = RECORD.operations(world)
    for at in chance.sample("record-fails", range(1, len(listed) + 1), 1):

        def run(folder: Path, at: int = at) -> str:
            run_dir = folder / "run"
            files = {"folder": str(run_dir), "without": str(run_dir / "checkpoints"), "do": "fail", "error": errno.EIO}
            night = Night(world, folder, {**files, "at": at})
            try:
                return night.pass_by(world.straight("small", *SMALL), ["Input/output"], -1)
            except AssertionError as error:
                raise AssertionError(f"in front of {listed[at - 1]!r}: {error}") from error

        yield Trial(f"record-fails-{at}", run)


def _clock_trials(world: World, chance: Chance) -> Iterator[Trial]:
    """The clock that a process sees is set by a small library, which has to be compiled."""
    for trial in _nights("clock", 1, 15, _clock_back)(world, chance):
        yield trial if shutil.which("gcc") else Trial(trial.name, lambda folder: LEFT_OUT)


def _clock_back(world: World, folder: Path, at: int, listed: list[str]) -> Night:
    """The day's clock goes back by a year in the middle of the run, and stays there when it is started again."""
    library, back = world.folder / "clock.so", folder / "back"
    if not library.exists():
        source = Path(__file__).with_name("clock.c")
        subprocess.run(["gcc", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
    files = {"do": "touch", "at": at, "file": str(back)}
    return Night(world, folder, files, LD_PRELOAD=str(library), CHAOS_CLOCK=str(back))


# ---- a slow disk -----------------------------------------------------------------------------------------------------

SLOW = 0.04  # seconds an operation, so that a save takes two
LONG = (*SMALL, "training.num_steps=60", "checkpoint.interval=20", "checkpoint.keep=0", "evaluation.interval=0")


def _slow_trials(world: World, chance: Chance) -> Iterator[Trial]:
    def files(folder: Path) -> dict[str, Any]:
        log = str(folder / "log")
        return {"folder": str(folder / "run" / "checkpoints"), "do": "wait", "seconds": SLOW, "log": log}

    def goes_on(folder: Path) -> str:
        """Steps are made while a save is under way."""
        ended = world.train(folder / "run", *LONG, files=files(folder))
        assert ended.code == 0, ended
        check_same_end(folder / "run", world.straight("slow", *LONG))
        lines = [line.split(" ", 1) for line in (folder / "log").read_text().splitlines()]
        times = [float(at) for at, operation in lines if "step-00000020" in operation]
        (life,) = lives(record_of(folder / "run"))
        meanwhile = sum(min(times) < at < max(times) for at in life.times)
        assert meanwhile >= 5, f"only {meanwhile} steps were made while step 20 was saved"
        return WENT_ON

    def stopped(folder: Path) -> str:
        """SIGTERM while a save is under way: that one and the one of the stop are both made."""
        training = world.start(folder / "run", *LONG, files=files(folder))
        begun = folder / "run" / "checkpoints"
        wait_until(lambda: any(begun.glob(".step-00000020*")), "the save of step 20")
        training.process.send_signal(signal.SIGTERM)
        ended = training.wait()
        assert ended.code == 75, ended
        step = newest_step(begun)
        assert (begun / "step-00000020").is_dir() and step >= 20, step
        ended = world.train(folder / "run", *LONG)
        assert ended.code == 0, ended
        check_same_end(folder / "run", world.straight("slow", *LONG))
        return "saved, 75"

    yield Trial("goes-on", goes_on)
    if not chance.short:
        yield Trial("stopped", stopped)


SCENARIOS = (
    Scenario("full", "a disk is full (a small tmpfs)", _on_disk(_nights("full", 1, 40, _full, "disk is full"))),
    Scenario("read-only", "a disk becomes read-only", _on_disk(_nights("ro", 1, 20, _read_only, "Read-only"))),
    Scenario(
        "vanished",
        "the mount of the checkpoints goes and comes back",
        _on_disk(_nights("vanished", 1, 15, _vanished, "No such file", "is gone"), keep=True),
    ),
    Scenario("forbidden", "chmod 000 on the checkpoints", _nights("chmod", 1, 20, _forbidden, "Permission denied")),
    Scenario("stale", "a stale handle (ESTALE)", _nights("stale", 1, 15, _failing(errno.ESTALE), "Stale file handle")),
    Scenario("io-error", "an error of a disk (EIO)", _nights("eio", 1, 15, _failing(errno.EIO), "Input")),
    Scenario("quota", "a quota (EDQUOT)", _nights("quota", 1, 15, _failing(errno.EDQUOT), "quota is used")),
    Scenario("record-fails", "an error (EIO) in the record of a run", _record_failing, long=True),
    Scenario("clock", "the clock is set back by a year", _clock_trials),
    Scenario("slow", "each operation on a checkpoint takes 40 ms", _slow_trials, at_once=1),
)
