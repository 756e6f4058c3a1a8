"""What a launch is doing, read from its run folder: for ``kogpt2-launch status``, ``stop`` and ``logs``."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.machine import job

STALE_SECONDS = 30.0


def read_status(run_dir: Path) -> dict[str, Any]:
    """status.json of a run folder; DataError if there is none, or it cannot be understood."""
    path = run_dir / "launch" / "status.json"
    try:
        status = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if (run_dir / "recipe.yaml").exists():
            raise DataError(
                f"{run_dir}: nothing is known of a single worker, which runs without a supervisor; see "
                f"{run_dir}/log.txt, and kogpt2-launch stop"
            ) from None
        raise DataError(f"{run_dir}: no launch has run here (launch/status.json is not there)") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not readable: {error}") from None
    if not isinstance(status, dict) or "state" not in status or "ranks" not in status:
        raise DataError(f"{path}: not a launcher's status")
    return status


def describe(status: dict[str, Any]) -> str:
    """The status for people: a line about the launch, one for each rank."""
    age = time.time() - float(status["updated"])
    launcher = status["launcher"]
    state = str(status["state"])
    if state in ("running", "waiting") and age > STALE_SECONDS:
        state = f"{state}, says a launcher unheard for {age:.0f} s (process {launcher['pid']} on {launcher['host']})"
    lines = [f"attempt {status['attempt']}: {state}" + (f"; {status['text']}" if status["text"] else "")]
    for rank in status["ranks"]:
        step = f"step {rank['step']} of {status['num_steps']}" if rank["step"] >= 0 else "before its first step"
        if rank["code"] is not None:
            how = f"ended with exit code {rank['code']}"
        elif rank["silent"] is None:
            how = "not come yet"
        else:
            how = f"state {rank['process'] or '?'}, moved {rank['still']:.0f} s ago"
        lines.append(f"rank {rank['rank']:<4} {rank['host']:<24} {step:<28} {how}")
    return "\n".join(lines)


def ask_to_stop(run_dir: Path) -> Path:
    """Leaves the file that makes the workers of this run folder save and end; returns its path."""
    alone = not (run_dir / "launch" / "status.json").exists() and (run_dir / "recipe.yaml").exists()
    status = {} if alone else read_status(run_dir)
    if status.get("state") in ("done", "ended"):
        raise DataError(f"{run_dir}: its launch has ended; there is nothing to stop")
    path = job.stop_file(run_dir)
    path.touch()
    return path


def log_file(run_dir: Path, rank: int, attempt: int = 0) -> Path:
    """The output of a rank, of one attempt or of the newest that has it (attempt 0); DataError if there is none."""
    return _newest(run_dir, attempt, f"/rank-{rank:05d}.log", f"no output of rank {rank}")


def report_file(run_dir: Path, attempt: int = 0) -> Path:
    """How an attempt ended; DataError if none has."""
    return _newest(run_dir, attempt, ".log", "no attempt that has ended")


def _newest(run_dir: Path, attempt: int, ending: str, missing: str) -> Path:
    number = f"{attempt:02d}" if attempt else "*"
    found = list((run_dir / "launch").glob(f"attempt-{number}{ending}"))
    if not found:
        raise DataError(f"{run_dir}: {missing} is here; where the run folder is not shared, look on the other hosts")
    return max(found, key=lambda path: (len(str(path)), str(path)))  # attempt-100 is newer than attempt-99
