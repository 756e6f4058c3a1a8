"""Requests to a run that is training, as files in its folder: `kogpt2 set` writes them, and the run obeys.

A request appears whole, under a name that sorts by its time. The run removes it once it has obeyed or refused it.
"""

from __future__ import annotations

import getpass
import json
import os
import socket
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.storage.files import replace_file

FOLDER = "requests"  # in the run folder
LARGEST = 64 << 10  # bytes of a request


@dataclass(frozen=True)
class Request:
    """One request.

    Attributes
    ----------
    settings : list of str
        Changes to the recipe, each ``section.key=value``.
    save, evaluate : bool
        True if the run is asked to save its state, or to score the held-out set, and go on.
    by : str
        Who asks: ``user@host``.
    """

    settings: list[str] = field(default_factory=list)
    save: bool = False
    evaluate: bool = False
    by: str = ""


def me() -> str:
    """Returns ``user@host`` of this process."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # an id without a name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def send(run_dir: Path, request: Request) -> Path:
    """Puts a request into the folder of a run; returns its file. RecipeError if it cannot be written."""
    folder = run_dir / FOLDER
    path = folder / f"{time.time_ns():020d}-{os.getpid()}.json"
    try:
        folder.mkdir(exist_ok=True)
        with replace_file(path) as file:
            file.write(json.dumps(asdict(request), ensure_ascii=False).encode())
    except OSError as error:
        raise RecipeError(f"{path}: the request cannot be written ({error.strerror})") from None
    return path


def waiting(run_dir: Path) -> list[Path]:
    """Returns the files of the requests that are not obeyed yet, the oldest first."""
    try:
        return sorted(path for path in (run_dir / FOLDER).iterdir() if path.suffix == ".json")
    except OSError:
        return []


def read_request(path: Path) -> Request:
    """Reads a request. DataError if it is not one."""
    try:
        with path.open("rb") as file:
            plain: Any = json.loads(file.read(LARGEST + 1)[:LARGEST])
        request = Request(**plain)
    except (OSError, ValueError, TypeError, RecursionError):
        raise DataError(f"{path}: not a request of `kogpt2 set`") from None
    if not (_are_texts(request.settings) and isinstance(request.by, str)):
        raise DataError(f"{path}: not a request of `kogpt2 set`")
    return Request(request.settings, request.save is True, request.evaluate is True, " ".join(request.by.split())[:200])


def _are_texts(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(each, str) for each in value)
