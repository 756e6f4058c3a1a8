"""How a step's time grows with the number of workers: synchronous data-parallel training, in plain arithmetic.

An update of N workers on several hosts takes

    accumulate x (forward + backward)        every worker for itself
    + what of the allreduce is not hidden behind the last backward pass
    + optimizer + the wait for the slowest of N

Most gradients come one layer after the other while the backward pass runs, and travel meanwhile. That of the tied
embedding comes with its very end (the first thing that the network does is to look tokens up), and nothing hides it:
for KoGPT-2 that is 31% of the bytes. A ring sends 2 (N - 1) / N of the bytes into and out of every host (Patarasuk and
Yuan, 2009; NCCL's rings and Gloo's do), whatever the number of workers on it, and its latency grows with the hosts.

The wait is that for the largest of N equal, independent, normal times: sqrt(2 ln N) standard deviations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

FUSION_BYTES = 64 << 20  # Horovod's default: so much of the gradients goes in one operation
WORKERS_A_HOST = 8


@dataclass(frozen=True)
class Network:
    """What joins the hosts.

    Attributes
    ----------
    bandwidth : float
        Bytes a second into, and at the same time out of, a host, as an allreduce reaches it.
    latency : float
        Seconds of a message between two hosts.
    basis : str
        Where the figures come from.
    """

    name: str
    bandwidth: float
    latency: float
    basis: str


# Bus bandwidths that others measured with nccl-tests, and reported to NVIDIA/nccl; latencies are assumed.
NETWORKS = {
    "sockets": Network("100 Gbit/s, TCP", 5e9, 5e-5, "nccl issue 450: 4 to 6 GB/s on 4 hosts of 8 V100"),
    "p3dn": Network("100 Gbit/s, EFA", 7e9, 3e-5, "nccl issue 235: 6 to 8 GB/s on 8 to 32 hosts"),
    "p4d": Network("4 x 100 Gbit/s, EFA", 30e9, 2e-5, "nccl issue 527: 29.6 GB/s on 4 hosts"),
}


@dataclass(frozen=True)
class Work:
    """One worker's part of an update; seconds and bytes.

    Attributes
    ----------
    forward, backward : float
        Of one micro step.
    accumulate : int
        Micro steps.
    early_bytes, late_bytes : int
        Gradients that come during the backward pass, evenly, and those that come with its end.
    rest : float
        Optimizer, and whatever else is the same for any number of workers.
    jitter : float
        Standard deviation of a worker's time, as a share of it.
    """

    forward: float
    backward: float
    accumulate: int
    early_bytes: int
    late_bytes: int
    rest: float = 0.0
    jitter: float = 0.01

    @property
    def alone(self) -> float:
        """Seconds of an update without other workers."""
        return self.accumulate * (self.forward + self.backward) + self.rest


def allreduce_seconds(num_bytes: float, hosts: int, network: Network) -> float:
    """Of the mean of `num_bytes` over the workers of several hosts; 0 on one, whose NVLink nobody waits for."""
    if hosts < 2 or not num_bytes:
        return 0.0
    operations = math.ceil(num_bytes / FUSION_BYTES)
    return 2 * (hosts - 1) / hosts * num_bytes / network.bandwidth + operations * 2 * (hosts - 1) * network.latency


def step_seconds(work: Work, hosts: int, workers: int, network: Network) -> float:
    """Seconds of an update of `workers` workers on `hosts` hosts."""
    early = allreduce_seconds(work.early_bytes, hosts, network)
    late = allreduce_seconds(work.late_bytes, hosts, network)
    exposed = max(0.0, early - work.backward) + late
    slowest = work.jitter * math.sqrt(2 * math.log(workers)) if workers > 1 else 0.0
    return work.alone * (1 + slowest) + exposed


def speedup(work: Work, workers: int, network: Network, workers_a_host: int = WORKERS_A_HOST) -> float:
    """How many times as many tokens a second `workers` make as one does, each with the same work."""
    hosts = math.ceil(workers / workers_a_host)
    return workers * work.alone / step_seconds(work, hosts, workers, network)


def fitted(network: Network, work: Work, hosts: int, workers: int, seconds: float) -> Network:
    """`network` with the bandwidth at which an update takes `seconds`, as measured; by bisection.

    ValueError if no bandwidth explains it: the update would take longer, or shorter, with any.
    """
    low, high = network.bandwidth / 100, network.bandwidth * 100

    def takes(bandwidth: float) -> float:
        return step_seconds(work, hosts, workers, replace(network, bandwidth=bandwidth))

    if not takes(high) < seconds < takes(low):
        raise ValueError(f"no bandwidth makes an update take {seconds:g} s: {takes(high):g} to {takes(low):g} s")
    for _ in range(100):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if takes(middle) > seconds else (low, middle)
    return replace(network, bandwidth=math.sqrt(low * high))
