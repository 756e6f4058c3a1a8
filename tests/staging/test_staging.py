"""Staging before a run. Lustre is played by a script or a class."""

from __future__ import annotations

import json
import os
import random
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from kogpt2_gluon.cli.main import cli
from kogpt2_gluon.errors import DataError
from kogpt2_gluon.shards.format import MANIFEST, TOKENIZER
from kogpt2_gluon.staging import restoring, transfer
from kogpt2_gluon.staging.restoring import DataFile, Restoring
from kogpt2_gluon.staging.staging import stage, status, take_inventory
from kogpt2_gluon.storage import lustre as lustre_module
from kogpt2_gluon.storage.lustre import HsmAction, HsmState
from tests.helpers import kogpt2
from tests.shards.shard_helpers import write_documents
from tests.storage.lustre_helpers import FakeLustre


def no_sleep(seconds: float) -> None:
    assert 0 < seconds <= restoring.LONGEST_WAIT


# --- without Lustre


def test_where_there_is_no_lustre_it_says_so_and_goes_on(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lustre_module, "MOUNTS", shards / "no such table")
    report = stage(shards)
    assert report.faults == [] and report.sets == [str(shards / "train"), str(shards / "test")]
    assert report.notes == ["not on Lustre: nothing to restore or to stripe"] and not report.on_lustre
    assert report.files == len(take_inventory(shards).files) == 12
    assert report.bytes == sum(path.stat().st_size for path in shards.rglob("*") if path.is_file())


def test_faults_of_a_set_are_all_named(shards: Path) -> None:
    (shards / "train" / "train-00001.ktok").unlink()
    with (shards / "train" / "train-00002.ktok").open("ab") as file:
        file.write(b"x")
    (shards / "test" / MANIFEST).write_text("{}")
    faults = " ".join(stage(shards).faults)
    assert "train-00001.ktok: missing" in faults and "train-00002.ktok: " in faults and "its manifest says" in faults
    assert f"test/{MANIFEST}" in faults
    (shards / "test" / MANIFEST).unlink()
    assert "shards without a manifest" in " ".join(status(shards).faults)


def test_sets_at_any_depth(tmp_path: Path) -> None:
    root = tmp_path / "shards"
    for name in ("wiki/train", "news/train", "news/test"):
        write_documents(root / name, [50] * 4)
    (root / "notes.txt").write_text("리뷰")  # "review"
    assert stage(root).faults == [] and stage(root).files == 10
    assert stage(root).sets == [str(root / name) for name in ("news/train", "news/test", "wiki/train")]
    (root / "news" / "train" / "train-00000.ktok").unlink()
    for found in (stage(root), status(root)):
        assert len(found.faults) == 1 and found.faulty_sets == [str(root / "news" / "train")]
    done = CliRunner().invoke(cli, ["files", "stage", str(root)])
    assert isinstance(done.exception, DataError) and "train-00000.ktok: missing" in str(done.exception)
    assert f"  faulty: {root / 'news' / 'train'}\n" in done.output and "fault: " not in done.output
    assert f"manifest whole: {root / 'news' / 'test'}, {root / 'wiki' / 'train'}" in done.output
    (root / "wiki" / "train" / TOKENIZER).unlink()
    done = CliRunner().invoke(cli, ["files", "stage", str(root)])
    assert done.output.count("  fault: ") == 2 and "2 faults, listed above" in str(done.exception)


def test_the_working_folder(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shards)
    assert stage(Path()).files == 12
    monkeypatch.chdir(shards / "train")
    Path("train-00000.ktok").unlink()
    assert stage(Path()).faulty_sets == ["."]


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_nothing_staged_is_no_progress(shards: Path, options: list[str]) -> None:
    assert CliRunner().invoke(cli, ["files", "stage", str(shards), *options]).stderr == ""


def test_other_files_count_without_a_manifest(tmp_path: Path) -> None:
    (tmp_path / "text" / "b").mkdir(parents=True)
    for name in ("a.txt", "b/c.txt", ".hidden"):
        (tmp_path / "text" / name).write_text("리뷰")  # "review"
    (tmp_path / "text" / "b" / "round").symlink_to(tmp_path / "text")
    assert (stage(tmp_path / "text").files, stage(tmp_path / "text" / "a.txt").files) == (2, 1)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no files there"):
        stage(tmp_path / "empty")


def test_a_folder_that_cannot_be_listed_is_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text" / "locked").mkdir(parents=True)
    (tmp_path / "text" / "a.txt").write_text("x")
    plain = os.scandir

    def scandir(place: Any) -> Any:
        if Path(place).name == "locked":
            raise PermissionError(13, "Permission denied", str(place))
        return plain(place)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(DataError, match="locked: cannot be listed: Permission denied"):
        take_inventory(tmp_path / "text")


def test_how_far_it_is_shows_in_the_log_of_a_job(
    fake: FakeLustre, shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a terminal there is no progress bar."""
    monkeypatch.setattr(restoring, "SAY_EVERY", 0.0)
    monkeypatch.setattr(restoring, "FIRST_WAIT", 0.01)
    fake.release(shards / "train" / "train-00000.ktok")
    done = CliRunner().invoke(cli, ["files", "stage", str(shards)])
    assert done.exit_code == 0 and "staging: 1 of 1 files" in done.stderr and "staging: 1 of" not in done.stdout


def test_the_command(shards: Path, tmp_path: Path) -> None:
    done = kogpt2("files", "stage", shards)
    assert f"{shards}: 12 files" in done.stdout and "not on Lustre" in done.stdout
    plain = json.loads(kogpt2("files", "status", shards, "--json").stdout)
    assert plain["ok"] and plain["folders"][0]["files"] == 12
    (shards / "train" / "train-00000.ktok").unlink()
    refused = kogpt2("files", "stage", shards, code=3)
    assert refused.stderr.splitlines()[-1].startswith("kogpt2: ") and "train-00000.ktok: missing" in refused.stderr
    assert not json.loads(kogpt2("files", "stage", shards, "--json", code=3).stdout)["ok"]
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(f"data: {{train: [{shards / 'test'}]}}\nevaluation: {{interval: 0}}\n")
    named = kogpt2("files", "stage", recipe).stdout
    assert f"{shards / 'test'}: 3 files" in named
    assert "neither a folder nor a recipe" in kogpt2("files", "stage", "no such thing", code=2).stderr
    assert "write s3://bucket/prefix" in kogpt2("files", "upload", shards, "bucket", code=2).stderr
    assert "no layout to set" in kogpt2("files", "layout", tmp_path / "new").stdout


# --- restoring


def test_released_files_come_back_in_batches(fake: FakeLustre, shards: Path) -> None:
    names = [f"train/train-{number:05d}.ktok" for number in range(5)]
    fake.release(*(shards / name for name in names), takes=3)
    looked = stage(shards, dry_run=True)
    assert (looked.released_files, looked.restored_files) == (5, 0) and not fake.calls("hsm_restore")
    shown: list[tuple[int, int]] = []
    report = stage(shards, batch=2, progress=lambda *now: shown.append(now), sleep=no_sleep)
    assert (report.faults, report.released_files, report.restored_files) == ([], 5, 5)
    total = sum((shards / name).stat().st_size for name in names)
    assert shown[-1] == (total, total) == (report.released_bytes,) * 2 and shown == sorted(shown)
    asked = fake.calls("hsm_restore")
    assert sorted(chain.from_iterable(asked)) == [str(shards / name) for name in names] and max(map(len, asked)) == 2
    assert any("noatime" in note for note in report.notes) and report.on_lustre
    assert stage(shards, sleep=no_sleep).released_files == 0  # again: nothing to do


def test_a_restore_that_fails_is_tried_once_more_and_named(fake: FakeLustre, shards: Path) -> None:
    train = shards / "train"
    fake.release(train / "train-00000.ktok", failures=1)
    fake.release(train / "train-00001.ktok", failures=9)
    fake.release(train / "train-00002.ktok", refused=True)
    fake.release(train / "train-00003.ktok")
    report = stage(shards, sleep=no_sleep)
    assert (report.released_files, report.restored_files, len(report.faults)) == (4, 2, 2)
    ended = next(line for line in report.faults if "00001" in line)
    refused = next(line for line in report.faults if "00002" in line)
    assert "ended without its data" in ended and "Operation not permitted" in refused and "sudo" in refused
    alone = [call for call in fake.calls("hsm_restore") if str(train / "train-00001.ktok") in call]
    assert len(alone) == 3  # with the others (refused for one of them), by itself, and once more


def test_status_shows_layout_and_what_is_lost(fake: FakeLustre, shards: Path) -> None:
    lustre_module.prepare_folder(shards / "train")
    fake.release(shards / "train" / "train-00000.ktok")
    (fake.state / "x").write_text("")
    report = status(shards)
    assert (report.released_files, report.faults) == (1, [])
    assert report.layout[0].endswith("1 OST x 4 MiB up to 64 MiB, then 4 OSTs x 4 MiB")
    assert report.layout[1].endswith("the file system default") and len(report.layout) == 3
    assert "relatime" in report.mount_options
    assert any("released: 1 file, " in line for line in report.lines(staged=False))


def test_lustre_without_its_tool(fake: FakeLustre, shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(shards))
    report = stage(shards)
    assert report.on_lustre and report.faults == [] and "lfs is not on the PATH" in " ".join(report.notes)


class PlayedLustre:
    """Files that come back after `looks` questions, or not; in memory, for many cases and for time."""

    def __init__(self, looks: dict[Path, int | None], failures: dict[Path, int]) -> None:
        self.looks, self.failures = looks, failures
        self.left: dict[Path, int] = {}
        self.back: set[Path] = set()
        self.most = 0
        self.asked: list[Path] = []

    def restore(self, paths: list[Path]) -> None:
        self.asked += paths
        for path in paths:
            looks = self.looks[path]
            self.left[path] = 10**9 if looks is None else looks
        self.most = max(self.most, len(self.left))

    def states(self, paths: list[Path]) -> dict[Path, HsmState]:
        for path in [path for path in paths if path in self.left]:
            self.left[path] -= 1
            if self.left[path] <= 0:
                del self.left[path]
                if self.failures.get(path, 0) > 0:
                    self.failures[path] -= 1
                else:
                    self.back.add(path)
        return {path: HsmState(0x09 if path in self.back else 0x0D) for path in paths}

    def action(self, path: Path) -> HsmAction:
        return HsmAction("RESTORE" if self.left.get(path, 0) > 0 else "NOOP", 0)


@settings(derandomize=True, max_examples=150, deadline=None)
@given(
    files=st.lists(st.tuples(st.integers(0, 1000), st.integers(1, 6), st.integers(0, 3)), min_size=1, max_size=20),
    batch=st.integers(1, 8),
)
def test_every_file_is_restored_or_named(files: list[tuple[int, int, int]], batch: int) -> None:
    paths = [Path(f"/fsx/{number}") for number in range(len(files))]
    played = PlayedLustre(
        {path: looks for path, (_, looks, _) in zip(paths, files)},
        {path: failures for path, (_, _, failures) in zip(paths, files)},
    )
    data = [DataFile(path, size) for path, (size, _, _) in zip(paths, files)]
    failed = Restoring(played, data, batch, sleep=no_sleep).run()  # type: ignore[arg-type]
    assert set(failed) | played.back == set(paths) and not set(failed) & played.back
    assert set(failed) == {path for path, (_, _, failures) in zip(paths, files) if failures >= restoring.ATTEMPTS}
    assert played.most <= batch and max(map(played.asked.count, paths)) <= restoring.ATTEMPTS


def test_it_waits_longer_and_gives_up_when_nothing_moves() -> None:
    path, now, waits, said = Path("/fsx/a"), [0.0], [], []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        now[0] += seconds

    run = Restoring(PlayedLustre({path: None}, {}), [DataFile(path, 10)], 1, None, said.append, sleep, lambda: now[0])  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"/fsx/a: nothing was restored for 30\.0 min \(1 file under way\)"):
        run.run()
    assert waits[:3] == [0.5, 0.75, 1.125] and max(waits) == 10.0 == waits[-1]
    assert 1800 < now[0] < 1830 and 40 < len(said) <= 61 and said[0].startswith("0 of 1 files")


def test_an_interruption_says_how_far_it_is() -> None:
    path, said = Path("/fsx/a"), []

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Restoring(PlayedLustre({path: 5}, {}), [DataFile(path, 10)], 1, None, said.append, interrupt).run()  # type: ignore[arg-type]
    assert said == [
        "interrupted; 0 of 1 files, 0.0 MB of 0.0 MB; the servers go on restoring 1 file, so run this again later"
    ]


def test_the_meter_never_runs_backwards_or_over() -> None:
    shown: list[tuple[int, int]] = []
    meter, random_ = transfer._Meter(300, lambda *now: shown.append(now)), random.Random(0)
    for counts in ([100], [], [60, 60, random_.randrange(1, 90)]):  # as it is, skipped, a part sent twice
        for count in counts:
            meter.advance(count)
        meter.close_file(100)
    assert shown[-1] == (300, 300) and max(shown)[0] <= 300
