"""Read the state of a launch from its run folder, for ``kogpt2-launch status``, ``stop`` and ``logs``."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.machine import job

STALE_SECONDS = 30.0


def read_status(run_dir: Path) -> dict[str, Any]:
    """Reads status.json of a run folder; DataError if there is none, or it is damaged."""
    path = run_dir / "launch" / "status.json"
    try:
        status = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if (run_dir / "recipe.yaml").exists():
            raise DataError(
                f"{run_dir}: a single worker has no supervisor and so no status; see {run_dir}/log.txt, "
                "or end it with kogpt2-launch stop"
            ) from None
        raise DataError(f"{run_dir}: no launch has run here (launch/status.json does not exist)") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not readable: {error}") from None
    if not isinstance(status, dict) or "state" not in status or "ranks" not in status:
        raise DataError(f"{path}: not a launcher's status")
    return status


def describe(status: dict[str, Any]) -> str:
    """The status for people: one line about the launch, and one for each rank."""
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
        elif rank["silent"] is None:
            how = "not started yet"
        else:
            how = f"state {rank['process'] or '?'}, moved {rank['still']:.0f} s ago"
        lines.append(f"rank {rank['rank']:<4} {rank['host']:<24} {step:<28} {how}")
    return "\n".join(lines)


def ask_to_stop(run_dir: Path) -> Path:
    """Creates the file that makes the workers of this run folder save and end; returns its path."""
    alone = not (run_dir / "launch" / "status.json").exists() and (run_dir / "recipe.yaml").exists()
    status = {} if alone else read_status(run_dir)
    if status.get("state") in ("done", "ended"):
        raise DataError(f"{run_dir}: the launch has ended; there is nothing to stop")
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
    if not found:
        raise DataError(f"{run_dir}: {missing} is here; if the run folder is not shared, look on the other hosts")
    return max(found, key=lambda path: (len(str(path)), str(path)))  # attempt-100 is newer than attempt-99
