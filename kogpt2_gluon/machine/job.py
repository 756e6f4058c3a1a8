"""The contract between the launcher and a worker: every name, file and time that both of them use.

It also answers which worker of a job this process is, from the variables that the program which started it has set.
The launcher sends this file to its hosts, so it needs the standard library alone.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import re
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Callable, NamedTuple

# ---- names and times ------------------------------------------------------------------------------------------------

# Variables that the launcher sets for a worker. The first two also mark everything that the worker starts: processes of
# a launch are found by them, and those of another job or of a reused process number are never touched.
LAUNCH_ID = "KOGPT2_LAUNCH_ID"  # one for each attempt
LAUNCH_RANK = "KOGPT2_LAUNCH_RANK"
PROGRESS_FILE = "KOGPT2_PROGRESS_FILE"  # where the worker writes how far it is; see progress_line

STOP_FILE = "stop"  # in the run folder; once it is there, the workers save their state and end
ECHO_SECONDS = 3.0  # a scheduler's SIGTERM may arrive twice, directly and through the launcher: that is one request


def stop_file(run_dir: str | Path) -> Path:
    """The file of a run folder that makes a running training save its state and end."""
    return Path(run_dir, STOP_FILE)


def progress_line(step: int, beats: int) -> bytes:
    """The content of the progress file. It always has the same length, so that a reader never sees half of it."""
    return f"{step:>15} {beats:>15}\n".encode("ascii")


def read_progress(path: Path) -> tuple[int, int]:
    """The step and the beats of a progress file; (-1, 0) while there is none."""
    try:
        step, beats = path.read_text(encoding="ascii").split()
        return int(step), int(beats)
    except (OSError, ValueError):
        return -1, 0


def rank_that_differs(line: str) -> int | None:
    """The rank that a worker's error names as the only one with other parameters than the rest; None if it names none.

    The error is that of training/replicas.py.
    """
    found = re.search(r": rank (\d+) \(.*?\) differs from the \d+ other workers", line)
    return int(found[1]) if found else None


def keep_exit_code() -> None:
    """Makes this process deaf to SIGTERM while it ends, for one that has obeyed a request to stop.

    Python gives a signal its default effect back before it takes its modules apart. A second SIGTERM, of an engine or
    a scheduler, would then take the place of the exit code that says that the state is saved.
    """
    atexit.register(signal.signal, signal.SIGTERM, signal.SIG_IGN)


def end_with_parent(number: int = signal.SIGKILL) -> Callable[[], None]:
    """Returns a `preexec_fn` that makes the kernel send this signal to the child when the calling process ends.

    The kernel sends it when the *thread* that started the child ends, so start the child from the main thread.
    """
    # The function is looked up before the fork: little is safe between fork and exec.
    prctl, parent = ctypes.CDLL(None, use_errno=True).prctl, os.getpid()

    def in_the_child() -> None:
        prctl(1, number)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:  # the parent ended before the call
            os.kill(os.getpid(), number)

    return in_the_child


# ---- which worker is this? ------------------------------------------------------------------------------------------


class Numbering(NamedTuple):
    """The variables by which one kind of engine numbers its workers; None if it sets none that can be trusted."""

    rank: str
    size: str | None
    local_rank: str
    local_size: str | None


HOROVODRUN = Numbering("HOROVOD_RANK", "HOROVOD_SIZE", "HOROVOD_LOCAL_RANK", "HOROVOD_LOCAL_SIZE")

# The first that is set counts. horovodrun sets its own variables only when it starts workers by Gloo; workers that it
# starts by MPI have MPI's. An engine inside a Slurm job has both its own and Slurm's, so Slurm comes last.
NUMBERINGS = (
    HOROVODRUN,
    Numbering(  # Open MPI
        "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"
    ),
    Numbering("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),  # MPICH and Intel MPI
    # Slurm's sizes are left out: a batch script that starts one worker has them too, and there they are the job's
    # limits.
    Numbering("SLURM_PROCID", None, "SLURM_LOCALID", None),
)


def rank(environment: Mapping[str, str] | None = None) -> int | None:
    """The rank that an engine gave to a process; None without an engine. Default: this process."""
    return _first_number([each.rank for each in NUMBERINGS], environment)


def local_rank(environment: Mapping[str, str] | None = None) -> int | None:
    """The rank of a process among the workers of its host; None without an engine."""
    return _first_number([each.local_rank for each in NUMBERINGS], environment)


def local_size() -> int:
    """The number of workers of this job on this host; 1 without an engine."""
    return _first_number([each.local_size for each in NUMBERINGS], least=1) or 1


def job_size() -> int:
    """The number of workers of this job on all hosts; 1 without an engine."""
    return _first_number([each.size for each in NUMBERINGS], least=1) or 1


def _first_number(
    names: Sequence[str | None], environment: Mapping[str, str] | None = None, least: int = 0
) -> int | None:
    """The first of these variables that holds a whole number of at least `least`."""
    environment = os.environ if environment is None else environment
    values = (environment.get(name, "") for name in names if name)
    return next((int(value) for value in values if value.isdigit() and int(value) >= least), None)
