"""Where the service listens, and what it allows."""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass
from pathlib import Path

from kogpt2_gluon.errors import DataError, RecipeError

TOKEN_VARIABLE = "KOGPT2_SERVE_TOKEN"
LONGEST_TOKEN, SHORTEST_TOKEN = 4096, 16
_ORIGIN = re.compile(r"https?://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?")
_HOST = re.compile(r"\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+")


@dataclass(frozen=True)
class Settings:
    """All settings of a service. RecipeError for a value that makes no sense.

    Parameters
    ----------
    host, port : str, int
        Where it listens; port 0 is any free one.
    slots : int
        Texts that a network writes at the same time.
    queue : int
        Texts that may wait until one of these is free.
    max_new_tokens : int
        The most that a request may ask for, of each text.
    request_seconds : float
        After so long a request is answered with what is written.
    max_body_bytes : int
        Of a request.
    header_seconds, body_seconds : float
        Until the headers and the body of a request must be there.
    idle_seconds : float
        How long a connection without a request stays open. Longer than the 60 s of usual load balancers: one that sends
        a request on a connection that is being closed answers its client with an error of its own.
    write_seconds : float
        A client that reads nothing of an answer for so long is cut off.
    connections : int
        The most at once. One more takes the place of the one that has waited longest for its request.
    drain_seconds : float
        How long texts may go on after SIGTERM.
    token : str
        What requests must have as ``Authorization: Bearer``; empty: none.
    allow_origins : tuple of str
        Web pages from elsewhere that may use the service.
    allow_hosts : tuple of str
        Names that requests may call the service by, without port; see :meth:`admits_host`.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    slots: int = 8
    queue: int = 128
    max_new_tokens: int = 1024
    request_seconds: float = 120
    max_body_bytes: int = 1 << 20
    header_seconds: float = 10
    body_seconds: float = 30
    idle_seconds: float = 75
    write_seconds: float = 30
    connections: int = 512
    drain_seconds: float = 30
    token: str = ""
    allow_origins: tuple[str, ...] = ()
    allow_hosts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, good, admitted in (
            ("port", 0 <= self.port <= 65_535, "0 to 65,535"),
            ("slots", 1 <= self.slots <= 1024, "1 to 1,024"),
            ("queue", 0 <= self.queue <= 100_000, "0 to 100,000"),
            ("max_new_tokens", self.max_new_tokens >= 1, "1 or more"),
            ("request_seconds", self.request_seconds > 0, "above 0"),
            ("max_body_bytes", 1024 <= self.max_body_bytes <= 1 << 28, "1,024 to 268,435,456"),
            ("connections", 1 <= self.connections <= 100_000, "1 to 100,000"),
            ("drain_seconds", self.drain_seconds >= 0, "0 or more"),
        ):
            if not good:
                raise RecipeError(f"{name}={getattr(self, name)}: it must be {admitted}")
        for origin in self.allow_origins:
            if not _ORIGIN.fullmatch(origin):
                raise RecipeError(f"allowed origin {origin}: it must be like https://example.org, without a path")
        for host in self.allow_hosts:
            if not _HOST.fullmatch(host):
                raise RecipeError(f"allowed host {host}: it must be a name or an address, without a port")

    @property
    def is_local(self) -> bool:
        """True if only this machine can connect."""
        return is_loopback(self.host)

    def admits_host(self, host: str) -> bool:
        """Returns True for a Host header that may be answered.

        On loopback, a page from anywhere can reach the service if its own name is made to resolve to 127.0.0.1 (DNS
        rebinding): its requests are of its own origin then, but have its name as their host. So only names of this
        machine are admitted, and those of `allow_hosts`. On another address any name is, unless `allow_hosts` has some.
        """
        name = _without_port(host).lower().removesuffix(".")
        if name in {each.lower() for each in self.allow_hosts}:
            return True
        if self.is_local:
            return is_loopback(name.strip("[]")) or name == "localhost.localdomain"
        return not self.allow_hosts


def is_loopback(host: str) -> bool:
    """Returns True for localhost and the addresses that lead to this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() in ("localhost", "ip6-localhost")


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host


def read_token(file: Path | None) -> str:
    """Returns the token from a file, else from the environment, else "": a command line shows in the process list.

    RecipeError for one that cannot be a token; DataError if the file cannot be read.
    """
    if file is None:
        source, text = f"environment variable {TOKEN_VARIABLE}", os.environ.get(TOKEN_VARIABLE)
        if text is None:
            return ""
    else:
        source = str(file)
        try:
            with file.open(encoding="utf-8-sig") as opened:
                text = opened.read(LONGEST_TOKEN + 2)
        except UnicodeDecodeError:
            raise DataError(f"{file}: a token is text, and this is not UTF-8") from None
        except OSError as error:
            raise DataError(f"{file}: {error.strerror or error}") from None
    token = text.strip()
    if not token.isascii() or not token.isprintable() or " " in token:
        raise RecipeError(f"{source}: a token is one line of printable ASCII without spaces")
    if not SHORTEST_TOKEN <= len(token) <= LONGEST_TOKEN:
        raise RecipeError(
            f"{source}: a token has {SHORTEST_TOKEN} to {LONGEST_TOKEN:,} characters and this one {len(token):,}; "
            "`openssl rand -hex 32` makes one"
        )
    return token
