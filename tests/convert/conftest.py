"""Fixtures of the tests of graphs: one checkpoint, converted once for onnxruntime and once for transformers."""

from __future__ import annotations

from pathlib import Path

import pytest

from kogpt2_gluon.convert.huggingface import convert_checkpoint
from kogpt2_gluon.convert.onnx_folder import write_onnx
from kogpt2_gluon.runs.checkpoint import Checkpoint
from tests.convert.convert_helpers import make_checkpoint


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory, small_tokenizer: bytes) -> Checkpoint:
    """The tiny checkpoint: 64 positions, 501 rows in the embedding, 400 pieces."""
    return make_checkpoint(tmp_path_factory.mktemp("source"), small_tokenizer)


@pytest.fixture(scope="session")
def onnx_folder(source: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint for onnxruntime."""
    out = tmp_path_factory.mktemp("onnx") / "out"
    write_onnx(source, out)
    return out


@pytest.fixture(scope="session")
def torch_folder(source: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint for transformers."""
    out = tmp_path_factory.mktemp("torch") / "out"
    convert_checkpoint(source, out)
    return out
