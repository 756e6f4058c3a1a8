"""Horovod's variables for a rank, for engines that do not set them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kogpt2_gluon.machine import job


def place(launch: dict[str, Any], rank: int, engine: Mapping[str, str]) -> dict[str, str]:
    """Horovod's variables for a rank: horovodrun has set them, and for another engine they are computed from the plan.

    ValueError if the engine has placed the rank in another way than the plan.
    """
    if job.HOROVODRUN.rank in engine:
        return {name: engine[name] for name in engine if name.startswith("HOROVOD_")}
    places = [(number, slot) for number, (_, slots) in enumerate(launch["hosts"]) for slot in range(slots)]
    if rank >= len(places):
        raise ValueError(f"the engine gave rank {rank}, but the plan has {len(places)} ranks")
    number, local_rank = places[rank]
    host, slots = launch["hosts"][number]
    said = job.local_rank(engine)
    if said not in (None, local_rank):
        raise ValueError(
            f"rank {rank} is process {said} of its host, but in the plan it is process {local_rank} of {host}"
        )
    column = [each for each, slot in places if slot == local_rank]  # the hosts that have such a rank
    return {
        "HOROVOD_RANK": str(rank),
        "HOROVOD_SIZE": str(len(places)),
        "HOROVOD_LOCAL_RANK": str(local_rank),
        "HOROVOD_LOCAL_SIZE": str(slots),
        "HOROVOD_CROSS_RANK": str(column.index(number)),
        "HOROVOD_CROSS_SIZE": str(len(column)),
        "HOROVOD_HOSTNAME": str(host),
        "HOROVOD_CONTROLLER": "gloo",
        "HOROVOD_CPU_OPERATIONS": "gloo",
        "HOROVOD_GLOO_RENDEZVOUS_ADDR": str(launch["address"]),
        "HOROVOD_GLOO_RENDEZVOUS_PORT": str(launch["rendezvous_port"]),
        "HOROVOD_GLOO_IFACE": str(launch["interface"] or "lo"),
    }
