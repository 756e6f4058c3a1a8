"""Runs a service: its socket, its thread, the event loop, and the end of it all."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import signal
import socket
from collections.abc import Callable, Iterator, Mapping

import uvicorn

from kogpt2_gluon.errors import KoGPT2Error, RecipeError
from kogpt2_gluon.machine import job
from kogpt2_gluon.serving.app import make_app
from kogpt2_gluon.serving.connections import Pool, guarded_protocol
from kogpt2_gluon.serving.networks import Network
from kogpt2_gluon.serving.service import Service
from kogpt2_gluon.serving.settings import Settings

BACKLOG = 128  # connections that are accepted in one go, so each may need a file before it is looked at
QUEUED = 1024  # connections that the kernel keeps until then: one that finds no room tries again after a second
OTHER_FILES = 64  # that the process has open
CLOSING_SECONDS = 5
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def listen(settings: Settings) -> socket.socket:
    """Returns the socket, bound but not listening yet. RecipeError if it or its connections cannot be."""
    _admit_files(settings)
    try:
        found = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV
        )
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise RecipeError(
            f"cannot listen on {settings.host}, port {settings.port}: {error.strerror or error}; --host and --port "
            "take another address, and port 0 any free one"
        ) from None
    return listener


def address_of(listener: socket.socket) -> str:
    """Returns the address of the service, such as http://127.0.0.1:8000."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(
    networks: Mapping[str, Network], settings: Settings, listener: socket.socket, say: Callable[[str], None]
) -> None:
    """Serves until SIGTERM or Ctrl-C, and then until what has begun is done.

    KoGPT2Error if the time for that was over before. A second signal ends it at once.
    """
    logging.getLogger("uvicorn").setLevel(logging.ERROR)  # what clients send wrong is counted, not written
    service = Service(networks, settings)
    pool = Pool(settings, service.metrics.refused, service.metrics.connections.set)
    config = uvicorn.Config(
        make_app(service),
        http=guarded_protocol(pool),
        loop="asyncio",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=int(settings.idle_seconds),
        timeout_graceful_shutdown=CLOSING_SECONDS,
    )
    service.worker.start()
    try:
        asyncio.run(_Server(config, service, say).serve([listener]))
    finally:
        service.worker.stop()
    if service.cut_off:
        raise KoGPT2Error(
            f"stopped when {service.cut_off} texts were not finished; they may go on for "
            f"--drain-seconds {settings.drain_seconds:g}, and a second signal ends them at once"
        )


class _Server(uvicorn.Server):
    """uvicorn, but for signals: the first one drains, while uvicorn itself would close its doors at once."""

    def __init__(self, config: uvicorn.Config, service: Service, say: Callable[[str], None]) -> None:
        super().__init__(config)
        self._service, self._say = service, say
        self._draining: asyncio.Task[None] | None = None
        self._stopped = 0.0

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        handled = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]  # by nohup
        for number in handled:
            loop.add_signal_handler(number, self._stop)
        try:
            yield
        finally:
            for number in handled:
                loop.remove_signal_handler(number)
                signal.signal(number, signal.SIG_IGN)  # the end is near, and its exit code is decided

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        assert sockets
        sockets[0].listen(QUEUED)
        self._say(f"serving at {address_of(sockets[0])}; Ctrl-C or SIGTERM ends it")

    def _stop(self) -> None:
        loop = asyncio.get_running_loop()
        if self._draining is None:
            self._say(f"stopping: {self._service.answering} requests may go on")
            self._draining, self._stopped = loop.create_task(self._drain()), loop.time()
        elif loop.time() - self._stopped >= job.ECHO_SECONDS:  # else it is the same request again
            self._service.cut_off = self._service.answering
            logging.disable()  # of each request that is cut off there would be a traceback
            self.should_exit = self.force_exit = True

    async def _drain(self) -> None:
        await self._service.drain()
        self.should_exit = True


def _admit_files(settings: Settings) -> None:
    """Raises the limit of open files to what the connections need. RecipeError if the machine does not let it."""
    needed = settings.connections + BACKLOG + OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise RecipeError(
            f"{settings.connections:,} connections need {needed:,} open files and this process may have {hard:,}: "
            f"--connections {max(1, hard - BACKLOG - OTHER_FILES)}, or a higher `ulimit -n`"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
