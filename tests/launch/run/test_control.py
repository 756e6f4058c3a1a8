"""The launcher's port: whatever a program sends there, the launch goes on, and a bad supervisor is named."""

from __future__ import annotations

import asyncio
import json

import pytest

from kogpt2_launch.host.link import proof
from kogpt2_launch.run.control import Control

HELLO = {"rank": 0, "host": "h1", "pid": 1, "nonce": "n", "proof": "0" * 64}
DEEP = b"[" * 100_000
GREETINGS = {
    "nothing": b"",
    "no JSON": b"\x00\xff",
    "a number": b"5",
    "deep": DEEP,
    "half of a pair": b'{"rank": 0, "nonce": "\\ud800", "proof": "\\ud800"}',
    "endless rank": json.dumps({**HELLO, "rank": float("inf")}).encode(),
    "huge rank": json.dumps({**HELLO, "rank": 10**300}).encode(),
    "a list": json.dumps({**HELLO, "rank": [0]}).encode(),
    "a wrong proof": json.dumps(HELLO).encode(),
}
MESSAGES = {
    "no JSON": b"{",
    "deep": DEEP,
    "a list": b"[1]",
    "no kind": b"{}",
    "endless step": b'{"kind": "beat", "step": Infinity, "beats": 1, "state": ""}',
    "no lines": b'{"kind": "exit", "code": 0, "lines": 5}',
    "no number": b'{"kind": "started", "pid": {}}',
}


def run(scenario) -> None:
    async def within() -> None:
        async with Control(["h1", "h2"], "token", 20.0, lambda line: None, "127.0.0.1") as control:
            await scenario(control)

    asyncio.run(asyncio.wait_for(within(), 60))


async def greet(control: Control, rank: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A supervisor that knows the token."""
    reader, writer = await asyncio.open_connection("127.0.0.1", control.port)
    nonce = json.loads(await reader.readline())["nonce"]
    hello = {**HELLO, "rank": rank, "proof": proof("token", "worker", nonce, "n")}
    writer.write(json.dumps(hello).encode() + b"\n")
    assert json.loads(await reader.readline())["proof"] == proof("token", "launcher", "n", nonce)
    return reader, writer


@pytest.mark.parametrize("name", GREETINGS)
def test_a_program_that_is_no_supervisor_is_let_go(name: str, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(control: Control) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", control.port)
        await reader.readline()
        writer.write(GREETINGS[name] + b"\n")
        assert await asyncio.wait_for(reader.read(), 15) == b""  # closed, without an answer
        writer.close()
        assert not any(rank.present for rank in control.ranks)
        _, writer = await greet(control, 0)  # the launch goes on
        await control.wait(10)
        assert control.ranks[0].present and not control.ranks[0].lost
        writer.close()

    run(scenario)
    assert "never retrieved" not in caplog.text


@pytest.mark.parametrize("name", MESSAGES)
def test_a_supervisor_that_sends_no_message_is_named(name: str, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(control: Control) -> None:
        _, other = await greet(control, 1)
        _, writer = await greet(control, 0)
        writer.write(MESSAGES[name] + b"\n")
        while not control.ranks[0].lost:
            await control.wait(1)
        assert control.ranks[0].lost.startswith("the supervisor on h1 sent a message that is not understood")
        assert not control.ranks[1].lost
        writer.close()
        other.close()

    run(scenario)
    assert "never retrieved" not in caplog.text
