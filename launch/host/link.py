"""The connection between a supervisor and the launcher: lines of JSON over TCP. Both ends prove to know a token."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import select
import socket
import time
from collections.abc import Iterator
from typing import Any

BEAT_SECONDS = 1.0  # how often each end sends a sign of life


class Link:
    """Lines of JSON over a socket. It never blocks once it is connected."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection, self.closed, self._received, self._unsent = connection, False, b"", b""
        self.heard = time.monotonic()

    @classmethod
    def connect(cls, launch: dict[str, Any], rank: int) -> Link:
        """Connects to the launcher; OSError if it does not answer or cannot prove that it knows the token."""
        seconds = float(launch["detect_seconds"])
        connection = socket.create_connection((launch["address"], launch["port"]), timeout=seconds)
        token, mine, theirs = launch["token"], secrets.token_hex(16), ""
        try:
            theirs = str(json.loads(_read_line(connection))["nonce"])
            hello = {"rank": rank, "host": socket.gethostname(), "pid": os.getpid(), "nonce": mine}
            connection.sendall(json.dumps({**hello, "proof": proof(token, "worker", theirs, mine)}).encode() + b"\n")
            answer = str(json.loads(_read_line(connection))["proof"])
        except (ValueError, KeyError, TypeError, RecursionError):
            answer = ""
        if not hmac.compare_digest(answer.encode(), proof(token, "launcher", mine, theirs).encode()):
            raise OSError("the program that answers is not this launch's launcher")
        connection.setblocking(False)
        return cls(connection)

    def send(self, kind: str, **content: Any) -> None:
        self._unsent += json.dumps({"kind": kind, **content}).encode() + b"\n"
        self.flush()

    def flush(self) -> None:
        try:
            while self._unsent and not self.closed:
                self._unsent = self._unsent[self.connection.send(self._unsent) :]
        except BlockingIOError:
            pass
        except OSError:
            self.closed = True

    def receive(self) -> Iterator[dict[str, Any]]:
        """The messages that have arrived."""
        try:
            part = self.connection.recv(65536)
            self.closed = self.closed or not part
        except BlockingIOError:
            return
        except OSError:
            self.closed = True
            return
        self.heard = time.monotonic()
        *lines, self._received = (self._received + part).split(b"\n")
        for line in lines:
            yield json.loads(line)

    def wait_for_release(self, detect_seconds: float) -> None:
        """Sends what is left, then waits until the launcher closes its end or is silent for `detect_seconds`."""
        while not self.closed and time.monotonic() - self.heard <= detect_seconds:
            self.flush()
            select.select([self.connection], [], [], 0.1)
            for _ in self.receive():
                pass


def proof(token: str, who: str, first: str, second: str) -> str:
    """The proof that the sender knows the token: a keyed hash over its role and one fresh number from each end."""
    return hmac.new(token.encode(), f"{who}:{first}:{second}".encode(), hashlib.sha256).hexdigest()


def _read_line(connection: socket.socket) -> bytes:
    """Reads one short line, and nothing of what comes after it."""
    line = b""
    while not line.endswith(b"\n") and len(line) < 4096:
        byte = connection.recv(1)
        if not byte:
            raise OSError("the launcher closed the connection")
        line += byte
    return line
