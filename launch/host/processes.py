"""Find and end processes of this host by a mark in their environment, and show where they are in their code."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path


def process_state(pid: int) -> str:
    """The state of a process: R running, S or D waiting, T stopped, Z ended; empty if it does not exist."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""


def marked(marks: dict[str, str]) -> list[int]:
    """The living processes of this user with these variables in their environment, without this process itself."""
    wanted = [f"{name}={value}".encode() for name, value in marks.items()]
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            variables = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if all(each in variables for each in wanted):
            found.append(int(entry.name))
    return found


def stacks(pid: int) -> str:
    """The stacks of all threads of a process, or the reason why there are none. py-spy can read stopped ones too."""
    state = process_state(pid)
    heading = f"process {pid}, state {state}" + (" (stopped by a signal)" if state in ("T", "t") else "")
    installed = Path(sys.executable).with_name("py-spy")
    tool = str(installed) if installed.exists() else shutil.which("py-spy")
    if tool is None:
        return f"{heading}\nno stacks: py-spy is not installed (pip install py-spy)"
    try:
        done = subprocess.run(
            [tool, "dump", "--nonblocking", "--pid", str(pid)], capture_output=True, text=True, timeout=4, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{heading}\nno stacks: {error}"
    return f"{heading}\n{(done.stdout + done.stderr).strip()[:20000]}"


def kill_marked(marks: dict[str, str], seconds: float = 5.0) -> int:
    """Sends SIGKILL to all processes with these marks until none is left; returns how many are left after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        left = [pid for pid in marked(marks) if process_state(pid) not in ("Z", "")]
        if not left or time.monotonic() > deadline:
            return len(left)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
