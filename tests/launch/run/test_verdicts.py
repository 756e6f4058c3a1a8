"""When an attempt is over, and why: each verdict from what the ranks have reported. Nothing is started."""

from __future__ import annotations

import copy
import signal

from kogpt2_launch.run import verdicts
from kogpt2_launch.run.control import Rank
from kogpt2_launch.run.outcome import GRACE

TERM = [int(signal.SIGTERM)]


def rank(number, **known):
    return Rank(number, f"h{number + 1}", **{"pid": 100 + number, "heard": 1.0, "step": 3, "beats": 3, **known})


def two(**second):
    return [rank(0), rank(1, **second)]


def test_a_request_before_there_is_anything_to_save():
    assert verdicts.nothing_to_save(two(), []) is None
    assert verdicts.nothing_to_save(two(beats=0), TERM) is None  # it runs: it gets the signal
    outcome = verdicts.nothing_to_save(two(pid=None), TERM)
    assert (outcome.code, outcome.asked) == (75, True) and "before the first step" in outcome.reason
    outcome = verdicts.nothing_to_save(two(beats=0, spot="terminate at noon"), [])
    assert (outcome.code, outcome.leaving, outcome.asked) == (1, ("h2",), False)
    assert verdicts.nothing_to_save(two(spot="terminate at noon"), []) is None


def test_workers_have_their_time_to_save():
    assert verdicts.not_saved_in_time(two(), TERM, now=5.0, deadline=6.0, grace=2.0) is None
    outcome = verdicts.not_saved_in_time(two(), TERM, now=6.5, deadline=6.0, grace=2.0)
    assert (outcome.code, outcome.reason, outcome.grace) == (143, "not saved within 2 s", 0.0)
    outcome = verdicts.not_saved_in_time(two(), TERM * 2, now=5.0, deadline=6.0, grace=2.0)
    assert outcome.reason == "asked to stop twice" and outcome.asked
    outcome = verdicts.not_saved_in_time(two(spot="soon"), [], now=7.0, deadline=6.0, grace=2.0)
    assert (outcome.code, outcome.leaving, outcome.asked) == (1, ("h2",), False)


def test_a_rank_without_a_first_step_is_late():
    def late(ranks, seconds):
        return verdicts.late(ranks, seconds, 10.0, lambda: "engine: no route")

    assert late(two(beats=0), 9.0) is None and late(two(), 11.0) is None
    assert late(two(heard=0.0, beats=0), 11.0).reason == "rank 1 did not start within 11 s: engine: no route"
    outcome = late(two(beats=0), 11.0)
    assert (outcome.reason, outcome.rank, outcome.host) == ("no first step within 11 s: rank 1", 1, "h2")
    assert late(two(beats=0, code=0), 11.0) is None  # it has ended well


def test_the_rank_that_holds_up_the_others_is_blamed():
    ranks = [rank(0, moved=10.0, step=7), rank(1, moved=8.0, step=6, state="S")]
    assert verdicts.hung(ranks, now=14.0, allowed=5.0) is None
    outcome = verdicts.hung(ranks, now=16.0, allowed=5.0)
    assert outcome.rank == 1 and outcome.grace == 0.0
    assert outcome.reason == "no worker has moved for 6 s at step 6; rank 1 on h2: state S"
    ranks[0].state = "T"
    assert verdicts.hung(ranks, now=16.0, allowed=5.0).rank == 0
    ranks[1].beats = 0
    assert verdicts.hung(ranks, now=16.0, allowed=5.0) is None  # the time for the first step is another


def test_the_failure_that_explains_the_others_is_named():
    ranks = [rank(0, code=1, ended=5.0), rank(1, code=3, ended=5.5)]
    outcome = verdicts.failed(ranks, [])
    assert (outcome.code, outcome.rank, outcome.grace) == (3, 1, GRACE)
    assert verdicts.failed([rank(0, code=143, beats=0), rank(1)], TERM).code == 75
    assert verdicts.failed([rank(0, code=143), rank(1)], TERM).code == 143
    assert verdicts.failed([rank(0, lost="silent"), rank(1)], []).reason == "rank 0: silent"


def test_workers_that_differ_are_not_blamed_on_the_first_that_ended():
    """All ranks end with code 5; the message of each says which rank is wrong, and the launcher repeats it."""
    said = "kogpt2: step 8: rank 1 (h2, gpu(0)) differs from the 2 other workers"
    ranks = [rank(0, code=5, ended=5.0, last_lines=["step 8", said]), rank(1, code=5, ended=5.1), rank(2)]
    outcome = verdicts.failed(ranks, [])
    assert (outcome.code, outcome.rank, outcome.host) == (5, 0, "h2")  # the host of the rank that is wrong
    assert outcome.reason == f"the workers hold different parameters: {said}" and not outcome.asked
    assert verdicts.failed(ranks, TERM).asked  # nobody starts it again then
    ranks[0].last_lines = ["kogpt2: step 8: rank 0 (h1, gpu(0)) and rank 1 (h2, gpu(0)) differ in 1 of 84 arrays"]
    assert verdicts.failed(ranks, []).host is None


def test_a_rank_that_was_killed_may_have_been_out_of_memory():
    reason = verdicts.failed([rank(0, code=137), rank(1)], []).reason
    assert reason == "rank 0 on h1 was killed by SIGKILL (by the kernel if the host ran out of memory: dmesg)"


def test_the_end_of_workers_that_have_saved():
    assert verdicts.ended_well([rank(0, code=0)], asked=False).reason == "done"
    saved = [rank(0, code=75), rank(1, code=75)]
    assert verdicts.ended_well(saved, asked=True).reason == "asked to stop: state saved"
    assert not verdicts.ended_well(saved, asked=False).asked
    saved[1].spot = "terminate at noon"
    assert verdicts.ended_well(saved, asked=False).reason == "h2 leaves (terminate at noon): state saved"


def test_an_engine_that_ends_names_who_never_started():
    outcome = verdicts.engine_ended(two(heard=0.0), "mpirun", 7, "no such host")
    assert outcome.reason == "mpirun ended with exit code 7; rank 1 never started: no such host"


def test_verdicts_change_nothing():
    ranks = two(spot="soon", moved=1.0)
    before, requests = copy.deepcopy(ranks), list(TERM)
    verdicts.nothing_to_save(ranks, requests)
    verdicts.not_saved_in_time(ranks, requests, 9.0, 1.0, 1.0)
    verdicts.late(ranks, 9.0, 1.0, str)
    verdicts.hung(ranks, 9.0, 1.0)
    assert ranks == before and requests == TERM
