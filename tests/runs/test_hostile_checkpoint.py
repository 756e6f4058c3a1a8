"""A checkpoint that comes from elsewhere: links that lead out of it, and JSON that is none, are refused in one line."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.runs.checkpoint import open_checkpoint
from kogpt2_gluon.runs.checkpoint_folder import named_in
from kogpt2_gluon.runs.manifest import read_manifest
from tests.runs.checkpoint_helpers import FILES, save


@pytest.mark.parametrize("name", FILES)
def test_no_file_of_a_checkpoint_is_a_link_out_of_it(ckpt_dir: Path, tmp_path: Path, name: str) -> None:
    path = save(ckpt_dir, 3)
    (path / name).rename(tmp_path / "elsewhere")
    (path / name).symlink_to(tmp_path / "elsewhere")  # of the right size and content
    with pytest.raises(DataError, match=rf"{name}: a link out of the checkpoint's folder; put the file itself there"):
        open_checkpoint(path)
    (path / name).unlink()
    (tmp_path / "elsewhere").rename(path / "kept")
    (path / name).symlink_to("kept")
    open_checkpoint(path).verify()


@pytest.mark.parametrize("name", ["../../secret", "/etc/hostname", "a/b", "x" * 300, "a\0b", ""])
def test_a_manifest_names_no_other_file(ckpt_dir: Path, name: str) -> None:
    path = save(ckpt_dir, 3)
    plain = json.loads((path / "manifest.json").read_bytes())
    plain["files"][name] = plain["files"].pop("model.params")
    (path / "manifest.json").write_text(json.dumps(plain), encoding="utf-8")
    with pytest.raises(DataError, match=r"manifest\.json: does not list a checkpoint's files") as caught:
        open_checkpoint(path)
    assert "\0" not in str(caught.value)


@pytest.mark.parametrize("content", ["[" * 100_000, '{"a":' * 100_000, "\ud800", "", "nul"])
def test_json_that_is_none(ckpt_dir: Path, content: str) -> None:
    path = save(ckpt_dir, 3)
    checkpoint = open_checkpoint(path)
    for name in ("state.json", "manifest.json"):
        (path / name).write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(DataError, match=r"state\.json: missing, truncated or damaged"):
        checkpoint.state()
    with pytest.raises(DataError, match=r"manifest\.json: not a checkpoint's manifest"):
        read_manifest(path)


@pytest.mark.parametrize("step", [-1, True, 1.0, "3", None, [3]])
def test_a_step_that_is_none(ckpt_dir: Path, step: object) -> None:
    path = save(ckpt_dir, 3)
    checkpoint = open_checkpoint(path)
    (path / "state.json").write_text(json.dumps({"step": step}), encoding="utf-8")
    with pytest.raises(DataError, match=r'state\.json: it has no "step"'):
        checkpoint.state()


@pytest.mark.parametrize("file", ["latest", "best"])
def test_a_pipe_in_the_place_of_a_name_is_not_waited_for(ckpt_dir: Path, file: str) -> None:
    save(ckpt_dir, 3)
    (ckpt_dir / file).unlink(missing_ok=True)
    os.mkfifo(ckpt_dir / file)
    assert named_in(ckpt_dir, file) is None
    assert open_checkpoint(ckpt_dir).path.name == "step-00000003"
