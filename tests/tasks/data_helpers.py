"""Made files of tasks, and reading them as the commands do."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.tasks.loading import read_split
from kogpt2_gluon.tasks.task import Row, Task
from tests.helpers import REAL_TEXT

REAL = REAL_TEXT / "finetune"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="no real text on this machine")


class Result(NamedTuple):
    rows: list[Row]
    said: list[str]


def write(path: Path, content: str | bytes) -> Path:
    """Writes a file as it is given, with its folder; text as UTF-8 without changing line ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


def read(task: Task, data: Path, split: str = "train") -> Result:
    said: list[str] = []
    return Result(read_split(task, data, split, said.append), said)


def fault(task: Task, data: Path, split: str = "train") -> str:
    """The one line of the DataError that reading raises."""
    with pytest.raises(DataError) as caught:
        read(task, data, split)
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)
    return str(caught.value)
