"""Shared by all scenarios: small shards, a tiny training, undisturbed runs to compare with, processes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from kogpt2_gluon.runs.checkpoint import open_checkpoint
from kogpt2_gluon.runs.metrics import read_metrics
from tests.chaos.record import differences
from tests.helpers import ROOT, make_shards, tiny_settings

TRAINER = [sys.executable, str(ROOT / "tests" / "chaos" / "trainer.py")]
LAUNCHER = [sys.executable, str(ROOT / "tests" / "chaos" / "launcher.py")]
CHAOS = "KOGPT2_CHAOS"  # the variable that trainer.py reads
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
LONGEST = 120.0  # seconds; what takes longer hangs
KILLED = -signal.SIGKILL

DATE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")  # begins a line of log.txt


class Ended(NamedTuple):
    """How a process ended: its exit code (-N for signal N) and all that it printed."""

    code: int
    output: str


class Training:
    """A process that trains, with faults of its own if it is given some.

    Parameters
    ----------
    arguments : sequence
        What comes after `kogpt2`.
    output : Path
        Gets all that it prints.
    files : mapping, optional
        The arguments of a :class:`tests.chaos.file_layer.FileLayer`.
    record : Path, optional
        A folder in which it writes down what it trains on.
    memory : mapping, optional
        The arguments of :func:`tests.chaos.faults.flip_in_memory`.
    program : sequence of str, optional
        What is started instead of trainer.py.
    """

    def __init__(
        self,
        arguments: Sequence[object],
        output: Path,
        files: Mapping[str, Any] | None = None,
        record: Path | None = None,
        memory: Mapping[str, int] | None = None,
        program: Sequence[str] = (),
        **variables: str,
    ) -> None:
        faults = json.dumps({"files": files, "record": str(record) if record else None, "memory": memory})
        self._output = output
        with output.open("ab") as stream:
            self.process = subprocess.Popen(
                [*(program or TRAINER), *map(str, arguments)],
                env={**os.environ, **ONE_THREAD, CHAOS: faults, **variables},
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
            )

    def wait(self, seconds: float = LONGEST) -> Ended:
        """Waits for its end; AssertionError, and no process left, if that takes longer."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"it hangs: no end in {seconds:g} s\n{self.output()[-2000:]}") from None
        return Ended(code, self.output())

    def output(self) -> str:
        return self._output.read_text(errors="replace")


class World:
    """A folder with shards, and undisturbed runs in it, each made when it is first asked for.

    Several threads may use it.
    """

    def __init__(self, folder: Path, shards: Path | None = None) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.shards = shards or make_shards(folder / "shards")
        self._lock = threading.Lock()

    def settings(self, run_dir: Path, *more: str) -> list[str]:
        """The overrides of a tiny training in `run_dir`."""
        return [*tiny_settings(self.shards, run_dir), *more]

    def start(self, run_dir: Path, *more: str, record: bool = True, **options: Any) -> Training:
        """Begins `kogpt2 train` with tiny settings; `more` may change them, and add flags."""
        output = run_dir.with_name(f"{run_dir.name}.out")
        arguments = ["train", "debug_cpu", *self.settings(run_dir, *more)]
        return Training(arguments, output, record=record_of(run_dir) if record else None, **options)

    def train(self, run_dir: Path, *more: str, **options: Any) -> Ended:
        """Trains to the end."""
        return self.start(run_dir, *more, **options).wait()

    def launch(self, run_dir: Path, *more: str, size: int = 2, restarts: int = 0, **options: Any) -> Training:
        """Begins the same with several workers, by the launcher."""
        output = run_dir.with_name(f"{run_dir.name}.out")
        arguments = [size, restarts, *self.settings(run_dir, *more)]
        return Training(arguments, output, record=record_of(run_dir), program=LAUNCHER, **options)

    def straight(self, name: str, *more: str, size: int = 1) -> Path:
        """The folder of an undisturbed run with these settings."""
        run_dir = self.folder / "straight" / name
        with self._lock:
            if not (run_dir / "report.html").exists():
                run_dir.parent.mkdir(exist_ok=True)
                begin = self.start if size == 1 else self.launch
                ended = begin(run_dir, *more).wait()
                assert ended.code == 0, ended
        return run_dir


def record_of(run_dir: Path) -> Path:
    """The folder in which the processes of a run write down what they trained on."""
    return run_dir.with_name(f"{run_dir.name}.record")


def parameters(path: Path) -> dict[str, bytes]:
    """The files with the arrays of the newest checkpoint, after all its hashes were compared."""
    checkpoint = open_checkpoint(path)
    checkpoint.verify()
    return {name: (checkpoint.path / name).read_bytes() for name in ("model.params", "optimizer.params")}


def _state(path: Path) -> dict[str, Any]:
    """The state of the newest checkpoint, without what depends on the folder that it is in."""
    return {name: value for name, value in open_checkpoint(path).state().items() if name != "recipe_fingerprint"}


def losses(run_dir: Path) -> list[tuple[str, int, float]]:
    return [(line["kind"], line["step"], line["loss"]) for line in read_metrics(run_dir)]


def entries(folder: Path) -> list[str]:
    """All names below a run folder, without the times in them, and without what the launcher writes."""
    found = (str(path.relative_to(folder)) for path in folder.rglob("*"))
    names = (name.partition("before-step-")[0] + "before-step" * ("before-step-" in name) for name in found)
    return sorted(name for name in names if name.split("/")[0] != "launch")


def check_same_end(run_dir: Path, straight: Path, ckpt_dir: Path | None = None) -> None:
    """Raises AssertionError unless a disturbed run ended as the undisturbed one did, with the same bits."""
    saved = ckpt_dir or run_dir
    assert parameters(saved) == parameters(straight), "other parameters at the end"
    assert _state(saved) == _state(straight), "another state at the end"
    assert losses(run_dir) == losses(straight), f"another record: {losses(run_dir)}"
    log = (run_dir / "log.txt").read_text(encoding="utf-8", errors="replace").splitlines()
    assert not [line for line in log if DATE.search(line, 1)], "a line of log.txt begins in the middle of another"
    faults = differences(record_of(run_dir), record_of(straight))
    assert not faults, "; ".join(faults)


def check_same_files(run_dir: Path, straight: Path) -> None:
    """Raises AssertionError unless the folders of both runs have the same names in them."""
    more = set(entries(run_dir)) - set(entries(straight))
    less = set(entries(straight)) - set(entries(run_dir))
    assert not more and not less, f"left over: {sorted(more)}; missing: {sorted(less)}"


def wait_until(condition: Any, what: str, seconds: float = LONGEST) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.002)
