"""The folder of a run's checkpoints, and places for mirrors of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.runs.mirror_helpers import Shelf
from tests.storage.conftest import no_real_account, store

__all__ = ["no_real_account", "store"]


@pytest.fixture
def ckpt_dir(tmp_path: Path) -> Path:
    """Not there yet."""
    return tmp_path / "run" / "checkpoints"


@pytest.fixture(params=["folder", "s3"])
def shelf(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """An empty mirror of each kind."""
    if request.param == "folder":
        return Shelf(tmp_path / "mirror", None)
    pytest.importorskip("moto", reason="plays S3")
    return Shelf(None, request.getfixturevalue("store"))
