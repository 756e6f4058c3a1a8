"""Whole chains of real runs: what is run, what is not run again, kills, and what is refused as changed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
import yaml

from kogpt2_gluon.chain import running
from kogpt2_gluon.chain.record import Record
from kogpt2_gluon.errors import DataError, KoGPT2Error, RecipeError
from kogpt2_gluon.runs.checkpoint import open_checkpoint
from tests.helpers import kogpt2
from tests.training.run_helpers import kill_all, parameters, wait_for

ALL = ["pretrain", "adapt", "distil", "score", "tune"]


def test_a_chain_runs_whole_once_and_says_what_came_of_it(run_here, tmp_path):
    begun, table = run_here()
    folder = tmp_path / "chain"
    assert begun == ALL
    best = {name: open_checkpoint(folder / name / "best").path for name in ("pretrain", "adapt")}
    assert f"begins with the weights of {best['pretrain']}" in (folder / "adapt" / "log.txt").read_text()
    distil = (folder / "distil" / "log.txt").read_text()
    assert f"teacher            {best['adapt']}" in distil and "layers 0 of the teacher's 2" in distil
    assert [line.split()[0] for line in table] == ["stage", *ALL]
    assert "bits per byte" in table[1] and "perplexity" in table[4] and "on test, 1 seed(s)" in table[5]
    scores = json.loads((folder / "score" / "scores.json").read_text())
    assert f"{scores['bits_per_byte']:.4f}" in table[4]
    assert not (folder / "lock").exists()
    said: list[str] = []
    assert run_here(say=said.append) == ([], table)
    assert len(said) == 5 and all("done before" in line for line in said)


def test_a_changed_stage_is_refused_until_it_may_run_again(run_here, tmp_path):
    folder = tmp_path / "chain"
    run_here()
    before = parameters(folder / "distil")
    change = "distil.distillation.weight=0.9"
    with pytest.raises(RecipeError) as caught:
        run_here(change)
    assert "stage distil has changed (distillation.weight); stage score follows from distil" in str(caught.value)
    assert "--again distil" in str(caught.value) and run_here.begun == []
    assert run_here("distil.tracking.log_interval=3")[0] == []  # decides nothing
    begun, _ = run_here(change, again=["distil"])
    assert begun == ["distil", "score", "tune"]
    [aside] = folder.glob("before-*")
    assert parameters(aside / "distil") == before != parameters(folder / "distil")
    assert sorted(each.name for each in aside.iterdir()) == ["chain.json", "distil", "score", "tune"]
    assert run_here(change)[0] == []


def test_a_network_or_data_that_is_another_now_is_a_change(run_here, tmp_path, shards):
    folder = tmp_path / "chain"
    run_here("pretrain.checkpoint.keep_best=false")
    shards_there = shutil.copytree(shards / "test", tmp_path / "moved")
    moved = f"score.data={shards_there}"
    assert run_here("pretrain.checkpoint.keep_best=false", moved)[0] == []  # the same at another place
    with pytest.raises(RecipeError, match=r"stage score has changed \(data\)"):
        run_here("pretrain.checkpoint.keep_best=false", f"score.data={shards / 'train'}")
    more = open_checkpoint(folder / "pretrain").recipe()
    more.training.num_steps += 1
    (tmp_path / "more.yaml").write_text(more.to_yaml())
    kogpt2("train", tmp_path / "more.yaml")
    with pytest.raises(RecipeError, match=r"stage adapt has changed \(training\.init_from\); stage distil follows"):
        run_here("pretrain.checkpoint.keep_best=false")


def test_a_stage_that_fails_ends_the_chain_and_the_next_call_goes_on(run_here, tmp_path):
    diverges = "adapt.training.learning_rate=1e30"
    with pytest.raises(KoGPT2Error, match=r"^stage adapt: .*step \d+: ") as caught:
        run_here(diverges, "adapt.training.clip_norm=0", "adapt.training.final_learning_rate=1e30")
    assert caught.value.exit_code == 4 and run_here.begun == ["pretrain", "adapt"]
    with pytest.raises(RecipeError, match=r"stage adapt has changed \(training\.learning_rate, "):
        run_here()
    assert run_here(again=["adapt"])[0] == ["adapt", "distil", "score", "tune"]


def test_a_folder_that_is_not_the_chains_is_refused(run_here, tmp_path):
    (tmp_path / "chain" / "adapt").mkdir(parents=True)
    (tmp_path / "chain" / "adapt" / "thesis.txt").touch()
    with pytest.raises(DataError, match=r"adapt: holds files, and .* has no record of them"):
        run_here()
    for damaged in ("[]", "{", '{"version": 1, "stages": {"a": {}}}', '{"version": 2, "stages": {}}', "[" * 5000):
        (tmp_path / "chain" / "chain.json").write_text(damaged)
        with pytest.raises(DataError, match="is not the record of a chain"):
            run_here()


@pytest.fixture
def two_stages(chain_file):
    """Leaves of the chain what takes a second: pretrain, and score, of its network."""
    plain = yaml.safe_load(chain_file.read_text())
    plain["stages"] = {name: plain["stages"][name] for name in ("pretrain", "score")}
    plain["stages"]["score"]["evaluate"] = "{pretrain}"
    chain_file.write_text(yaml.safe_dump(plain, sort_keys=False))
    return plain


def test_a_stage_whose_result_is_gone_is_not_done(two_stages, run_here, tmp_path):
    folder = tmp_path / "chain"
    run_here()
    shutil.move(folder / "score", tmp_path / "elsewhere")
    with pytest.raises(RecipeError, match=r"stage score has changed \(its result is gone\)\. Restore.*--again score"):
        run_here()
    shutil.move(tmp_path / "elsewhere", folder / "score")
    assert run_here()[0] == []
    shutil.rmtree(folder / "pretrain" / "checkpoints")
    with pytest.raises(RecipeError, match=r"stage pretrain has changed \(its result is gone\); stage score follows"):
        run_here()
    assert run_here(again=["pretrain"])[0] == ["pretrain", "score"]


@pytest.mark.parametrize("saves", [0, 1])
def test_again_that_dies_after_any_move_is_given_again(two_stages, run_here, tmp_path, monkeypatch, saves):
    run_here()
    left = iter(range(saves))
    real = Record.save

    def save(record):
        if next(left, None) is None:
            raise KeyboardInterrupt
        real(record)

    monkeypatch.setattr(Record, "save", save)
    with pytest.raises(KeyboardInterrupt):
        run_here(again=["pretrain"])
    monkeypatch.setattr(Record, "save", real)
    gone = ("score", "pretrain")[saves]  # its folder has moved, and the record still has it
    with pytest.raises(RecipeError, match=rf"stage {gone} has changed \(its result is gone\)"):
        run_here()
    assert run_here(again=["pretrain"])[0] == ["pretrain", "score"]
    assert run_here()[0] == []
    moved = [each.relative_to(tmp_path / "chain").parts[1:] for each in (tmp_path / "chain").glob("before-*/*")]
    assert sorted(moved).count(("pretrain",)) == 1 and sorted(moved).count(("score",)) == 1  # nothing is lost


def test_what_is_no_change_of_a_chain(two_stages, run_here, chain_file, tmp_path):
    """A folder that was moved, a stage that was taken out for a time, and a new one in between."""
    _, table = run_here()
    (tmp_path / "chain").rename(tmp_path / "moved")
    here = {**two_stages, "folder": str(tmp_path / "moved")}
    chain_file.write_text(yaml.safe_dump(here, sort_keys=False))
    assert run_here() == ([], table)
    first, score = here["stages"].items()
    chain_file.write_text(yaml.safe_dump({**here, "stages": dict([first])}, sort_keys=False))
    assert run_here()[0] == []
    again = ("again", score[1])
    chain_file.write_text(yaml.safe_dump({**here, "stages": dict([first, again, score])}, sort_keys=False))
    assert run_here()[0] == ["again"]


def test_a_record_from_before_a_setting_existed_is_none_of_a_change(two_stages, run_here, tmp_path):
    """It was at its default then. Another value now is a change."""
    run_here()
    path = tmp_path / "chain" / "chain.json"
    plain = json.loads(path.read_text())
    for stage, key in (("pretrain", "training.spike_sigmas"), ("pretrain", "data.include"), ("score", "stride")):
        del plain["stages"][stage]["settings"][key]
    path.write_text(json.dumps(plain))
    assert run_here()[0] == []
    with pytest.raises(RecipeError, match=r"stage pretrain has changed \(training\.spike_sigmas\)"):
        run_here("pretrain.training.spike_sigmas=9")


def test_a_renamed_stage_is_another_one(two_stages, run_here, chain_file):
    """Its name is that of its folder. What follows from it is refused, not silently kept."""
    run_here()
    first, score = two_stages["stages"].values()
    renamed = {**two_stages, "stages": {"base": first, "score": {**score, "evaluate": "{base}"}}}
    chain_file.write_text(yaml.safe_dump(renamed, sort_keys=False))
    with pytest.raises(RecipeError, match="stage score follows from base"):
        run_here()
    assert run_here(again=["score"])[0] == ["base", "score"]


def test_an_input_that_is_gone_is_named_with_its_stage(two_stages, run_here, tmp_path, shards):
    there = shutil.copytree(shards / "test", tmp_path / "there")
    run_here(f"score.data={there}")
    shutil.rmtree(there)
    with pytest.raises(DataError, match=rf"^stage score: {there}: no such file or folder"):
        run_here(f"score.data={there}")


def test_a_stage_that_ends_well_and_leaves_nothing_is_not_done(two_stages, run_here, monkeypatch):
    """A command before the run may not start it: `--run-with true`."""
    real = running._process
    monkeypatch.setattr(running, "_process", lambda stage, argv, folder: (0, ""))
    with pytest.raises(KoGPT2Error, match=r"^stage pretrain: ended without an error and left no result in "):
        run_here()
    monkeypatch.setattr(running, "_process", real)
    assert run_here()[0] == ["pretrain", "score"]


def start(chain_file, out, *more):
    command = [sys.executable, "-m", "kogpt2_gluon.cli.main", "chain", chain_file, "--out", out, *more]
    return subprocess.Popen(
        [str(word) for word in command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=dict(os.environ)
    )


LONGER = ("distil.training.num_steps=120", "distil.checkpoint.interval=2")


def test_kills_and_sigterm_in_the_middle_change_nothing(chain_file, run_here, tmp_path):
    """SIGKILL of the chain and of its run, then SIGTERM, then to the end: the parameters of an unbroken chain."""
    assert run_here(*LONGER)[0] == ALL
    out = tmp_path / "killed"
    latest = out / "distil" / "checkpoints" / "latest"
    process = start(chain_file, out, *LONGER)
    wait_for(latest.is_file, process)
    kill_all(process)
    reached = open_checkpoint(out / "distil").state()["step"]
    process = start(chain_file, out, *LONGER)
    wait_for(lambda: latest.read_text() > f"step-{reached + 2:08d}", process)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 75 and b"the same command goes on" in errors
    assert open_checkpoint(out / "distil").state()["step"] < 120 and not (out / "distil" / "lock").exists()
    done = kogpt2("chain", chain_file, "--out", out, *LONGER).stdout
    assert "stage pretrain: done before" in done and "stage adapt: done before" in done
    for name in ("pretrain", "adapt", "distil", "tune/seed-0"):
        assert parameters(out / name) == parameters(tmp_path / "chain" / name), name
    assert done.splitlines()[-1].startswith("tune ")
