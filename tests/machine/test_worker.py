"""Collective operations, on workers that are threads. tests/training/test_worker.py has those with Horovod."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kogpt2_gluon.machine.worker import Worker
from tests.machine.thread_workers import on_workers

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=PLAIN, size=st.integers(1, 4))
def test_a_broadcast_brings_rank_0s_data_to_all(data: Any, size: int) -> None:
    assert on_workers(size, lambda worker: worker.broadcast(data if worker.rank == 0 else "other")) == [data] * size


def test_a_broadcast_keeps_names_that_are_not_utf8() -> None:
    name = b"/\xb0\xa1.txt".decode("utf-8", "surrogateescape")  # a Hangul syllable in EUC-KR
    assert on_workers(2, lambda worker: worker.broadcast([name] if worker.rank == 0 else None)) == [[name], [name]]


@pytest.mark.parametrize("size", [1, 3])
def test_gather_keeps_the_order_of_ranks(size: int) -> None:
    for table in on_workers(size, lambda worker: worker.gather([[worker.rank, 7.5]])):
        assert table.dtype == np.float64 and table.tolist() == [[[rank, 7.5]] for rank in range(size)]


def test_all_equal_notices_values_whose_sum_is_right() -> None:
    """Steps 1, 2 and 3 add up to three times 2."""
    assert on_workers(3, lambda worker: worker.all_equal(worker.rank + 1)) == [False] * 3
    assert on_workers(3, lambda worker: worker.all_equal([2, 5])) == [True] * 3


def test_a_barrier_waits_for_every_worker() -> None:
    arrived = []

    def work(worker: Any) -> int:
        arrived.append(worker.rank)
        worker.barrier()
        return len(arrived)

    assert on_workers(4, work) == [4] * 4


def test_a_worker_alone() -> None:
    with Worker() as worker:
        assert (worker.rank, worker.size, worker.local_rank, worker.local_size) == (0, 1, 0, 1)
        assert worker.sum([[1, 2]]).tolist() == [[1, 2]] and worker.all_equal(3)
        assert worker.broadcast((1, "가")) == [1, "가"]  # as several workers would get it
        worker.barrier()
