"""Mirrors of a real run: a lost run folder comes back, and what a run says of its mirrors when it starts."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any, Callable

import pytest

from kogpt2_gluon.errors import DamagedError, DataError, KoGPT2Error, PreemptedError, RecipeError
from kogpt2_gluon.recipe import Recipe, load_recipe
from kogpt2_gluon.runs.checkpoint import open_checkpoint
from kogpt2_gluon.runs.mirror import Mirror
from kogpt2_gluon.runs.mirror_places import FolderPlace
from kogpt2_gluon.training.dry_run import check, describe
from kogpt2_gluon.training.loop import train
from tests.helpers import kogpt2
from tests.runs.checkpoint_helpers import flip
from tests.storage.s3_helpers import BUCKET
from tests.training.mirror_run_helpers import log_of, mirrored, steps, stop_at
from tests.training.run_helpers import losses, parameters

__all__ = ["stop_at"]

pytest.importorskip("moto", reason="plays S3")


# --- a lost run folder


@pytest.mark.parametrize("lost", ["nothing", "the folder mirror", "the S3 mirror"])
def test_a_run_whose_folder_is_lost_ends_as_if_nothing_had_happened(
    tiny: list[str], tmp_path: Path, store: Any, stop_at: Callable[[int], None], lost: str
) -> None:
    whole = load_recipe("debug_cpu", [*tiny, f"tracking.run_dir={tmp_path / 'whole'}"])
    train(whole)
    recipe = mirrored(tiny, tmp_path / "mirror", f"s3://{BUCKET}/run", evaluation__interval=2)
    stop_at(5)
    with pytest.raises(PreemptedError):
        train(recipe)
    assert steps(tmp_path / "mirror")[-1] == 5
    shutil.rmtree(recipe.run_dir)
    if lost == "the folder mirror":
        shutil.rmtree(tmp_path / "mirror")
    elif lost == "the S3 mirror":
        for entry in store.list_objects_v2(Bucket=BUCKET)["Contents"]:
            store.delete_object(Bucket=BUCKET, Key=entry["Key"])
    source = f"s3://{BUCKET}/run" if lost == "the folder mirror" else str(tmp_path / "mirror")
    fetches = (
        f"start              fetches {source}/step-00000005, since {recipe.ckpt_dir} has no checkpoint, and resumes"
    )
    assert fetches in check(recipe) and not recipe.run_dir.exists()
    stop_at(-1)
    train(recipe)
    log = log_of(recipe)
    assert f"had no checkpoint, so step-00000005 was fetched from the mirror {source}" in log and "the best" in log
    assert parameters(recipe.run_dir) == parameters(whole.run_dir)
    assert losses(recipe.run_dir) == losses(whole.run_dir)[5:]
    for mirror in (tmp_path / "mirror", f"s3://{BUCKET}/run"):  # the lost one is filled again
        assert Mirror(str(mirror)).checkpoints()[0] == "step-00000008"


def test_a_copy_that_cannot_be_read_now_costs_no_steps(
    tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another mirror's copy of the same step will do, an older one will not."""
    recipe = mirrored(tiny, tmp_path / "a", tmp_path / "b", checkpoint__keep=9)
    train(recipe)
    shutil.rmtree(recipe.run_dir)
    shutil.rmtree(tmp_path / "b" / "step-00000008")
    fetch = FolderPlace.fetch

    def breaks(place: FolderPlace, *arguments: Any) -> None:
        if place.name.endswith("a"):
            raise OSError(5, "Input/output error", f"{place.name}/model.params")
        fetch(place, *arguments)

    monkeypatch.setattr(FolderPlace, "fetch", breaks)
    with pytest.raises(OSError, match="Input/output error"):
        train(recipe)
    assert steps(recipe.ckpt_dir) == []
    monkeypatch.undo()
    shutil.copytree(tmp_path / "a" / "step-00000008", tmp_path / "b" / "step-00000008")
    monkeypatch.setattr(FolderPlace, "fetch", breaks)
    train(recipe)
    assert f"WARNING: {tmp_path}/a/model.params: Input/output error" in log_of(recipe)
    assert f"step-00000008 was fetched from the mirror {tmp_path}/b" in log_of(recipe)


def test_a_damaged_copy_is_named_and_the_next_taken(tiny: list[str], tmp_path: Path) -> None:
    recipe = mirrored(tiny, tmp_path / "a", tmp_path / "b", checkpoint__keep_best="false")
    train(recipe)
    shutil.rmtree(recipe.run_dir)
    flip(tmp_path / "a" / "step-00000008" / "optimizer.params")
    train(recipe)
    log = log_of(recipe)
    assert f"WARNING: {tmp_path}/a/step-00000008/optimizer.params: missing, truncated or damaged" in log
    assert f"step-00000008 was fetched from the mirror {tmp_path}/b" in log
    shutil.rmtree(recipe.run_dir)
    for path in tmp_path.glob("[ab]/step-*/model.params"):
        flip(path)
    with pytest.raises(
        DamagedError, match=r"none is whole in the mirrors: .*a/step-00000008/model\.params: missing, trun"
    ):
        train(recipe)
    assert not list(tmp_path.glob("run/checkpoints/step-*"))


def test_as_a_user_runs_it(tiny: list[str], tmp_path: Path) -> None:
    mirror = tmp_path / "mirror"
    arguments = ["train", "debug_cpu", *tiny, f"checkpoint.mirrors=[{mirror}]", "checkpoint.keep=1"]
    dry = kogpt2(*arguments, "--dry-run")
    assert re.search(rf"^mirror             {mirror}: 1 MiB a checkpoint, \d MiB at most$", dry.stdout, re.MULTILINE)
    assert "start              at step 0" in dry.stdout and not mirror.exists()
    done = kogpt2(*arguments)
    assert f"mirror {mirror}: has step-00000008" in done.stdout and not done.stderr
    assert (
        steps(mirror) == [8] and (mirror / "latest").read_text() == (mirror / "best").read_text() == "step-00000008\n"
    )
    shutil.rmtree(tmp_path / "run")
    refused = kogpt2(*arguments, "--resume", "never", code=2)
    assert f"{mirror}: already holds step-00000008; --resume auto continues from it" in refused.stderr
    other = kogpt2(*arguments, "training.learning_rate=1e-4", "training.seed=3", code=2)
    assert f"{mirror}: step-00000008 is of another run (training.learning_rate=0.001, here 0.0001" in other.stderr
    assert "training.seed=0, here 3" in other.stderr and other.stderr.count("\n") == 1
    assert steps(mirror) == [8] and not (tmp_path / "run" / "checkpoints").exists()
    again = kogpt2(*arguments)
    assert f"step-00000008 was fetched from the mirror {mirror}" in again.stdout
    assert steps(tmp_path / "run" / "checkpoints") == [8] and open_checkpoint(tmp_path / "run" / "best").state()["best"]


# --- the start


def test_a_mirror_that_cannot_be_reached(
    tiny: list[str], tmp_path: Path, no_real_account: None, monkeypatch: Any
) -> None:
    """A run that begins needs it, since it may hold this run; one that goes on from its own folder does not."""
    monkeypatch.setattr("kogpt2_gluon.storage.s3.TRIES", 1)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://user:hunter2@127.0.0.1:9")
    recipe = mirrored(tiny, "s3://backup/run")
    for action in (train, check):
        with pytest.raises(
            DataError, match=r"^checkpoint\.mirrors: s3://backup/run: .*the run does not begin without it$"
        ):
            action(recipe)
    assert not list(recipe.run_dir.rglob("*"))
    train(load_recipe("debug_cpu", [*tiny, "training.num_steps=8"]))
    assert any(line.startswith("WARNING: mirror s3://backup/run: ") for line in check(recipe))
    with pytest.raises(KoGPT2Error, match="a mirror lacks the last one"):
        train(recipe)
    for path in recipe.run_dir.rglob("*"):
        assert not path.is_file() or b"hunter2" not in path.read_bytes(), path


def test_a_mirror_with_a_later_step_is_said_and_loses_nothing(
    tiny: list[str], tmp_path: Path, stop_at: Callable[[int], None]
) -> None:
    recipe = mirrored(tiny, tmp_path / "mirror", checkpoint__keep=5)
    stop_at(5)
    with pytest.raises(PreemptedError):
        train(recipe)
    older = shutil.copytree(recipe.run_dir, tmp_path / "older")
    stop_at(-1)
    train(recipe)
    shutil.rmtree(recipe.run_dir)
    older.rename(recipe.run_dir)
    train(recipe)
    log = log_of(recipe)
    assert f"WARNING: mirror {tmp_path}/mirror: holds step-00000008, later than {recipe.ckpt_dir}/step-00000005" in log
    assert steps(tmp_path / "mirror")[-1] == 8
    assert open_checkpoint(next(tmp_path.glob("mirror/before-*"))).state()["step"] == 8


def test_a_run_that_falls_back_says_that_the_mirror_has_more(tiny: list[str], tmp_path: Path) -> None:
    recipe = mirrored(tiny, tmp_path / "mirror")
    train(recipe)
    flip(recipe.ckpt_dir / "step-00000008" / "state.json")
    lines = check(recipe)
    assert any("going on from step-00000006, the newest checkpoint that is whole" in line for line in lines)
    assert any(f"mirror {tmp_path}/mirror: holds step-00000008, later than" in line for line in lines)


def test_another_runs_mirror_is_refused_before_the_first_step(tiny: list[str], tmp_path: Path) -> None:
    train(mirrored(tiny, tmp_path / "mirror"))
    run = f"tracking.run_dir={tmp_path / 'other'}"
    train(load_recipe("debug_cpu", [*tiny, run, "training.learning_rate=1e-4", "training.num_steps=3"]))
    before = {path: path.read_bytes() for path in (tmp_path / "mirror").rglob("*") if path.is_file()}
    other = mirrored([*tiny, run], tmp_path / "mirror", training__learning_rate=1e-4)
    for action in (train, check):
        with pytest.raises(
            RecipeError, match=f"{tmp_path}/mirror: step-00000008 is of another run; nothing was written"
        ):
            action(other)
    assert losses(tmp_path / "other") == losses(tmp_path / "other")[:3]
    assert before == {path: path.read_bytes() for path in (tmp_path / "mirror").rglob("*") if path.is_file()}


def test_a_resume_with_other_settings_keeps_its_mirror(tiny: list[str], tmp_path: Path) -> None:
    """A run is named by what it began as, not by settings that a resume may change."""
    train(mirrored(tiny, tmp_path / "mirror"))
    recipe = mirrored(tiny, tmp_path / "mirror", training__num_steps=10, training__learning_rate=1e-4)
    train(recipe)
    assert steps(tmp_path / "mirror") == [9, 10]
    shutil.rmtree(recipe.run_dir)
    assert train(recipe).step == 10  # by the recipe of its last checkpoint


def test_a_run_of_an_earlier_version_comes_back(
    tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later version may have more settings, which change every fingerprint."""
    recipe = mirrored(tiny, tmp_path / "mirror")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Recipe, "fingerprint", lambda recipe: "of an earlier version")
        train(recipe)
    shutil.rmtree(recipe.run_dir)
    assert train(recipe).step == 8 and "was fetched from the mirror" in log_of(recipe)


@pytest.mark.parametrize(
    ("mirrors", "words"),
    [
        ("['']", "is empty; name a folder or s3://bucket/prefix"),
        ("[gs://bucket/x]", "gs://bucket/x: neither a folder nor s3://bucket/prefix"),
        ("['s3://']", "s3://: neither a folder nor"),
        ("[a, b, a]", "names a twice"),
        ("[runs/x/checkpoints]", "runs/x/checkpoints: is, holds, or lies in the folder of checkpoints"),
        ("[runs/x/checkpoints/mirror]", "is, holds, or lies in"),
        ("[runs]", "is, holds, or lies in"),
        ("['s3://key:hunter2@bucket/x']", "an address with a user or key in it"),
        ("[~nobody-of-that-name/x]", "no such user here"),
        ("runs", "expected a list of texts"),
    ],
)
def test_addresses_where_no_mirror_can_be(mirrors: str, words: str) -> None:
    with pytest.raises(RecipeError, match=f"checkpoint.mirrors: .*{words}") as caught:
        load_recipe("debug_cpu", ["tracking.run_dir=runs/x", f"checkpoint.mirrors={mirrors}"])
    assert "hunter2" not in str(caught.value) and "\n" not in str(caught.value)


def test_a_home_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    recipe = load_recipe("debug_cpu", ["checkpoint.mirrors=[~/backup, s3://bucket/x]"])
    assert recipe.checkpoint.mirrors == ["/home/somebody/backup", "s3://bucket/x"]
    assert "mirror             s3://bucket/x: " in describe(recipe)
