"""The place where Horovod's workers find each other, for engines that do not bring one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from kogpt2_gluon.errors import KoGPT2Error
from kogpt2_launch.hosts import Host
from kogpt2_launch.plan.commands import HOROVODRUN


@contextlib.contextmanager
def rendezvous(engine: str, hosts: Sequence[Host]) -> Iterator[int]:
    """Serves the rendezvous on this machine and yields its port; 0 for horovodrun, which has its own."""
    if engine == HOROVODRUN:
        yield 0
        return
    try:
        from horovod.runner.common.util.hosts import get_host_assignments, parse_hosts
        from horovod.runner.http.http_server import RendezvousServer
    except ImportError as error:
        raise KoGPT2Error(f"{engine} needs Horovod on this machine too, for its rendezvous: {error}") from None
    named = ",".join(f"{host.name}:{host.slots}" for host in hosts)
    slots = get_host_assignments(parse_hosts(named), sum(host.slots for host in hosts))
    server: Any = RendezvousServer(0)
    port = server.start()
    try:
        server.init(slots)
        yield int(port)
    finally:
        server.stop()
