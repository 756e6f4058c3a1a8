"""The numbers of a step travel in one vector and come back under their names."""

from __future__ import annotations

import numpy as np

from kogpt2_gluon.machine.worker import Worker
from kogpt2_gluon.training.step_sums import StepSums


class Summing(Worker):
    """A worker whose sums have those of the other workers in them."""

    def __init__(self, others: list[StepSums]):
        self._others = others

    def sum(self, values):
        return np.sum([values, *(other.pack() for other in self._others)], axis=0)


def part(rank: int, size: int, norm: float, notices: list[float]) -> StepSums:
    return StepSums(10.5 + rank, 7.0 * rank, norm / size, rank == 1, rank == 2, np.array(notices))


def test_a_vector_unpacks_to_the_numbers_it_was_packed_from():
    for notices in ([], [3.0], [0.0, 2.0, 5.0]):
        packed = part(1, 1, 4.0, notices).pack()
        assert packed.dtype == np.float64 and packed.shape == (5 + len(notices),)
        again = StepSums.unpack(packed)
        assert (again.loss, again.parts, again.squared_norm) == (11.5, 7.0, 4.0)
        assert (again.stop_requests, again.save_requests) == (1.0, 0.0)
        assert again.notices.tolist() == notices


def test_sums_over_three_workers():
    """Loss, parts, requests and notices add up; the squared norm is the mean of what the workers found."""
    norms = [4.0, 4.0 + 2e-15, 4.0 - 1e-15]  # on GPUs they differ in the last bits
    mine, *others = (part(rank, 3, norm, [float(rank), 1.0]) for rank, norm in enumerate(norms))
    sums = mine.over(Summing(others))
    assert (sums.loss, sums.parts, sums.stop_requests, sums.save_requests) == (34.5, 21.0, 1.0, 1.0)
    assert abs(sums.squared_norm - np.mean(norms)) < 1e-14
    assert sums.notices.tolist() == [3.0, 3.0]


def test_alone_the_sums_are_the_workers_own():
    sums = part(0, 1, 2.0, [0.0]).over(Worker())
    assert (sums.loss, sums.parts, sums.squared_norm, sums.stop_requests) == (10.5, 0.0, 2.0, 0.0)


def test_a_norm_that_overflows_on_one_worker_is_infinite_for_all():
    mine, other = part(0, 2, 4.0, []), part(1, 2, np.inf, [])
    assert mine.over(Summing([other])).squared_norm == np.inf
