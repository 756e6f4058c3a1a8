"""A verb as a child process: it ends with this one, and its last line says why it failed."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from typing import IO

from kogpt2_gluon.errors import KoGPT2Error, PreemptedError, RecipeError
from kogpt2_gluon.machine import job

SAID_BYTES = 4000  # of the end of stderr, in which the last line is looked for


class ChildVerb:
    """A process of a verb in a session of its own. When this one ends it gets SIGTERM, and saves its state.

    Parameters
    ----------
    argv : sequence of str
        The command, from what --run-with names on.
    stdout : int or file
        As of subprocess.Popen; None is the terminal's.
    environment : mapping, optional
        Instead of this process's.

    Raises RecipeError if the command cannot be started.
    """

    def __init__(
        self, argv: Sequence[str], stdout: int | IO[bytes] | None, environment: Mapping[str, str] | None = None
    ) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # closed by close()
        try:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=self._errors,
                env=environment,
                start_new_session=True,
                preexec_fn=job.end_with_parent(signal.SIGTERM),
            )
        except OSError as error:
            self.close()
            raise RecipeError(f"--run-with {argv[0]}: cannot be started ({error.strerror})") from None

    def has_ended(self) -> bool:
        """Returns True once the process is gone."""
        return self._process.poll() is not None

    def stop(self) -> None:
        """Asks the process to save its state and end."""
        if not self.has_ended():
            self._process.terminate()

    def wait(self) -> int:
        """Waits for the end; returns the exit code."""
        return self._process.wait()

    def last_line(self) -> str:
        """Returns the last line of its stderr, without the name of the command; "" if it has written nothing."""
        size = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, size - SAID_BYTES))
        lines = self._errors.read().decode("utf-8", "replace").strip().split("\n")
        return lines[-1].removeprefix("kogpt2: ")

    def close(self) -> None:
        """Forgets what it has written."""
        self._errors.close()


def error_of(code: int, name: str, said: str, stopped: str) -> KoGPT2Error:
    """Returns the error for a verb that ended with an exit code other than 0; `name` begins its line.

    It is a PreemptedError with the text `stopped` if somebody stopped the verb, and else one that says what the verb
    `said`, with the verb's own exit code.
    """
    if code in (PreemptedError.exit_code, -signal.SIGTERM):
        return PreemptedError(f"{name}: {stopped}; the same command goes on")
    error = KoGPT2Error(f"{name}: {said}")
    error.exit_code = code if code > 0 else 1
    return error
