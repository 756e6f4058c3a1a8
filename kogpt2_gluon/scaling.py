"""How a step's time grows with the number of workers: synchronous data-parallel training, in plain arithmetic.

An update of N workers on several hosts takes

    accumulate x (forward + backward)        every worker for itself
    + the part of the allreduce that the last backward pass does not hide
    + optimizer + the wait for the slowest of N

Most gradients come one layer after the other while the backward pass runs, and travel meanwhile. The gradient of the
tied embedding comes at the very end of it, because the network begins with the look-up of tokens, and nothing hides it:
for KoGPT-2 that is 31% of the bytes. A ring sends 2 (N - 1) / N of the bytes into and out of every host (Patarasuk and
Yuan, 2009; NCCL's rings and Gloo's do), whatever the number of workers on it, and its latency grows with the hosts.

The wait is for the largest of N independent, normal times with equal means: sqrt(2 ln N) standard deviations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

FUSION_BYTES = 64 << 20  # Horovod's default: the most bytes of gradients in one operation
WORKERS_A_HOST = 8


@dataclass(frozen=True)
class Network:
    """A network between hosts.

    Attributes
    ----------
    bandwidth : float
        Bytes per second into a host, and at the same time out of it, that an allreduce reaches.
    latency : float
        Seconds of a message between two hosts.
    basis : str
        The source of the figures.
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
        Seconds of one micro step.
    accumulate : int
        Micro steps.
    early_bytes, late_bytes : int
        Bytes of the gradients that come evenly during the backward pass, and of those that come at its end.
    rest : float
        Seconds of the optimizer, and of whatever else is the same for any number of workers.
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
    """The seconds of averaging `num_bytes` over several hosts.

    0 on one host, where NVLink is fast enough to be ignored.
    """
    if hosts < 2 or not num_bytes:
        return 0.0
    operations = math.ceil(num_bytes / FUSION_BYTES)
    return 2 * (hosts - 1) / hosts * num_bytes / network.bandwidth + operations * 2 * (hosts - 1) * network.latency


def step_seconds(work: Work, hosts: int, workers: int, network: Network) -> float:
    """The seconds of an update of `workers` workers on `hosts` hosts."""
    early = allreduce_seconds(work.early_bytes, hosts, network)
    late = allreduce_seconds(work.late_bytes, hosts, network)
    exposed = max(0.0, early - work.backward) + late
    slowest = work.jitter * math.sqrt(2 * math.log(workers)) if workers > 1 else 0.0
    return work.alone * (1 + slowest) + exposed


def speedup(work: Work, workers: int, network: Network, workers_a_host: int = WORKERS_A_HOST) -> float:
    """The tokens per second of `workers` workers divided by those of one, each with the same work."""
    hosts = math.ceil(workers / workers_a_host)
    return workers * work.alone / step_seconds(work, hosts, workers, network)


def fitted(network: Network, work: Work, hosts: int, workers: int, seconds: float) -> Network:
    """Finds, by bisection, the bandwidth at which an update takes the measured `seconds`; returns that network.

    ValueError if no bandwidth explains the time: with any of them the update would take longer, or with any shorter.
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
