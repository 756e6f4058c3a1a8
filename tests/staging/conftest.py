"""Fixtures of the tests of staging and of copies."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.shards.shard_helpers import write_documents
from tests.storage.lustre_helpers import FakeLustre


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeLustre:
    return FakeLustre.install(tmp_path, monkeypatch)


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """A folder with train/ (several shards) and test/."""
    write_documents(tmp_path / "shards" / "train", [700] * 20, shard_bytes=4096)
    write_documents(tmp_path / "shards" / "test", [50] * 4)
    return tmp_path / "shards"
