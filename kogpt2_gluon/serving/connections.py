"""Connections that cannot pile up: how long each may take to send a request, and how many there are.

uvicorn has a limit for idle time between two requests only, and a byte now and then puts that off, so that connections
which never finish a request stay for ever. Here headers and body have a time, whole. And one connection more than the
service admits takes the place of the one that has waited longest for its request: those who send theirs get through
however many others hold connections open.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from kogpt2_gluon.serving.refusals import Refused
from kogpt2_gluon.serving.settings import Settings

IDLE, HEADERS, BODY, BUSY = "idle", "headers", "body", "busy"
# The app answers a body that does not come; what still sends after that is cut off.
SPARE_SECONDS = 2


@dataclass
class Pool:
    """All connections, and those that wait for a request, the longest first.

    Parameters
    ----------
    settings : Settings
    refused : callable
        Is called with the reason of each connection that was closed because of a limit.
    """

    settings: Settings
    refused: Callable[[str], None] = lambda reason: None
    counted: Callable[[int], None] = lambda count: None
    connections: set[GuardedProtocol] = field(default_factory=set)
    waiting: dict[GuardedProtocol, None] = field(default_factory=dict)

    def admit(self, connection: GuardedProtocol) -> bool:
        """Adds a connection, perhaps in the place of another; returns False if all others are being answered."""
        if len(self.connections) >= self.settings.connections:
            longest = next(iter(self.waiting), None)
            self.refused("connections")
            if longest is None:
                return False
            longest.abort()
            self.drop(longest)
        self.connections.add(connection)
        self.counted(len(self.connections))
        return True

    def drop(self, connection: GuardedProtocol) -> None:
        """Removes a connection."""
        self.connections.discard(connection)
        self.waiting.pop(connection, None)
        self.counted(len(self.connections))

    def moved(self, connection: GuardedProtocol, waits: bool) -> None:
        """Takes note that a connection begins to wait, or to be answered."""
        self.waiting.pop(connection, None)
        if waits and connection in self.connections:
            self.waiting[connection] = None


class GuardedProtocol(H11Protocol):
    """uvicorn's HTTP/1.1, with limits; :func:`guarded_protocol` gives it its pool."""

    pool: Pool

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._phase = ""
        self._timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begins to wait for headers."""
        super().connection_made(transport)
        if self.pool.admit(self):
            self._enter(HEADERS)
        else:
            self._answer(Refused(503, "connections", "the service has all the connections that it admits"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets the connection."""
        self._enter("")
        self._stop_write_timer()
        self.pool.drop(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Reads, unless the connection is closing."""
        if self.transport.is_closing():
            return
        super().data_received(data)
        self._look(has_data=True)

    def on_response_complete(self) -> None:
        """Waits for what comes next."""
        super().on_response_complete()
        self._look(has_data=False)

    def pause_writing(self) -> None:
        """Gives a client that does not read its answer some time."""
        super().pause_writing()
        if self._write_timer is None:
            self._write_timer = self.loop.call_later(self.pool.settings.write_seconds, self._is_stuck)

    def resume_writing(self) -> None:
        """The client reads."""
        super().resume_writing()
        self._stop_write_timer()

    def send_400_response(self, msg: str) -> None:
        """Answers what is not HTTP, or too large for its headers, unless an answer has begun."""
        self.pool.refused("not_http")
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._answer(Refused(400, "not_http", "this is not a request of HTTP/1.1, or its headers are too large"))
        else:
            self.abort()

    def abort(self) -> None:
        """Closes the connection at once."""
        self.transport.abort()

    # ---- what the connection waits for -------------------------------------------------------------------------------

    def _look(self, has_data: bool) -> None:
        """Finds out what the client still has to send."""
        if self.transport.is_closing():
            self._enter("")
        elif self.conn.their_state is h11.IDLE:
            self._enter(HEADERS if has_data or self._phase == HEADERS else IDLE)
        elif self.conn.their_state is h11.SEND_BODY:
            self._enter(BODY)
        else:
            self._enter(BUSY)

    def _enter(self, phase: str) -> None:
        if phase == self._phase:
            return
        self._phase = phase
        if self._timer:
            self._timer.cancel()
            self._timer = None
        settings = self.pool.settings
        if phase == HEADERS:
            self._timer = self.loop.call_later(settings.header_seconds, self._is_late)
        elif phase == BODY:
            self._timer = self.loop.call_later(settings.body_seconds + SPARE_SECONDS, self._is_late)
        self.pool.moved(self, phase in (IDLE, HEADERS, BODY))

    def _is_late(self) -> None:
        self.pool.refused("slow")
        if self._phase == HEADERS and self.conn.trailing_data[0]:
            self._answer(Refused(408, "slow", "the headers did not come in time"))
        else:
            self.abort()

    def _is_stuck(self) -> None:
        self.pool.refused("unread")
        self.abort()

    def _stop_write_timer(self) -> None:
        if self._write_timer:
            self._write_timer.cancel()
            self._write_timer = None

    def _answer(self, refused: Refused) -> None:
        """Answers without the app, and closes."""
        response = refused.response("")
        head = f"HTTP/1.1 {response.status_code} {HTTPStatus(response.status_code).phrase}\r\n"
        fields = {"content-type": "application/json", "connection": "close", "content-length": str(len(response.body))}
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self.transport.write(f"{head}{lines}\r\n".encode() + bytes(response.body))
        self.transport.close()
        self._enter("")


def guarded_protocol(pool: Pool) -> type[GuardedProtocol]:
    """Returns the protocol with this pool: uvicorn makes connections of a class."""
    return type("PooledProtocol", (GuardedProtocol,), {"pool": pool})
