"""The launcher's end of the connections to its supervisors: who is there, how far each rank is, how each one ended."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import secrets
import time
from dataclasses import dataclass, field
from typing import Any, Callable

from kogpt2_gluon.errors import PreemptedError
from kogpt2_launch.host.link import BEAT_SECONDS, proof

# What reading a line raises that is not a message.
NOT_UNDERSTOOD = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)


@dataclass
class Rank:
    """The state of one worker, as its supervisor has reported it. Times are those of time.monotonic().

    code : its exit code once it has ended. lost : why its supervisor is taken for dead; empty if it is not.
    """

    number: int
    host: str
    pid: int | None = None
    code: int | None = None
    ended: float = 0.0
    lost: str = ""
    heard: float = 0.0
    step: int = -1
    beats: int = 0
    moved: float = 0.0  # when step or beats last changed
    state: str = ""
    last_lines: list[str] = field(default_factory=list)
    network: list[str] = field(default_factory=list)
    spot: str = ""
    stacks: str = ""

    @property
    def present(self) -> bool:
        """Returns True if its supervisor has connected."""
        return self.heard > 0

    @property
    def over(self) -> bool:
        return self.code is not None or bool(self.lost)

    @property
    def failed(self) -> bool:
        return bool(self.lost) or self.code not in (None, 0, PreemptedError.exit_code)


class Control:
    """Listen for the supervisors of one attempt: ``async with Control(...) as control``."""

    def __init__(
        self, hosts: list[str], token: str, detect_seconds: float, show: Callable[[str], None], address: str = "0.0.0.0"
    ) -> None:
        """hosts : the host of each rank, in order. show : called with each line of rank 0."""
        self.ranks = [Rank(number, host) for number, host in enumerate(hosts)]
        self.changed = asyncio.Event()
        self._token, self._detect, self._show, self._address = token, detect_seconds, show, address
        self._writers: dict[int, asyncio.StreamWriter] = {}

    async def __aenter__(self) -> Control:
        self._server = await asyncio.start_server(self._serve, self._address, 0, limit=1 << 22)
        self.port = int(self._server.sockets[0].getsockname()[1])
        self._beating = asyncio.ensure_future(self._beat())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._beating.cancel()
        self._server.close()
        self.release()

    def release(self) -> None:
        """Lets the supervisors end. Those whose workers have ended wait for this, and the engine waits with them."""
        for writer in list(self._writers.values()):
            writer.close()

    def send(self, kind: str, **content: Any) -> None:
        """Sends a message to every connected supervisor."""
        for writer in list(self._writers.values()):
            writer.write(json.dumps({"kind": kind, **content}).encode() + b"\n")

    def look(self) -> None:
        """Takes supervisors for dead that have been silent for too long."""
        now = time.monotonic()
        for rank in self.ranks:
            if rank.present and not rank.over and now - rank.heard > self._detect:
                self._lose(rank, f"nothing heard from {rank.host} for {now - rank.heard:.0f} s")

    async def wait(self, seconds: float) -> None:
        """Waits until something has changed, but no longer than `seconds`."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.changed.wait(), seconds)
        self.changed.clear()

    async def _beat(self) -> None:
        while True:
            self.send("beat")
            await asyncio.sleep(BEAT_SECONDS)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            rank = await asyncio.wait_for(self._greet(reader, writer), self._detect)
        except (asyncio.TimeoutError, OSError, asyncio.IncompleteReadError, *NOT_UNDERSTOOD):
            rank = None
        if rank is None:
            writer.close()
            return
        self._writers[rank.number] = writer
        rank.heard = rank.moved = time.monotonic()
        self.changed.set()
        try:
            while line := await reader.readline():
                rank.heard = time.monotonic()
                self._take(rank, json.loads(line))
        except (OSError, *NOT_UNDERSTOOD) as error:
            self._lose(rank, f"the supervisor on {rank.host} sent a message that is not understood: {error}")
        if not rank.over:
            self._lose(rank, f"the supervisor on {rank.host} ended without a report")
        self._writers.pop(rank.number, None)
        writer.close()

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Rank | None:
        """Returns the rank of a supervisor that has proved to be ours; None for any other program."""
        mine = secrets.token_hex(16)
        writer.write(json.dumps({"nonce": mine}).encode() + b"\n")
        hello = json.loads(await reader.readline())
        number, theirs = int(hello["rank"]), str(hello["nonce"])
        known = proof(self._token, "worker", mine, theirs)
        if not hmac.compare_digest(str(hello["proof"]).encode(), known.encode()):
            return None
        if not 0 <= number < len(self.ranks) or self.ranks[number].present:
            return None
        writer.write(json.dumps({"proof": proof(self._token, "launcher", theirs, mine)}).encode() + b"\n")
        return self.ranks[number]

    def _take(self, rank: Rank, message: dict[str, Any]) -> None:
        kind = message["kind"]
        if kind == "beat":
            now = (int(message["step"]), int(message["beats"]))
            if now != (rank.step, rank.beats):
                (rank.step, rank.beats), rank.moved = now, rank.heard
            rank.state = str(message["state"])
            return
        if kind == "line":
            self._show(str(message["text"]))
            return
        if kind == "started":
            rank.pid = int(message["pid"])
        elif kind == "network":
            rank.network.append(str(message["text"]))
        elif kind == "spot":
            rank.spot = str(message["text"])
        elif kind == "stacks":
            rank.stacks = str(message["text"])
        elif kind == "exit":
            rank.code, rank.last_lines = int(message["code"]), [str(line) for line in message["lines"]]
            rank.ended = rank.heard
        self.changed.set()

    def _lose(self, rank: Rank, why: str) -> None:
        rank.lost, rank.ended = why, time.monotonic()
        self.changed.set()
