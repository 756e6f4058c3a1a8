"""Which run goes on: by hand-made standings, and by properties of all of them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kogpt2_gluon.search.rungs import ASHA, BUSY, DONE, FAILED, MEDIAN, NONE, WAITS, Standing, next_slice, rungs_of

RUNGS = [10, 30, 90]


def standings(*rows):
    """(state, results at rungs in order) of trial 0, 1, ..."""
    return [Standing(n, state, dict(zip(RUNGS, results))) for n, (state, *results) in enumerate(rows)]


@pytest.mark.parametrize(
    ("num_steps", "first", "eta", "rule", "rungs"),
    [
        (90, 10, 3, ASHA, [10, 30, 90]),
        (100, 10, 3, ASHA, [10, 30, 90, 100]),
        (90, 90, 3, ASHA, [90]),
        (7, 1, 2, MEDIAN, [1, 2, 4, 7]),
        (90, 10, 3, NONE, [90]),
    ],
)
def test_rungs_are_powers_of_eta_and_the_end(num_steps, first, eta, rule, rungs):
    assert rungs_of(num_steps, first, eta, rule) == rungs


def test_a_new_run_until_one_of_three_deserves_the_next_rung():
    rows = [(WAITS, 3.0), (WAITS, 1.0)]
    assert next_slice(standings(*rows), RUNGS, ASHA, 3, may_begin=True) == (None, 10)
    rows.append((WAITS, 2.0))
    assert next_slice(standings(*rows), RUNGS, ASHA, 3, may_begin=True) == (1, 30)
    rows[1] = (BUSY, 1.0)
    assert next_slice(standings(*rows), RUNGS, ASHA, 3, may_begin=True) == (None, 10)


def test_a_paused_run_is_promoted_by_results_that_come_later():
    rows = [(WAITS, 1.0, 5.0), (WAITS, 2.0), (WAITS, 9.0), (WAITS, 9.0), (WAITS, 9.0)]
    assert next_slice(standings(*rows), RUNGS, ASHA, 3, may_begin=True) == (None, 10)
    rows.append((WAITS, 9.0))
    assert next_slice(standings(*rows), RUNGS, ASHA, 3, may_begin=True) == (1, 30)


def test_the_highest_rung_comes_first():
    rows = [(WAITS, 1.0, 5.0), (WAITS, 2.0, 4.0), (WAITS, 3.0, 3.0), *[(WAITS, 4.0 + n) for n in range(9)]]
    assert next_slice(standings(*rows), RUNGS, ASHA, 3, may_begin=True) == (2, 90)


def test_what_was_interrupted_goes_on_first():
    rows = [(WAITS, 1.0), (WAITS,), (WAITS, 2.0), (WAITS, 3.0)]
    assert next_slice(standings(*rows), RUNGS, ASHA, 3, may_begin=True) == (1, 10)


def test_something_is_finished_even_with_too_few_runs_for_a_promotion():
    rows = [(WAITS, 2.0), (WAITS, 1.0)]
    assert next_slice(standings(*rows), RUNGS, ASHA, 3, may_begin=False) == (1, 30)
    rows[1] = (WAITS, 1.0, 1.0)
    assert next_slice(standings(*rows), RUNGS, ASHA, 3, may_begin=False) == (1, 90)
    rows[1] = (DONE, 1.0, 1.0, 1.0)
    assert next_slice(standings(*rows), RUNGS, ASHA, 3, may_begin=False) is None


def test_a_machine_that_would_be_idle_takes_from_the_pool():
    rows = [(WAITS, 2.0), (WAITS, 3.0, 3.0), (BUSY, 1.0, 1.0), (DONE, 0.0, 0.0, 0.0)]
    assert next_slice(standings(*rows), RUNGS, ASHA, 3, may_begin=False) == (1, 90)
    rows[2] = (DONE, 1.0, 1.0, 1.0)
    assert next_slice(standings(*rows), RUNGS, ASHA, 3, may_begin=False) is None


def test_a_run_that_failed_is_never_promoted_and_counts_as_the_worst():
    rows = [(FAILED, math.inf), (WAITS, 2.0), (FAILED, math.inf)]
    assert next_slice(standings(*rows), RUNGS, ASHA, 3, may_begin=True) == (1, 30)
    assert next_slice(standings((FAILED, math.inf)), RUNGS, ASHA, 3, may_begin=False) is None


def test_the_median_rule_pauses_the_worse_half_once_there_are_four():
    rows = [(WAITS, 3.0)]
    assert next_slice(standings(*rows), RUNGS, MEDIAN, 3, may_begin=True) == (0, 30)
    rows = [(DONE, 3.0, 3.0, 3.0), (DONE, 1.0, 1.0, 1.0), (DONE, 2.0, 2.0, 2.0), (WAITS, 9.0)]
    assert next_slice(standings(*rows), RUNGS, MEDIAN, 3, may_begin=True) == (None, 10)
    rows[3] = (WAITS, 1.9)
    assert next_slice(standings(*rows), RUNGS, MEDIAN, 3, may_begin=True) == (3, 30)


@given(st.lists(st.permutations(range(12)), min_size=3, max_size=3), st.sampled_from([ASHA, MEDIAN, NONE]))
def test_a_search_ends_and_has_finished_the_best_of_what_it_finished_last(orders, rule):
    """One machine, made-up results: each trial is slower or faster by turns."""
    rungs = rungs_of(90, 10, 3, rule)
    results: list[dict[int, float]] = []
    for _ in range(12 * 3 + 1):
        rows = [Standing(n, DONE if 90 in each else WAITS, each) for n, each in enumerate(results)]
        chosen = next_slice(rows, rungs, rule, 3, len(results) < 12)
        if chosen is None:
            break
        number, step = chosen
        if number is None:
            results.append({})
            number = len(results) - 1
        reached = sorted(each[step // 3] for each in results if step // 3 in each)
        if rule == ASHA and step > 10 and len(results) < 12:  # later the last ones may go on for want of better
            assert results[number][step // 3] in reached[: len(reached) // 3]
        assert step == next(rung for rung in rungs if rung not in results[number])  # no rung twice, none left out
        results[number][step] = float(orders[RUNGS.index(step)][number])
    else:
        raise AssertionError("it does not end")
    assert len(results) == 12 and any(90 in each for each in results)
