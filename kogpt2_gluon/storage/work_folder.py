"""The work folder of a stage that takes long: what is finished in it outlives an interruption.

``OUT.work``, next to the future `OUT`, has ``plan.json``: everything that the finished pieces depend on. The same
command finds the folder again, keeps what is still valid, and resumes. A lock keeps two commands apart.
"""

from __future__ import annotations

import fcntl
import json
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Callable

from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.storage.files import write_file

PLAN_FILE = "plan.json"
LOCK_FILE = "lock"

Plan = dict[str, Any]


def work_folder(out: Path) -> Path:
    """Returns the folder in which the work for `out` is kept until it is finished."""
    return out.resolve().with_name(out.resolve().name + ".work")


@dataclass(frozen=True)
class Stage:
    """A stage with a work folder.

    Attributes
    ----------
    verb : str
        As in ``kogpt2 clean``, for messages.
    format : str
        The ``format`` of its plans.
    has_results : callable
        Called with the folder: returns True if it holds something that is worth keeping.
    reconcile : callable
        Called with the folder, the plan found in it and the new one, if they differ: removes the results that are not
        valid any more, or raises RecipeError.
    """

    verb: str
    format: str
    has_results: Callable[[Path], bool]
    reconcile: Callable[[Path, Plan, Plan], None]


@contextmanager
def open_work(work: Path, stage: Stage, plan: Plan, restart: bool) -> Iterator[Path]:
    """Yields the locked work folder of a plan; it is made if it does not exist, and emptied on `restart`.

    It is removed when the block ends; if the block raises, it stays if it has results. RecipeError if it belongs to
    another plan, is in use, or is not a work folder.
    """
    plan = json.loads(json.dumps({"format": stage.format, **plan}))  # as JSON gives it back: no tuples
    _check_ours(work, stage)
    work.mkdir(parents=True, exist_ok=True)
    done = work.with_name(f".{work.name}.{uuid.uuid4().hex[:12]}.done")
    try:
        with (work / LOCK_FILE).open("ab") as lock:
            _lock(lock, work, stage)
            if restart:
                _empty(work)
            old = _read_plan(work / PLAN_FILE, stage)
            if old is not None and old != plan:
                stage.reconcile(work, old, plan)
            try:
                if old != plan:
                    write_file(work / PLAN_FILE, json.dumps(plan).encode())
                yield work
            except BaseException:
                if not stage.has_results(work):
                    work.rename(done)
                raise
            work.rename(done)
    finally:
        # Now that the lock is closed: NFS does not remove a folder with a file that is open.
        shutil.rmtree(done, ignore_errors=True)


def remove_result(folder: Path) -> None:
    """Removes a result in a work folder: a kill leaves it whole or under a hidden name, which is nobody's."""
    aside = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:12]}.removed")
    folder.rename(aside)
    shutil.rmtree(aside)


def other_plan(work: Path, verb_noun: str, changes: list[str]) -> RecipeError:
    """Returns the error for a work folder of another plan: `verb_noun` is ``cleaning``, `changes` say what differs."""
    more = f", and {len(changes) - 3} more" if len(changes) > 3 else ""
    return RecipeError(
        f"{work}: an unfinished {verb_noun} from before {'; '.join(changes[:3])}{more}; "
        "say --restart to start from the beginning, or undo the change"
    )


def _read_plan(path: Path, stage: Stage) -> Plan | None:
    if not path.is_file():
        return None
    try:
        plan = json.loads(path.read_bytes())
        if plan["format"] != stage.format:
            raise ValueError(plan["format"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecipeError(f"{path}: damaged ({error}); say --restart to start from the beginning") from None
    checked: Plan = plan
    return checked


def _check_ours(work: Path, stage: Stage) -> None:
    if work.exists() and not work.is_dir():
        raise RecipeError(f"{work}: in the way of the work folder; move it, or choose another --out")
    if not work.exists() or (work / PLAN_FILE).is_file():
        return
    if any(path.name != LOCK_FILE and not path.name.startswith(f".{PLAN_FILE}.") for path in work.iterdir()):
        raise RecipeError(f"{work}: not a work folder of kogpt2 {stage.verb}; move it, or choose another --out")


def _lock(lock: BinaryIO, work: Path, stage: Stage) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise RecipeError(
            f"{work}: another kogpt2 {stage.verb} is at work in it; wait or choose another --out"
        ) from None
    except OSError:
        pass  # a file system without locks (Lustre mounted without flock)


def _empty(work: Path) -> None:
    for path in work.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != LOCK_FILE:
            path.unlink()
