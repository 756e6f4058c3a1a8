"""Helpers for the tests of all rooms: the checkout, real text, and running commands."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
REAL_TEXT = ROOT.parent / "shared" / "korean"
# A test process knows by it what it has started: tests/conftest.py makes it the last folder of PATH, which does not
# exist, since the launcher hands few other variables on to the engines.
MARK = f"/kogpt2-test-{uuid.uuid4().hex}"
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


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """A file system of its own of `size` bytes, mounted on a new folder; skips the test where that is not allowed."""
    folder.mkdir()
    if os.geteuid() or not shutil.which("mount"):
        pytest.skip("only root can mount a small disk")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def enlarge(disk: Path, size: int) -> None:
    """Gives a disk of `small_disk` another size."""
    subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)
