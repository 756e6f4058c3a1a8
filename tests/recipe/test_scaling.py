"""The model of scaling: limits that it must keep, and the one published figure of the recipe's time."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kogpt2_gluon.recipe import load_recipe
from kogpt2_gluon.scaling import NETWORKS, Network, Work, allreduce_seconds, fitted, speedup, step_seconds

WORK = Work(forward=0.1, backward=0.2, accumulate=2, early_bytes=170_000_000, late_bytes=77_000_000)


def test_one_worker_waits_for_nobody():
    assert step_seconds(WORK, 1, 1, NETWORKS["p3dn"]) == WORK.alone == pytest.approx(0.6)
    assert speedup(WORK, 1, NETWORKS["p3dn"]) == 1


def test_ring_sends_twice_the_bytes_at_most():
    network = Network("plain", bandwidth=1e9, latency=0.0, basis="")
    assert allreduce_seconds(1e9, 1, network) == 0
    assert allreduce_seconds(1e9, 2, network) == pytest.approx(1.0)
    assert allreduce_seconds(1e9, 1000, network) == pytest.approx(2.0, rel=2e-3)


def test_early_gradients_hide_behind_the_backward_pass_and_late_ones_do_not():
    network, still = Network("plain", 1e9, 0.0, ""), replace(WORK, jitter=0.0)
    hidden = replace(still, late_bytes=0, early_bytes=200_000_000)  # 0.2 s, as long as the backward pass
    assert step_seconds(hidden, 2, 2, network) == pytest.approx(hidden.alone)
    assert step_seconds(replace(still, early_bytes=0), 2, 2, network) == pytest.approx(still.alone + 0.077)
    assert step_seconds(replace(hidden, early_bytes=300_000_000), 2, 2, network) == pytest.approx(still.alone + 0.1)


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 64), st.floats(1e8, 1e11), st.integers(1, 64))
def test_more_of_anything_never_hurts(hosts, bandwidth, accumulate):
    work, network = replace(WORK, accumulate=accumulate), Network("any", bandwidth, 2e-5, "")
    workers = 8 * hosts
    assert 0 < speedup(work, workers, network) <= workers
    faster = replace(network, bandwidth=2 * bandwidth)
    assert speedup(work, workers, faster) >= speedup(work, workers, network)
    more = replace(work, accumulate=accumulate + 1)
    assert speedup(more, workers, network) >= speedup(work, workers, network) - 1e-9


@settings(deadline=None, max_examples=50)
@given(st.floats(1e6, 1e9))
def test_fit_finds_the_bandwidth_that_made_the_time(bandwidth):
    truth = Network("truth", bandwidth, 1e-4, "")
    seconds = step_seconds(WORK, 2, 2, truth)
    start = replace(truth, bandwidth=bandwidth * 3)
    assert step_seconds(WORK, 2, 2, fitted(start, WORK, 2, 2, seconds)) == pytest.approx(seconds, rel=1e-6)


def test_time_that_no_bandwidth_explains_is_refused():
    with pytest.raises(ValueError, match="no bandwidth"):
        fitted(NETWORKS["p3dn"], WORK, 2, 2, WORK.alone / 2)


def test_gluonnlp_on_64_gpus():
    """gluon-nlp pull request 665: 58 times one GPU, 8 p3dn.24xlarge, 24 x 512 tokens a GPU, synthetic data, April 2019.

    That is all it says. BERT base in float16 is the script's default. The commands documented for it then (pull
    request 743: NCCL_MIN_NRINGS=8 and nothing for EFA) let NCCL take sockets: 4 to 6 GB/s on such hosts, which gives
    59.3 to 60.2, 59.8 in the middle; over EFA (6 to 8 GB/s) it would be 60.2 to 60.7. The speed of one GPU is that
    of GluonNLP 0.6, BERT base on 8 GPUs in 6.5 days (medium.com/apache-mxnet/gluon-nlp-bert-6a489bdd3340), for the
    million updates of 8 x 4 x 4096 tokens of that command: 29k tokens/s.
    """
    tokens, per_second = 24 * 512, 1e6 * 4 * 4096 / (6.5 * 86400)
    seconds, embedding = tokens / per_second, 30522 * 768
    work = Work(seconds / 3, seconds * 2 / 3, 1, early_bytes=2 * (110_000_000 - embedding), late_bytes=2 * embedding)
    assert 100 * speedup(work, 64, NETWORKS["sockets"]) / 64 == pytest.approx(100 * 58 / 64, abs=3)


def test_kogpt2_on_many_gpus_is_told():
    from kogpt2_gluon.estimate import scaling_lines

    lines = scaling_lines(load_recipe("kogpt2_base", []))
    assert len(lines) == 3 and "V100" in lines[1] and "A100" in lines[2]
    for line in lines[1:]:
        told = [float(part.split(" of ")[0]) for part in line.split(": ")[1].split(" (")[0].split(", ")]
        assert all(0.5 * n < value <= n for n, value in zip((8, 64, 256), told)), line
        assert not any(math.isnan(value) for value in told)
