"""Which worker a process is: Horovod's variables, for engines that do not set them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

RANK_VARIABLES = ("HOROVOD_RANK", "OMPI_COMM_WORLD_RANK", "SLURM_PROCID")
LOCAL_RANK_VARIABLES = ("HOROVOD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "SLURM_LOCALID")


def rank_of(engine: Mapping[str, str]) -> int | None:
    """The rank that an engine gave this process; None if none did."""
    return next((int(engine[name]) for name in RANK_VARIABLES if name in engine), None)


def local_rank_of(engine: Mapping[str, str]) -> int | None:
    """The same among the workers of this host."""
    return next((int(engine[name]) for name in LOCAL_RANK_VARIABLES if name in engine), None)


def place(launch: dict[str, Any], rank: int, engine: Mapping[str, str]) -> dict[str, str]:
    """Horovod's variables for a rank: horovodrun has set them; for another engine they follow from the plan."""
    if "HOROVOD_RANK" in engine:
        return {name: engine[name] for name in engine if name.startswith("HOROVOD_")}
    places = [(number, slot) for number, (_, slots) in enumerate(launch["hosts"]) for slot in range(slots)]
    if rank >= len(places):
        raise ValueError(f"the engine says rank {rank}, and the plan has {len(places)}")
    number, local_rank = places[rank]
    host, slots = launch["hosts"][number]
    said = local_rank_of(engine)
    if said not in (None, local_rank):
        raise ValueError(f"rank {rank} is process {said} of its host, and {local_rank} of {host} in the plan")
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
