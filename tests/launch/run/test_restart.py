"""When a run is started again: every rule once, and the ones that end it."""

from __future__ import annotations

import pytest

from kogpt2_launch.hosts import parse_hosts
from kogpt2_launch.run.outcome import Outcome
from kogpt2_launch.run.restart import Failed, Policy, decide

HOSTS = parse_hosts("h1:8,h2:8,h3:8")
POLICY = Policy(restarts=4, backoff=10, longest=25)


def failed(code=1, saved=None, **more):
    return Failed(Outcome(code, "reason", **more), saved)


def decided(*history, first_saved=None, hosts=HOSTS, divides=lambda hosts: True):
    return decide(history, first_saved, hosts, POLICY, divides)


def test_first_failure_is_tried_again_on_the_same_hosts():
    decision = decided(failed(saved=10))
    assert decision.hosts == HOSTS and decision.wait == 10 and decision.why == "restart 1 of 4 in 10 s"


def test_backoff_doubles_up_to_its_limit():
    history = [failed(saved=step) for step in (10, 20, 30)]
    assert [decided(*history[:n]).wait for n in (1, 2, 3)] == [10, 20, 25]


@pytest.mark.parametrize("code", [2, 3, 4, 127])
def test_what_a_restart_does_not_mend_ends_the_run(code):
    assert decided(failed(code, saved=10)).hosts is None


def test_restarts_are_counted():
    history = [failed(saved=step) for step in (10, 20, 30, 40)]
    assert decided(*history).hosts == HOSTS
    assert decided(*history, failed(saved=50)).hosts is None


def test_no_loop_without_a_new_checkpoint():
    assert decided(failed(saved=None)).hosts == HOSTS
    assert decided(failed(saved=None), failed(saved=None)).hosts is None
    assert decided(failed(saved=10), failed(saved=10)).hosts == HOSTS
    assert decided(failed(saved=10), failed(saved=10), failed(saved=10)).hosts is None
    assert decided(failed(saved=10), failed(saved=10), first_saved=10).hosts is None
    assert decided(failed(saved=10), failed(saved=20), failed(saved=20)).hosts == HOSTS


def test_host_that_failed_twice_is_left_out_if_the_batch_still_divides():
    history = [failed(saved=10, host="h2"), failed(saved=20, host="h2")]
    decision = decided(*history)
    assert decision.hosts == (HOSTS[0], HOSTS[2]) and "without h2, which failed 2 times" in decision.why
    assert decided(*history, divides=lambda hosts: len(hosts) == 3).hosts == HOSTS
    assert decided(failed(saved=10, host="h1"), failed(saved=20, host="h2")).hosts == HOSTS


def test_the_only_host_is_never_left_out():
    history = [failed(saved=10, host="h1"), failed(saved=20, host="h1")]
    assert decided(*history, hosts=HOSTS[:1]).hosts == HOSTS[:1]


def test_a_host_whose_spot_instance_ends_is_left_out_at_once():
    decision = decided(failed(75, saved=10, leaving=("h3",)))
    assert decision.hosts == HOSTS[:2] and decision.wait == 0
    assert decided(failed(75, saved=10, leaving=("h3",)), divides=lambda hosts: False).hosts is None
    assert decided(failed(75, saved=10, leaving=("h1",)), hosts=HOSTS[:1]).hosts is None


def test_who_asks_for_the_end_gets_it():
    assert decided(failed(75, saved=10, asked=True)).hosts is None
    assert decided(failed(143, saved=10, asked=True)).hosts is None
