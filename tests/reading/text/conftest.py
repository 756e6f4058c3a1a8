"""Fixtures of the tests of text on the fly."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from kogpt2_gluon.corpus import records
from kogpt2_gluon.reading.text import tokens
from kogpt2_gluon.tokens.tokenizer import Tokenizer
from tests.reading.text.text_reader_helpers import SEQ


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 240 bytes and 16 sequences, so that little text has many."""
    monkeypatch.setattr(records, "BLOCK_BYTES", 240)
    monkeypatch.setattr(tokens, "SHUFFLE_TOKENS", 16 * SEQ)


@pytest.fixture
def no_thread_is_left() -> Iterator[None]:
    """A check that a test ends every thread that it starts."""
    before = threading.active_count()
    yield
    assert threading.active_count() == before


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, small_tokenizer: bytes) -> Path:
    """The file of a small tokenizer."""
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    path.write_bytes(small_tokenizer)
    return path


@pytest.fixture(scope="module")
def tokenizer(model: Path) -> Tokenizer:
    """The small tokenizer, loaded."""
    return Tokenizer.load(model)
