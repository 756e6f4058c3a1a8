"""A trial from one rung to the next, as a process: `kogpt2 train` with the trial's settings, until a step."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.machine.child_verb import ChildVerb
from kogpt2_gluon.runs.lock import RunLock
from kogpt2_gluon.search.space import Setting, overrides

TRAIN = (sys.executable, "-m", "kogpt2_gluon.cli.main", "train")


class Slice:
    """A process that trains a trial to a step.

    `place` of `places` says which share of this machine is its own: of the GPUs, and of the CPU's cores if the recipe
    leaves the number of threads open.
    """

    def __init__(
        self,
        number: int,
        until: int,
        settings: Mapping[str, Setting],
        recipe_file: Path,
        run_dir: Path,
        claim: RunLock,
        command: Sequence[str],
        extra: Sequence[str] = (),
        devices: str | None = None,
    ) -> None:
        self.number, self.until, self._claim = number, until, claim
        own = [*overrides(settings), f"tracking.run_dir={run_dir}", *extra]
        environment = {**os.environ, **({} if devices is None else {"CUDA_VISIBLE_DEVICES": devices})}
        argv = [*command, str(recipe_file), *own, "--until", str(until)]
        try:
            self._verb = ChildVerb(argv, subprocess.DEVNULL, environment)  # RUN/log.txt has what it prints
        except RecipeError:
            claim.close()
            raise

    def has_ended(self) -> bool:
        """Returns True once the process is gone."""
        return self._verb.has_ended()

    def stop(self) -> None:
        """Asks the process to save its state and end."""
        self._verb.stop()

    def wait(self) -> None:
        """Waits for the end."""
        self._verb.wait()
        self._close()

    def end(self) -> tuple[int, str]:
        """Gives the trial free, once the process is gone; returns its exit code and the last line of its stderr."""
        code, said = self._verb.wait(), self._verb.last_line()
        self._close()
        return code, said

    def _close(self) -> None:
        self._verb.close()
        self._claim.close()


def shares_of_gpus(places: int) -> list[str | None]:
    """Returns CUDA_VISIBLE_DEVICES for each of so many processes; None where it stays as it is.

    All GPUs are dealt out. With fewer GPUs than processes some share one.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        devices = [each for each in visible.split(",") if each]
    else:
        devices = [str(number) for number, _ in enumerate(Path("/dev").glob("nvidia[0-9]*"))]
    if not devices or places == 1:
        return [None] * places
    return [",".join(devices[place::places]) or devices[place % len(devices)] for place in range(places)]
