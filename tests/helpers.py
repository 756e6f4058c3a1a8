"""Helpers for the tests of all rooms: the checkout, real text, and running commands."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REAL_TEXT = ROOT.parent / "shared" / "korean"
CHUNK_BYTES = 4096  # far below what `kogpt2 shard` chooses, so that little text has many chunks


def run(*argv: object, code: int = 0, timeout: float = 300, **variables: str) -> subprocess.CompletedProcess:
    """Runs a command and checks its exit code; both outputs are in the message if it is another."""
    done = subprocess.run(
        [str(part) for part in argv],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, **variables},
        check=False,
    )
    assert done.returncode == code, f"exit {done.returncode}, not {code}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done


def kogpt2(*arguments: object, code: int = 0, **variables: str) -> subprocess.CompletedProcess:
    """The installed command, as a user runs it."""
    return run(sys.executable, "-m", "kogpt2_gluon.cli.main", *arguments, code=code, **variables)
