"""Which worker of a job this process is, as the program that started it says. Standard library alone."""

from __future__ import annotations

import os


def local_size() -> int:
    """Workers of this job on this host, as horovodrun or mpirun tells them; 1 without either."""
    return _first_number("HOROVOD_LOCAL_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS")


def job_size() -> int:
    """Workers of this job on all hosts; 1 without a launcher.

    horovodrun sets its own variable only when it starts workers by Gloo; started by MPI, they have MPI's.
    """
    return _first_number("HOROVOD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")


def _first_number(*names: str) -> int:
    """The first of these environment variables that holds a whole number above 0; else 1."""
    values = (os.environ.get(name, "") for name in names)
    return next((int(value) for value in values if value.isdigit() and int(value)), 1)
