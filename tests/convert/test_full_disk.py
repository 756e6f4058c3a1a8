"""A full disk in a conversion is one line with the path and the need, and leaves nothing behind."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from kogpt2_gluon.convert import huggingface
from kogpt2_gluon.convert.huggingface import convert_checkpoint
from kogpt2_gluon.errors import DiskFullError, RecipeError
from kogpt2_gluon.runs.checkpoint import Checkpoint
from tests.helpers import enlarge, kogpt2, small_disk


@pytest.mark.parametrize("size", [64 << 10, 256 << 10, 1 << 20])
def test_a_small_disk(checkpoint: Checkpoint, tmp_path: Path, size: int) -> None:
    with small_disk(tmp_path / "disk", size) as disk:
        out = disk / "out"
        error = kogpt2("convert", checkpoint.path, out, code=1).stderr
        assert error.count("\n") == 1 and "safetensors" not in error.lower() and "; the converted model needs " in error
        assert f"{disk}/" in error and "the disk is full" in error
        assert list(disk.iterdir()) == []
        enlarge(disk, 16 << 20)
        kogpt2("convert", checkpoint.path, out)
        assert (out / "model.safetensors").is_file()


@pytest.mark.parametrize(
    "error",
    [OSError(number, os.strerror(number)) for number in (errno.ENOSPC, errno.EDQUOT)],
)
def test_the_fault_at_the_write(checkpoint: Checkpoint, tmp_path: Path, monkeypatch, error: Exception) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(huggingface, "write_safetensors", full)
    with pytest.raises(DiskFullError, match=r"the converted model needs [\d.]+ MB; make room") as caught:
        convert_checkpoint(checkpoint, tmp_path / "out")
    assert str(caught.value).startswith(f"{tmp_path}/out: ") and not (tmp_path / "out").exists()


def test_another_fault_is_not_a_full_disk(checkpoint: Checkpoint, tmp_path: Path, monkeypatch) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(huggingface, "write_safetensors", fail)
    with pytest.raises(RecipeError, match="out: cannot be written: "):
        convert_checkpoint(checkpoint, tmp_path / "out")
