"""The folder of a run's checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def ckpt_dir(tmp_path: Path) -> Path:
    """Not there yet."""
    return tmp_path / "run" / "checkpoints"
