"""Training on several sets, on damaged ones, and with state of other data: real processes end to end."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from conftest import CHUNK_BYTES, kogpt2, run
from kogpt2_gluon.checkpoint import open_checkpoint
from kogpt2_gluon.tracking import read_metrics

HORUN = str(Path(sys.executable).with_name("horovodrun"))


def losses(run_dir: Path) -> list[float]:
    return [line["loss"] for line in read_metrics(run_dir) if line["kind"] == "train"]


def parameters(run_dir: Path) -> bytes:
    return (open_checkpoint(run_dir).path / "model.params").read_bytes()


@pytest.fixture()
def mixed(tiny: list[str], shards: Path) -> list[str]:
    """The tiny recipe on two sets with weights."""
    train = f"data.train={{{shards / 'train'}: 7, {shards / 'test'}: 3}}"
    return [train if each.startswith("data.train=") else each for each in tiny]


def two_workers(*arguments: object, code: int = 0) -> str:
    done = run(HORUN, "--gloo", "-np", 2, sys.executable, "-m", "kogpt2_gluon.cli", "train", *arguments, code=code)
    return done.stdout + done.stderr


def test_a_mix_resumes_exactly_and_is_the_same_for_two_workers(mixed, shards, tmp_path):
    done = kogpt2("train", "debug_cpu", *mixed)
    assert "70.00% of the sequences" in done.stdout and "30.00% of the sequences" in done.stdout
    state = open_checkpoint(tmp_path / "run").state()["reader"]
    assert state["consumed"] == 64 and "version" in state
    again = [*mixed, f"tracking.run_dir={tmp_path / 'again'}"]
    kogpt2("train", "debug_cpu", *again, "--resume", tmp_path / "run" / "checkpoints" / "step-00000006")
    assert parameters(tmp_path / "again") == parameters(tmp_path / "run")
    two = [*mixed, f"tracking.run_dir={tmp_path / 'two'}", "model.dropout=0"]
    two_workers("debug_cpu", *two)
    kogpt2("train", "debug_cpu", *mixed, f"tracking.run_dir={tmp_path / 'one'}", "model.dropout=0")
    np.testing.assert_allclose(losses(tmp_path / "two"), losses(tmp_path / "one"), rtol=1e-5)


def test_a_run_goes_on_with_its_own_mix_only(mixed, tiny, shards, tmp_path):
    kogpt2("train", "debug_cpu", *mixed, "training.num_steps=3")
    other = f"data.train={{{shards / 'train'}: 7, {shards / 'test'}: 4}}"
    refused = kogpt2("train", "debug_cpu", *mixed, other, code=2).stderr
    assert "data.train: {" in refused and "3.0} -> {" in refused and refused.count("\n") == 1
    assert "data.train: {" in kogpt2("train", "debug_cpu", *tiny, code=2).stderr
    swapped = f"data.train={{{shards / 'test'}: 7, {shards / 'train'}: 3}}"
    refused = kogpt2("train", "debug_cpu", *mixed, swapped, code=3).stderr
    assert "step-00000003: its data had fingerprint" in refused and refused.count("\n") == 1
    moved = tmp_path / "moved"
    shutil.copytree(shards / "train", moved)
    kogpt2("train", "debug_cpu", *mixed, f"data.train={{{moved}: 7, {shards / 'test'}: 3}}")
    assert open_checkpoint(tmp_path / "run").state()["step"] == 8


def test_the_estimate_names_each_set(mixed, shards):
    done = kogpt2("train", "debug_cpu", *mixed, "--dry-run").stdout
    for folder, share in ((shards / "train", "70.00%"), (shards / "test", "30.00%")):
        (line,) = [line for line in done.splitlines() if line.startswith(f"  {folder}: ") and "passes" in line]
        assert share in line
    listed = f"data.train=[{shards / 'train'}, {shards / 'test'}]"
    passes = [
        line.rsplit(", ", 1)[1]
        for line in kogpt2("train", "debug_cpu", *mixed, listed, "--dry-run").stdout.splitlines()
        if line.endswith(" passes")
    ]
    assert len(passes) == 2 and passes[0] == passes[1]  # one corpus


def test_a_damaged_chunk_is_skipped_if_the_recipe_says_so(tiny, shards, tmp_path):
    bad = tmp_path / "bad"
    shutil.copytree(shards / "train", bad)
    path = bad / "train-00000.ktok"
    data = bytearray(path.read_bytes())
    data[2 * CHUNK_BYTES + 5] ^= 1
    path.write_bytes(data)
    options = [*tiny, f"data.train={bad}", "model.dropout=0"]
    stopped = kogpt2("train", "debug_cpu", *options, code=3).stderr
    assert f"{path}: chunk 2 at byte {2 * CHUNK_BYTES} is damaged" in stopped
    line = f"{path}: chunk 2 at byte {2 * CHUNK_BYTES} is damaged; a neighbour is read in its place (1 skipped so far)"
    one = [*options, "data.corrupt=skip", f"tracking.run_dir={tmp_path / 'one'}"]
    assert kogpt2("train", "debug_cpu", *one).stdout.count(line) == 1
    two_workers("debug_cpu", *options, "data.corrupt=skip", f"tracking.run_dir={tmp_path / 'two'}")
    for name in ("one", "two"):
        assert (tmp_path / name / "log.txt").read_text().count(line) == 1
        assert open_checkpoint(tmp_path / name).state()["reader"]["skipped"] == 1
    np.testing.assert_allclose(losses(tmp_path / "two"), losses(tmp_path / "one"), rtol=1e-5)
