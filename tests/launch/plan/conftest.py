"""A recipe for the tests of plans."""

from __future__ import annotations

import pytest


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text("data: {seq_length: 32}\ntraining: {batch_size: 2, total_batch_size: 32}\n", encoding="utf-8")
    return str(path)
