"""A trial from one rung to the next, as a process: `kogpt2 train` with the trial's settings, until a step."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from kogpt2_gluon.errors import DivergedError, KoGPT2Error, PreemptedError, RecipeError
from kogpt2_gluon.machine import job
from kogpt2_gluon.runs.lock import RunLock
from kogpt2_gluon.search.space import Setting, overrides

TRAIN = (sys.executable, "-m", "kogpt2_gluon.cli.main", "train")


class Slice:
    """A process that trains a trial to a step. It ends with this one: with its state saved, as after any SIGTERM.

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
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # closed at the end of the slice
        own = [*overrides(settings), f"tracking.run_dir={run_dir}", *extra]
        environment = {**os.environ, **({} if devices is None else {"CUDA_VISIBLE_DEVICES": devices})}
        argv = [*command, str(recipe_file), *own, "--until", str(until)]
        try:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # RUN/log.txt has it
                stderr=self._errors,
                env=environment,
                start_new_session=True,
                preexec_fn=job.end_with_parent(signal.SIGTERM),
            )
        except OSError as error:
            self._close()
            raise RecipeError(f"--run-with {command[0]}: cannot be started ({error.strerror})") from None

    def has_ended(self) -> bool:
        """Returns True once the process is gone."""
        return self._process.poll() is not None

    def stop(self) -> None:
        """Asks the process to save its state and end."""
        if not self.has_ended():
            self._process.terminate()

    def wait(self) -> None:
        """Waits for the end."""
        self._process.wait()
        self._close()

    def end(self) -> tuple[int, str]:
        """Gives the trial free, once the process is gone; returns its exit code and the last line of its stderr."""
        code, said = self._process.returncode, self._last_words()
        self._close()
        return code, said

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read()[-4000:].decode("utf-8", "replace").strip().split("\n")
        return lines[-1].removeprefix("kogpt2: ")

    def _close(self) -> None:
        self._errors.close()
        self._claim.close()


def why_it_failed(code: int, said: str, reached: bool, run_dir: Path) -> str:
    """Returns why a trial cannot go on, "" if it can, by the exit code and the last words of a slice of it.

    `reached` says that the trial has its result. Raises PreemptedError if somebody stopped it on the way, and otherwise
    the KoGPT2Error of what would stop every other trial too.
    """
    if reached and code in (0, PreemptedError.exit_code):
        return ""
    if code == DivergedError.exit_code:
        return said
    if code in (PreemptedError.exit_code, -signal.SIGTERM):
        raise PreemptedError(f"{run_dir}: was stopped on the way; the same command goes on")
    error = KoGPT2Error(f"{run_dir}: {said or f'ended with exit code {code} and without the result of a rung'}")
    error.exit_code = code if code > 0 else 1
    raise error


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
