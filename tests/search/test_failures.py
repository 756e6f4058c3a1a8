"""Trials that end badly: which ones fail alone, and which ones stop the search."""

from __future__ import annotations

import json
import signal
import threading

import pytest

from kogpt2_gluon.errors import KoGPT2Error, PreemptedError
from kogpt2_gluon.search.failures import failure_of
from kogpt2_gluon.search.searching import _begin, search
from tests.search.conftest import PLANTED
from tests.search.planted import Here

DROPOUTS = "model.dropout: [0.0, 0.1, 0.2, 0.3]\n"
OUT_OF_MEMORY = (1, "kogpt2: out of memory: a worker needs 80 GiB by the estimate")


@pytest.fixture
def end_at(monkeypatch):
    """Returns a function that makes trials with some dropouts end at once, with (exit code or -signal, last line)."""
    return lambda ends: monkeypatch.setenv("PLANTED_ENDS", json.dumps({str(key): end for key, end in ends.items()}))


def run(study, workers=1, say=lambda line: None):
    return search(study, workers, [], say, Here)


def states(study):
    return [trial.standing.state for trial in study.trials()]


def first_and_others(study_of):
    """Runs the first trial of a search over four dropouts; returns its own, and the three that are left."""
    (first,) = run(study_of(DROPOUTS, trials=1))
    mine = first.settings["model.dropout"]
    return mine, [each for each in (0.0, 0.1, 0.2, 0.3) if each != mine]


def test_trials_that_die_or_need_too_much_memory_fail_and_the_search_goes_on(study_of, end_at):
    mine, (second, third, last) = first_and_others(study_of)
    end_at({second: (-signal.SIGKILL, ""), third: OUT_OF_MEMORY})
    study, lines = study_of(DROPOUTS), []
    trials = run(study, say=lines.append)
    reasons = {trial.settings["model.dropout"]: trial.reason for trial in trials}
    assert "SIGKILL" in reasons.pop(second) and reasons.pop(third) == OUT_OF_MEMORY[1][len("kogpt2: ") :]
    assert reasons == {mine: "", last: ""} and sum(" failed: " in line for line in lines) == 2
    assert study.best(trials).settings["model.dropout"] == min(mine, last)


def test_data_that_only_some_settings_damage_fail_their_trials_alone(study_of, end_at):
    _, others = first_and_others(study_of)
    end_at({others[1]: (3, "kogpt2: shards/test: is shorter than a sequence")})
    trials = run(study_of(DROPOUTS))
    assert [trial.reason for trial in trials if trial.reason] == ["shards/test: is shorter than a sequence"]


def test_a_search_stops_at_the_third_failure_in_a_row_and_the_same_command_passes_it(study_of, end_at):
    mine, others = first_and_others(study_of)
    end_at(dict.fromkeys(others, (-signal.SIGSEGV, "")))
    with pytest.raises(KoGPT2Error, match="ended by SIGSEGV; 3 trials failed in a row"):
        run(study_of(DROPOUTS))
    study = study_of(DROPOUTS)
    assert states(study) == ["done", "failed", "failed", "waits"]
    assert study.best(run(study)).settings["model.dropout"] == mine
    assert states(study) == ["done", "failed", "failed", "failed"]


def test_the_first_failure_stops_a_search_and_costs_no_trial(study_of, end_at):
    end_at(dict.fromkeys((0.0, 0.1, 0.2, 0.3), OUT_OF_MEMORY))
    with pytest.raises(KoGPT2Error, match=r"trials/0000: out of memory: .* no trial has a result yet"):
        run(study_of(DROPOUTS))
    assert states(study_of(DROPOUTS)) == ["waits"]
    end_at({})
    assert {trial.standing.state for trial in run(study_of(DROPOUTS))} == {"done", "waits"}


def test_the_first_trial_may_need_too_much_memory_where_others_still_train(study_of, end_at):
    (first,) = run(study_of(DROPOUTS, "asked", trials=1))
    end_at({first.settings["model.dropout"]: OUT_OF_MEMORY})
    study = study_of(DROPOUTS)
    trials = run(study, workers=2)
    assert [trial.number for trial in trials if trial.standing.state == "failed"] == [0]
    assert study.best(trials).number != 0


@pytest.mark.parametrize(
    ("code", "said"), [(5, "rank 3 differs"), (127, "not found"), (0, ""), (1, "runs/x: the disk is full (0 GB free)")]
)
def test_what_no_settings_cause_stops_the_search(study_of, end_at, code, said):
    _, others = first_and_others(study_of)
    end_at(dict.fromkeys(others, (code, said)))
    with pytest.raises(KoGPT2Error, match=said[:8] or "without the result") as caught:
        run(study_of(DROPOUTS))
    assert caught.value.exit_code == (code or 1) and states(study_of(DROPOUTS)) == ["done", "waits"]


def test_a_process_that_is_killed_fails_its_trial(study_of, end_at):
    """By a real signal."""
    _, others = first_and_others(study_of)
    end_at(dict.fromkeys(others, (-signal.SIGKILL, "")))
    trials = search(study_of(DROPOUTS, trials=2), 1, PLANTED, lambda line: None)
    assert "SIGKILL" in trials[1].reason


@pytest.mark.parametrize("code", [75, 130, 143, -signal.SIGTERM, -signal.SIGHUP])
def test_who_was_stopped_has_not_failed(code, tmp_path):
    with pytest.raises(PreemptedError, match="the same command goes on"):
        failure_of(code, "stopped", False, tmp_path)


def test_a_shell_says_by_which_signal_a_process_died(tmp_path):
    assert failure_of(137, "", False, tmp_path).is_its_size and failure_of(139, "", True, tmp_path).is_its_size
    assert failure_of(0, "", True, tmp_path) is None and failure_of(75, "", True, tmp_path) is None


def test_a_trial_that_has_diverged_is_not_begun_again_by_another_host(study_of):
    """Two hosts, one of which looks for work at the very moment in which the other takes the trial's end."""
    mine, peers = (study_of("model.dropout: [0.5, 0.6]\n", trials=1) for _ in range(2))
    begun = []

    def look():
        begun.append(_begin(peers, ["", []], lambda line: None, lambda *arguments: arguments)[0])

    class Watched(Here):
        def end(self):
            ended = super().end()
            peer = threading.Thread(target=look)
            peer.start()
            peer.join(0.5)  # as it is now, it waits until the end is noted
            watching.append(peer)
            return ended

    watching = []
    trials = search(mine, 1, [], lambda line: None, Watched)
    for peer in watching:
        peer.join()
    assert begun == [None] and trials[0].standing.state == "failed"


def test_a_trial_that_has_failed_is_not_failed_again(study_of):
    mine, peers = (study_of("model.dropout: [0.5, 0.6]\n") for _ in range(2))
    mine.begin()
    mine.fail(0, "loss is nan")
    peers.fail(0, "another reason")
    assert peers.trials()[0].reason == "loss is nan"
