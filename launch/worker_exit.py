"""Runs one worker and notes how it ended: ``python worker_exit.py FOLDER -- ARGV...``

Horovod answers 1 for whatever a worker answered, so the exit codes that scripts rely on would be lost. This wrapper
stands between horovodrun and the worker; it is started by its path, so that it needs nothing but the standard
library. It writes ``FOLDER/rank-N.pid`` when the worker starts, and ``FOLDER/rank-N.exit`` (JSON: rank, code, time in
nanoseconds) when the worker ends. A worker killed by signal S has code 128 + S, as in a shell.

A planned stop (75: state saved) is told to horovodrun as success: a failure would make it kill the other workers
after 5 seconds, while one of them may still be saving.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import List, Optional

PLANNED_STOP = 75  # PreemptedError.exit_code, without importing the package


def main(argv: List[str]) -> int:
    """Runs the worker; the exit code is the worker's, except for a planned stop."""
    if len(argv) < 3 or argv[1] != "--":
        print("usage: worker_exit.py FOLDER -- ARGV...", file=sys.stderr)
        return 2
    folder, command = Path(argv[0]), argv[2:]
    rank = int(os.environ["HOROVOD_RANK"])
    code = _run(command, folder / f"rank-{rank}.pid")
    _write(folder / f"rank-{rank}.exit", json.dumps({"rank": rank, "code": code, "time": time.time_ns()}))
    return 0 if code == PLANNED_STOP else code


def _run(command: List[str], pid_file: Path) -> int:
    """The worker's exit code. Signals to stop go on to the worker, and the wrapper waits for its answer."""
    worker: Optional[subprocess.Popen[bytes]] = None
    early: List[int] = []

    def forward(number: int, _frame: Optional[FrameType]) -> None:
        if worker is None:
            early.append(number)
        else:
            worker.send_signal(number)  # Popen sends nothing to a process that has ended

    signal.signal(signal.SIGTERM, forward)
    signal.signal(signal.SIGINT, forward)
    try:
        worker = subprocess.Popen(command)
    except OSError as error:
        print(f"error: {command[0]}: {error.strerror}", file=sys.stderr)
        return 127
    _write(pid_file, str(os.getpid()))
    for number in early:
        worker.send_signal(number)
    code = worker.wait()
    return code if code >= 0 else 128 - code


def _write(path: Path, text: str) -> None:
    """Writes through a temporary name: a reader sees the whole file or none."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
