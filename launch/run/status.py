"""Read the state of a launch from its run folder, for ``kogpt2-launch status``, ``stop`` and ``logs``."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import Any

from kogpt2_gluon.errors import DataError, KoGPT2Error
from kogpt2_gluon.machine import job
from kogpt2_gluon.recipe import load_recipe
from kogpt2_gluon.runs.checkpoint import open_checkpoint
from kogpt2_gluon.runs.metrics import ENDED, read_metrics
from kogpt2_gluon.storage.links import read_file

STALE_SECONDS = 30.0
ALONE = "alone"  # the state of a single worker, which nobody watches
# The fields of status.json, of its launcher and of each of its ranks, with their types.
_Types = dict[str, tuple[type, ...]]
_STATUS: _Types = {"state": (str,), "text": (str,), "updated": (float, int), "attempt": (int,), "num_steps": (int,)}
_STATUS.update(launcher=(dict,), ranks=(list,))
_LAUNCHER: _Types = {"host": (str,), "pid": (int,)}
_RANK: _Types = {"rank": (int,), "host": (str,), "step": (int,), "process": (str,), "code": (int, type(None))}
_RANK.update(silent=(float, int, type(None)), still=(float, int, type(None)))


def read_status(run_dir: Path) -> dict[str, Any]:
    """Reads status.json of a run folder; DataError if there is none, or it is damaged.

    The status of a single worker, which has no supervisor to write one, is put together from its record.
    """
    path = run_dir / "launch" / "status.json"
    try:
        status = json.loads(read_file(path).decode())
    except FileNotFoundError:
        if is_alone(run_dir):
            return _read_alone(run_dir)
        raise DataError(f"{run_dir}: no launch has run here (launch/status.json does not exist)") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: not readable: {error}") from None
    if not _is_status(status):
        raise DataError(f"{path}: not a launcher's status")
    return dict(status)


def _is_status(status: Any) -> bool:
    """Returns True if what was read has the fields that a launcher writes, with values of their types."""
    return (
        _has(status, _STATUS)
        and status["state"] != ALONE
        and _has(status["launcher"], _LAUNCHER)
        and all(_has(rank, _RANK) for rank in status["ranks"])
    )


def _has(plain: Any, types: _Types) -> bool:
    if not isinstance(plain, dict) or not types.keys() <= plain.keys():
        return False
    return all(type(plain[name]) in kinds for name, kinds in types.items())


def is_alone(run_dir: Path) -> bool:
    """Returns True for the folder of a single worker: a run without a launch."""
    return not (run_dir / "launch").exists() and (run_dir / "recipe.yaml").exists()


def _read_alone(run_dir: Path) -> dict[str, Any]:
    found: dict[str, Any] = dict.fromkeys(("step", "num_steps", "updated", "checkpoint", "log"))
    with contextlib.suppress(KoGPT2Error):  # of another version, or damaged
        recipe = load_recipe(str(run_dir / "recipe.yaml"))
        found["num_steps"] = recipe.training.num_steps
        found["checkpoint"] = open_checkpoint(recipe.ckpt_dir).path.name
    with contextlib.suppress(KoGPT2Error, IndexError):
        last = read_metrics(run_dir)[-1]
        found.update(step=last["step"], updated=last.get("time"))
    with contextlib.suppress(OSError, IndexError):
        found["log"] = (run_dir / "log.txt").read_text(encoding="utf-8", errors="replace").splitlines()[-1]
    return {"state": ALONE, "stop_asked": job.stop_file(run_dir).exists(), **found}


def _describe_alone(status: dict[str, Any]) -> str:
    step, updated = status["step"], status["updated"]
    done = "before its first record" if step is None else f"step {step} of {status['num_steps'] or '?'} in its record"
    ago = f", {max(0.0, time.time() - updated):.0f} s ago" if isinstance(updated, (int, float)) else ""
    lines = [
        f"a single worker, which has no supervisor: {done}{ago}",
        f"newest checkpoint  {status['checkpoint'] or 'none'}",
        f"last line of log   {status['log'] or 'none'}",
    ]
    if status["stop_asked"]:
        lines.append("asked to stop: once its state is saved, the last line of its log says so")
    return "\n".join(lines)


def describe(status: dict[str, Any]) -> str:
    """The status for people: one line about the launch, and one for each rank."""
    if status["state"] == ALONE:
        return _describe_alone(status)
    age = time.time() - float(status["updated"])
    launcher = status["launcher"]
    state = str(status["state"])
    if state in ("running", "waiting") and age > STALE_SECONDS:
        state = f"{state}, but the launcher is silent for {age:.0f} s (process {launcher['pid']} on {launcher['host']})"
    lines = [f"attempt {status['attempt']}: {state}" + (f"; {status['text']}" if status["text"] else "")]
    for rank in status["ranks"]:
        step = f"step {rank['step']} of {status['num_steps']}" if rank["step"] >= 0 else "before its first step"
        if rank["code"] is not None:
            how = f"ended with exit code {rank['code']}"
        elif rank["silent"] is None or rank["still"] is None:
            how = "not started yet"
        else:
            how = f"state {rank['process'] or '?'}, moved {rank['still']:.0f} s ago"
        lines.append(f"rank {rank['rank']:<4} {rank['host']:<24} {step:<28} {how}")
    return "\n".join(lines)


def ask_to_stop(run_dir: Path) -> Path:
    """Creates the file that makes the workers of this run folder save and end; returns its path."""
    status = read_status(run_dir)
    if status["state"] in ("done", "ended") or ENDED in (status.get("log") or ""):
        raise DataError(f"{run_dir}: the run has ended; there is nothing to stop")
    path = job.stop_file(run_dir)
    path.touch()
    return path


def log_file(run_dir: Path, rank: int, attempt: int = 0) -> Path:
    """The output file of a rank, from one attempt or from the newest (attempt 0); DataError if there is none."""
    return _newest(run_dir, attempt, f"/rank-{rank:05d}.log", f"no output of rank {rank}")


def report_file(run_dir: Path, attempt: int = 0) -> Path:
    """The file that says how an attempt ended; DataError if there is none."""
    return _newest(run_dir, attempt, ".log", "no attempt that has ended")


def _newest(run_dir: Path, attempt: int, ending: str, missing: str) -> Path:
    number = f"{attempt:02d}" if attempt else "*"
    found = list((run_dir / "launch").glob(f"attempt-{number}{ending}"))
    if not found and is_alone(run_dir):
        raise DataError(f"{run_dir}: a single worker has no supervisor that keeps its output; see {run_dir}/log.txt")
    if not found:
        raise DataError(f"{run_dir}: {missing} is here; if the run folder is not shared, look on the other hosts")
    return max(found, key=lambda path: (len(str(path)), str(path)))  # attempt-100 is newer than attempt-99
