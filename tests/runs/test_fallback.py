"""Damage to a checkpoint is named, and costs no more than the steps since the one before."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any, Callable

import pytest

from kogpt2_gluon.errors import DamagedError, DataError
from kogpt2_gluon.runs.checkpoint import Checkpoint, newest_whole, open_checkpoint, use_checkpoint
from kogpt2_gluon.storage.files import write_file
from tests.runs.checkpoint_helpers import FILES, check_whole, flip, save, shorten, steps


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", [flip, shorten, Path.unlink])
def test_damage_is_an_error_that_names_the_file(ckpt_dir: Path, damage: Callable[[Path], Any], name: str) -> None:
    save(ckpt_dir, 10)
    path = save(ckpt_dir, 20)
    damage(path / name)
    with pytest.raises(DamagedError) as caught:
        open_checkpoint(ckpt_dir.parent).verify()
    message = str(caught.value)
    assert str(path / name) in message and "\n" not in message
    if damage is not flip:
        with pytest.raises(DamagedError, match=name):
            open_checkpoint(path)
    found, faults = newest_whole(ckpt_dir)
    assert found and faults == [message]
    check_whole(found, 10)
    damage(found.path / name)
    with pytest.raises(DamagedError, match="no checkpoint is whole") as caught:
        newest_whole(ckpt_dir)
    assert message in str(caught.value) and str(found.path / name) in str(caught.value)


def test_of_the_damaged_ones_each_is_named_and_later_ones_are_left(ckpt_dir: Path) -> None:
    """Step 40 was left when a run went back to 30, and had not saved yet."""
    for step in (10, 20, 30, 40):
        save(ckpt_dir, step)
    write_file(ckpt_dir / "latest", b"step-00000030\n")
    assert steps(ckpt_dir) == [10, 20, 30, 40]
    shorten(ckpt_dir / "step-00000030" / "model.params")
    (ckpt_dir / "step-00000020" / "manifest.json").unlink()
    found, faults = newest_whole(ckpt_dir)
    assert found and found.path.name == "step-00000010"
    assert ["step-00000030/model.params" in faults[0], "step-00000020/manifest.json" in faults[1]] == [True, True]


@pytest.mark.parametrize("what", ["a later program's", "a file that cannot be read now"])
def test_a_checkpoint_that_may_well_be_whole_is_not_passed_over(
    ckpt_dir: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    save(ckpt_dir, 10)
    path = save(ckpt_dir, 20)
    if what == "a later program's":
        manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
        write_file(path / "manifest.json", json.dumps({**manifest, "format_version": 9}).encode())
        message = "format version 9"
    else:
        opened, message = Path.open, "model.params: cannot be read now .Stale file handle"

        def stale(file: Path, *arguments: Any, **named: Any) -> Any:
            if file == path / "model.params":
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
            return opened(file, *arguments, **named)

        monkeypatch.setattr(Path, "open", stale)
    with pytest.raises(DataError, match=message) as caught:
        newest_whole(ckpt_dir)
    assert not isinstance(caught.value, DamagedError)


def test_a_reader_follows_a_live_run(ckpt_dir: Path) -> None:
    """Two times the checkpoint is removed while it is read."""
    save(ckpt_dir, 10, keep=1)
    left = [20, 30]

    def use(checkpoint: Checkpoint) -> int:
        if left:
            save(ckpt_dir, left.pop(0), keep=1)
        checkpoint.verify()
        return int(checkpoint.state()["step"])

    assert use_checkpoint(ckpt_dir.parent, use) == 30
    flip(ckpt_dir / "step-00000030" / "model.params")
    with pytest.raises(DamagedError, match=r"step-00000030/model\.params"):
        use_checkpoint(ckpt_dir.parent, use)
    with pytest.raises(DataError, match="no checkpoint there"):
        use_checkpoint(ckpt_dir / "step-00000010", use)


def test_every_multiple_is_kept_besides_the_newest(ckpt_dir: Path) -> None:
    for step in range(10, 100, 10):
        save(ckpt_dir, step, keep=2, keep_every=30)
    assert steps(ckpt_dir) == [30, 60, 80, 90]
