"""Whole searches with a planted trainer in the place of `kogpt2 train`, and one with real trainings."""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from click.testing import CliRunner

from kogpt2_gluon.cli.main import cli
from kogpt2_gluon.errors import DataError, KoGPT2Error, PreemptedError, RecipeError
from kogpt2_gluon.search import proposals
from kogpt2_gluon.search.page import importance, render_page
from kogpt2_gluon.search.searching import search
from kogpt2_gluon.search.study import Study
from tests.search.conftest import GRID, PLANTED
from tests.search.planted import Here, floor

BEST = {"training.learning_rate": 1e-3, "model.dropout": 0.0}


def quiet(_):
    pass


def search_here(study, workers=1):
    """A search whose trials take no time, and no process."""
    return search(study, workers, PLANTED, quiet, Here)


def steps_of(trials):
    return sum(trial.steps for trial in trials)


def test_the_planted_best_is_found_with_four_tenths_of_the_steps(study_of):
    study = study_of()
    trials = search_here(study)
    assert study.best(trials).settings == BEST
    assert len(trials) == 24 == study.plan.space.size
    assert steps_of(trials) <= 0.4 * 24 * 90
    page = render_page(study, trials)
    assert "trial " in page and "Which settings matter" in page and "needs at least" not in page
    assert importance(study, trials)[0][0] == "training.learning_rate"


def test_tpe_finds_what_is_good_in_a_space_without_end(study_of):
    space = "training.learning_rate: {low: 1e-6, high: 1e-1, log: true}\nmodel.dropout: {low: 0, high: 0.4}\n"
    study = study_of(space)
    best = study.best(search_here(study, 2))
    assert floor(best.settings["training.learning_rate"], best.settings["model.dropout"]) < 2.2


def test_two_workers_and_the_median_rule(study_of):
    study = study_of(rule="median", journal=True)
    trials = search_here(study, 2)
    assert study.best(trials).settings == BEST and (study.folder / "study.log").is_file()
    assert steps_of(trials) < 24 * 90


def test_it_goes_further_with_more_trials_and_refuses_another_plan(study_of):
    first = search_here(study_of(trials=4))
    trials = search_here(study_of(trials=9))
    assert len(first) == 4 and len(trials) == 9
    assert [trial.settings for trial in trials[:4]] == [trial.settings for trial in first]
    with pytest.raises(RecipeError, match="another space, eta"):
        study_of(GRID.replace("0.2]", "0.3]"), eta=2)


def test_a_diverged_trial_fails_and_the_search_goes_on(study_of):
    study = study_of("model.dropout: [0.0, 0.1, 0.5, 0.6]\n")
    trials = search_here(study)
    failed = [trial for trial in trials if trial.standing.state == "failed"]
    assert {trial.settings["model.dropout"] for trial in failed} == {0.5, 0.6}
    assert all("loss is nan" in trial.reason for trial in failed)
    assert study.best(trials).settings == {"model.dropout": 0.0}


def test_a_trial_that_ends_with_no_number_says_so(study_of):
    study = study_of("model.dropout: [0.0, 0.1]\n")
    trials = search_here(study)
    best = study.best(trials)
    values = dict.fromkeys(best.values, math.nan)
    again = study_of("model.dropout: [0.0, 0.1]\n", "other")
    again.begin()
    again.note([replace(best, number=0, values=values)])
    (failed,) = again.trials()
    assert failed.standing.state == "failed" and "held-out figure is nan at the end" in failed.reason


def test_a_space_of_which_everything_drawn_was_tried_ends_the_search(study_of, monkeypatch):
    """Some numbers are drawn again and again, as those of a choice between a few are in a space that has too many."""
    study = study_of("training.learning_rate: {low: 1e-4, high: 1e-2, log: true}\n")
    monkeypatch.setattr(proposals, "_draw", lambda *_: {"training.learning_rate": 1e-3})
    assert study.begin() == 0 and study.begin() is None


def test_a_range_of_decimals_is_tried_completely(study_of):
    """Three times 0.1 is above 0.3, which Optuna does not take."""
    study = study_of("model.dropout: {low: 0, high: 0.3, step: 0.1}\n")
    trials = search_here(study)
    assert sorted(trial.settings["model.dropout"] for trial in trials) == [0.0, 0.1, 0.2, 0.3]


def test_settings_that_do_not_go_together_are_not_tried(study_of):
    study = study_of("model.units: [64, 96]\nmodel.num_heads: [4, 12, 32]\n")
    trials = search_here(study)
    assert len(trials) == 5  # 64 by 12 is left out
    with pytest.raises(RecipeError, match="not divisible"):
        search_here(study_of("model.num_heads: [5, 7, 11]\n", "other"))


def test_what_would_stop_every_trial_stops_the_search_with_its_line(study_of):
    says = "import sys; print('kogpt2: shards/test: no such folder', file=sys.stderr); sys.exit(3)"
    broken = [sys.executable, "-c", says]
    with pytest.raises(KoGPT2Error, match=r"trials/0000: shards/test: no such folder") as caught:
        search(study_of(), 1, broken, quiet)
    assert caught.value.exit_code == 3
    with pytest.raises(RecipeError, match="cannot be started"):
        search(study_of(folder="other"), 1, ["/nowhere/kogpt2"], quiet)
    stopped = [sys.executable, "-c", "import sys; sys.exit(75)"]
    with pytest.raises(PreemptedError, match="the same command goes on"):
        search(study_of(folder="third"), 1, stopped, quiet)


def test_a_folder_with_other_files_and_a_damaged_study_are_refused(study_of, tmp_path):
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "thesis.txt").touch()
    with pytest.raises(RecipeError, match=r"no search\.yaml"):
        study_of()
    study = study_of(folder="other")
    (study.folder / "study.db").write_bytes(b"not a database, " * 100)
    with pytest.raises(DataError, match="cannot be opened"):
        study_of(folder="other")


SEARCH = """
import sys
from pathlib import Path
from kogpt2_gluon.recipe import load_recipe
from kogpt2_gluon.search.searching import search
from kogpt2_gluon.search.space import read_space
from kogpt2_gluon.search.study import Plan, Study
recipe = load_recipe("demo", ["data.test=shards/test", "training.num_steps=90", "training.final_learning_rate=0"])
plan = Plan(recipe, read_space(Path(sys.argv[1]), recipe), "asha", 3, 10, "tpe", 0, sys.argv[3] == "journal", 12)
search(Study(Path(sys.argv[2]), plan), 1, sys.argv[4:], lambda line: None)
"""


@pytest.mark.parametrize(
    ("storage", "kills"),
    [("journal", 3), pytest.param("sqlite", 20, marks=pytest.mark.slow)],
)
def test_a_search_that_is_killed_again_and_again_ends_with_the_same_trials(tmp_path, plan_of, storage, kills):
    """SIGKILL at random moments, from before its first decision to the middle of a slice."""
    space = tmp_path / "space.yaml"
    plan_of()
    argv = [sys.executable, "-c", SEARCH, str(space)]

    def start(folder):
        environment = {**os.environ, "PLANTED_SECONDS": "0.3"}
        return subprocess.Popen([*argv, str(tmp_path / folder), storage, *PLANTED], env=environment)

    assert start("whole").wait(timeout=300) == 0
    moments = random.Random(storage)
    for _ in range(kills):
        process = start("killed")
        with pytest.raises(subprocess.TimeoutExpired):  # it has not ended before
            process.wait(timeout=0.3 + 1.2 * moments.random())
        process.kill()
        process.wait()
    assert start("killed").wait(timeout=300) == 0
    plan = plan_of(trials=12, journal=storage == "journal")
    whole, killed = (Study(tmp_path / folder, plan).trials() for folder in ("whole", "killed"))
    assert [(t.settings, t.values) for t in killed] == [(t.settings, t.values) for t in whole]


def test_sigterm_stops_the_search_and_its_trials(tmp_path, tiny):
    """By the command itself, with a real training: exit code 75, the trial saved, no process left.

    It is a SIGTERM that comes twice, after a hang-up that nohup ignores.
    """
    space = tmp_path / "space.yaml"
    space.write_text("training.learning_rate: [1e-3, 1e-2]\n")
    out = tmp_path / "study"
    argv = ["nohup", sys.executable, "-m", "kogpt2_gluon.cli.main", "search", "demo", str(space), *tiny]
    argv.append(f"--out={out}")
    process = subprocess.Popen([*argv, "training.num_steps=200000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    run = out / "trials" / "0000"
    try:
        deadline = time.monotonic() + 120
        while not (run / "metrics.jsonl").is_file():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=1)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 75 and b"the same command goes on" in errors
    assert list((run / "checkpoints").glob("step-*")) and not (run / "lock").exists()


def test_without_optuna_one_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    (tmp_path / "space.yaml").write_text("model.dropout: [0.0, 0.1]\n")
    done = CliRunner().invoke(cli, ["search", "demo", str(tmp_path / "space.yaml"), "data.test=x"])
    assert isinstance(done.exception, RecipeError) and "pip install 'kogpt2-gluon[search]'" in str(done.exception)


def test_real_trainings(tmp_path, tiny):
    """A rate at which nothing is learned, and one that learns: each trial goes on from its own checkpoint."""
    space = tmp_path / "space.yaml"
    space.write_text("training.learning_rate: [1e-6, 1e-2]\n")
    argv = ["search", "demo", str(space), *tiny, "training.num_steps=8", "training.final_learning_rate=0"]
    argv += ["--first=2", "--eta=2", "--json", f"--out={tmp_path / 'study'}"]
    done = subprocess.run(
        [sys.executable, "-m", "kogpt2_gluon.cli.main", *argv], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    best = found["trials"][0]
    assert best["settings"] == {"training.learning_rate": 0.01} and list(best["values"]) == ["2", "4", "8"]
    assert (tmp_path / "study" / "search.html").is_file()
    # The same as one training without pauses.
    alone = tmp_path / "alone"
    settings = [*tiny, "training.num_steps=8", "training.final_learning_rate=0", "training.learning_rate=1e-2"]
    argv = [sys.executable, "-m", "kogpt2_gluon.cli.main", "train", "demo", *settings]
    subprocess.run([*argv, "evaluation.interval=2", f"tracking.run_dir={alone}"], check=True, capture_output=True)
    lines = [json.loads(line) for line in (alone / "metrics.jsonl").read_text().splitlines()]
    figures = {str(line["step"]): line["bits_per_byte"] for line in lines if line["kind"] == "evaluation"}
    assert {step: figures[step] for step in best["values"]} == best["values"]
    shutil.rmtree(tmp_path / "study")
