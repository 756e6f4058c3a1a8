"""Measures `kogpt2 serve` under load: many clients at once, next to transformers with one request after another.

    python benchmarks/serving_load.py CHECKPOINT [--clients 200] [--seconds 60] [--slow 10000] [--memory-minutes 10]

1. `load`: so many clients, each with a connection that it keeps, send one request after another for so many seconds. A
   prompt has a mark, and texts are greedy, so the answer is known: each text was asked for alone before. An answer that
   is another one's text is mixed up, and a request that has none is lost. Two texts that are nearly equally likely can
   change places by rounding; such an answer differs.
2. `peer`: transformers writes the same texts, from the converted folder, in float32, one after another, for as long.
   `ratio` is ours / theirs in new tokens a second; both count them with the same tokenizer.
3. `slow`: so many connections send the beginning of a request and no more. Meanwhile ordinary requests go on.
4. `memory`: the load of 1. for so many minutes; the service's memory at the beginning, in the middle and at the end.

A part with 0 connections or minutes is left out. The service is a process of its own, and so are the clients' and
transformers'. All of it stays on 127.0.0.1.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from contestants import announce, speed_conditions

MARKS = 64  # different requests
WORDS = ("오늘 날씨는", "이 영화는", "어제 저녁에", "학교에서 친구들과", "새로 나온 책을", "아침에 일어나서")
HEAD = b"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
LATE_SECONDS = 120  # an answer that takes longer is lost
PEER = """
import json, sys, time
import torch
from transformers import AutoTokenizer, GPT2LMHeadModel
folder, seconds, threads = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
torch.set_num_threads(threads)
tokenizer = AutoTokenizer.from_pretrained(folder)
model = GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32).eval()
tokens, texts, took = 0, 0, []
requests = json.load(sys.stdin)
def write(request):
    inputs = tokenizer(tokenizer.bos_token + request["prompt"], split_special_tokens=False, return_tensors="pt")
    ids = model.generate(**inputs, max_new_tokens=request["max_new_tokens"], do_sample=False)
    return int((ids[0, inputs["input_ids"].shape[1]:] != tokenizer.eos_token_id).sum())
with torch.inference_mode():
    write(requests[0])
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        start = time.perf_counter()
        tokens += write(requests[texts % len(requests)])
        texts += 1
        took.append(time.perf_counter() - start)
    total = time.perf_counter() - began
print(json.dumps({"texts": texts, "tokens": tokens, "seconds": total, "latencies": took}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="such as that of kogpt2 demo")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--new-tokens", type=int, default=40, help="of a text at most")
    parser.add_argument("--slots", type=int, default=32)
    parser.add_argument("--slow", type=int, default=10_000, help="connections; 0: none")
    parser.add_argument("--memory-minutes", type=float, default=10, help="0: none")
    parser.add_argument("--no-peer", action="store_true", help="leave transformers out")
    parser.add_argument("--json", action="store_true")
    wanted = parser.parse_args()
    result: dict[str, Any] = {"conditions": speed_conditions(os.cpu_count() or 1), "wanted": _plain(wanted)}
    requests = make_requests(wanted.new_tokens)
    with serving(wanted.checkpoint, wanted.slots, wanted.clients) as service:
        expected = asyncio.run(ask_in_turn(service, requests))
        result["load"] = load(service, requests, expected, wanted.clients, wanted.seconds)
        show("load", result["load"], wanted.json)
        if wanted.slow:
            result["slow"] = asyncio.run(slow(service, requests, wanted.slow))
            show("slow", result["slow"], wanted.json)
        if wanted.memory_minutes:
            result["memory"] = memory(service, requests, expected, wanted.clients, wanted.memory_minutes * 60)
            show("memory", result["memory"], wanted.json)
    if not wanted.no_peer:
        result["peer"] = peer(wanted.checkpoint, requests, wanted.seconds)
        result["ratio"] = result["load"]["tokens_per_second"] / result["peer"]["tokens_per_second"]
        show("peer", {**result["peer"], "ratio": result["ratio"]}, wanted.json)
    if wanted.json:
        print(json.dumps(result, ensure_ascii=False))


def _plain(wanted: argparse.Namespace) -> dict[str, Any]:
    return {name: str(value) if isinstance(value, Path) else value for name, value in vars(wanted).items()}


def show(part: str, figures: dict[str, Any], as_json: bool) -> None:
    """Writes a line of the table."""
    shown = "  ".join(f"{name} {value:,.4g}" for name, value in figures.items() if isinstance(value, (int, float)))
    announce(f"{part:>8}  {shown}", sys.stderr if as_json else sys.stdout)


def make_requests(new_tokens: int) -> list[dict[str, Any]]:
    """Returns requests of different lengths, each with a mark in its prompt."""
    return [
        {
            "prompt": f"{WORDS[mark % len(WORDS)]} {mark}",
            "max_new_tokens": 1 + (mark * 7 + new_tokens // 2) % new_tokens,
            "temperature": 0,
        }
        for mark in range(MARKS)
    ]


# ---- the service ----------------------------------------------------------------------------------------------------


@dataclass
class Service:
    """A running `kogpt2 serve`."""

    process: subprocess.Popen[bytes]
    port: int

    def memory(self) -> int:
        return int(psutil.Process(self.process.pid).memory_info().rss)


@contextmanager
def serving(checkpoint: Path, slots: int, clients: int) -> Iterator[Service]:
    """Starts a service with room for all clients, and ends it by SIGTERM. RuntimeError if it does not start or end."""
    options = ["--port", "0", "--slots", str(slots), "--queue", str(clients), "--connections", str(clients + 64)]
    verb = [sys.executable, "-m", "kogpt2_gluon.cli.main", "serve", str(checkpoint), *options]
    with tempfile.NamedTemporaryFile() as errors:  # a pipe that nobody reads would fill, and hold the service up
        process = subprocess.Popen(verb, stderr=errors)
        try:
            yield Service(process, port_of(process, Path(errors.name)))
            process.send_signal(signal.SIGTERM)
            if code := process.wait(60):
                raise RuntimeError(f"the service ended with {code}: {said(Path(errors.name))[-2000:]}")
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()


def port_of(process: subprocess.Popen[bytes], errors: Path) -> int:
    """Waits until a service says where it serves; returns the port. RuntimeError if it ends before."""
    while True:
        has_ended = process.poll() is not None  # before the look, so that its last line is seen
        if found := re.search(r"serving at http://127\.0\.0\.1:(\d+);", said(errors)):
            return int(found[1])
        if has_ended:
            raise RuntimeError(f"the service did not start: {said(errors)}")
        time.sleep(0.05)


def said(errors: Path) -> str:
    """Returns what a process has written so far."""
    return errors.read_text("utf-8", "replace")


# ---- clients --------------------------------------------------------------------------------------------------------


class Client:
    """A connection, and one request after another on it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Returns the answer of /generate. OSError, EOFError or ValueError if there is none."""
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        assert self._reader
        body = json.dumps(request).encode()
        self._writer.write(HEAD + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode()
        length = re.search(r"(?i)content-length: (\d+)", head)
        content = await self._reader.readexactly(int(length[1]) if length else 0)
        if not head.startswith("HTTP/1.1 200 "):
            raise ValueError(f"{head.splitlines()[0]}: {content[:200]!r}")
        answer: dict[str, Any] = json.loads(content)
        return answer

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


async def ask_in_turn(service: Service, requests: Sequence[dict[str, Any]]) -> list[str]:
    """Returns the text of each request, asked for alone."""
    client = Client(service.port)
    texts = [(await client.ask(request))["texts"][0]["text"] for request in requests]
    client.close()
    return texts


@dataclass
class Counts:
    """Counts of what the clients got."""

    latencies: list[float] = field(default_factory=list)
    tokens: int = 0
    lost: int = 0
    mixed: int = 0
    different: int = 0

    def take(self, answer: dict[str, Any], mark: int, expected: Sequence[str], seconds: float) -> None:
        """Counts an answer."""
        (text,) = answer["texts"]
        self.latencies.append(seconds)
        self.tokens += text["tokens_written"]
        if text["text"] != expected[mark]:
            if text["text"] in expected:
                self.mixed += 1
            else:
                self.different += 1


async def _one_client(
    port: int, first: int, requests: Sequence[dict[str, Any]], expected: Sequence[str], end: float, counts: Counts
) -> None:
    client, mark = Client(port), first
    while time.perf_counter() < end:
        mark = (mark + 13) % len(requests)
        began = time.perf_counter()
        try:
            answer = await asyncio.wait_for(client.ask(requests[mark]), LATE_SECONDS)
        except (OSError, EOFError, ValueError, asyncio.TimeoutError) as error:
            counts.lost += 1
            announce(f"lost: {error!r}")
            client.close()
            await asyncio.sleep(0.1)
            continue
        counts.take(answer, mark, expected, time.perf_counter() - began)
    client.close()


def _clients(
    port: int, requests: Sequence[dict[str, Any]], expected: Sequence[str], clients: int, seconds: float
) -> dict[str, Any]:
    """Returns the figures of a load; run in a process of its own."""

    async def run() -> tuple[Counts, float]:
        counts, began = Counts(), time.perf_counter()
        end = began + seconds
        tasks = [_one_client(port, number, requests, expected, end, counts) for number in range(clients)]
        await asyncio.gather(*tasks)
        return counts, time.perf_counter() - began

    counts, took = asyncio.run(run())
    return {
        "texts": len(counts.latencies),
        "lost": counts.lost,
        "mixed": counts.mixed,
        "different": counts.different,
        "p50_seconds": quantile(counts.latencies, 0.5),
        "p99_seconds": quantile(counts.latencies, 0.99),
        "tokens_per_second": counts.tokens / took,
        "seconds": took,
    }


def quantile(values: Sequence[float], share: float) -> float:
    """Returns the smallest value that at least this share of them does not exceed; 0 if there are none."""
    ordered = sorted(values)
    return ordered[max(0, min(len(ordered) - 1, -(-int(share * 1000) * len(ordered) // 1000) - 1))] if ordered else 0.0


def _start_clients(
    service: Service, requests: Sequence[dict[str, Any]], expected: Sequence[str], clients: int, seconds: float
) -> subprocess.Popen[str]:
    here = str(Path(__file__).resolve().parent)
    code = f"import sys, json; sys.path.insert(0, {here!r}); import serving_load as b; "
    code += "print(json.dumps(b._clients(*json.load(sys.stdin))))"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    )
    assert process.stdin
    process.stdin.write(json.dumps([service.port, list(requests), list(expected), clients, seconds]))
    process.stdin.close()
    return process


def _result_of(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout
    said = process.stdout.read()
    process.stdout.close()
    if code := process.wait():
        raise RuntimeError(f"the clients ended with {code}")
    found: dict[str, Any] = json.loads(said)
    return found


def load(
    service: Service, requests: Sequence[dict[str, Any]], expected: Sequence[str], clients: int, seconds: float
) -> dict[str, Any]:
    """Returns the figures of so many clients."""
    return _result_of(_start_clients(service, requests, expected, clients, seconds))


def memory(
    service: Service, requests: Sequence[dict[str, Any]], expected: Sequence[str], clients: int, seconds: float
) -> dict[str, Any]:
    """Returns the service's memory over a long load, in MB: after a tenth of the time, at half of it and at the end."""
    running, began, samples = _start_clients(service, requests, expected, clients, seconds), time.perf_counter(), []
    while (passed := time.perf_counter() - began) < seconds:
        samples.append((passed, service.memory() / 2**20))
        time.sleep(min(1.0, seconds / 50))
    figures = _result_of(running)
    at = {share: next(size for passed, size in samples if passed >= share * seconds) for share in (0.1, 0.5)}
    return {
        "begin_mb": at[0.1],
        "half_mb": at[0.5],
        "end_mb": samples[-1][1],
        "most_mb": max(size for _, size in samples),
        **{name: figures[name] for name in ("texts", "lost", "mixed", "different", "seconds")},
    }


async def slow(service: Service, requests: Sequence[dict[str, Any]], connections: int) -> dict[str, Any]:
    """Opens many connections that never finish a request; returns how ordinary requests fare meanwhile."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = connections + 64
    if soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, hard) if hard > 0 else most, hard))
    took, lost, opened = [], 0, []
    client = Client(service.port)
    try:
        for number in range(connections):
            _, writer = await asyncio.open_connection("127.0.0.1", service.port)
            opened.append(writer)
            writer.write(HEAD[: len(HEAD) - number % 3 * 20])
            if number % max(1, connections // 50) == 0:
                began = time.perf_counter()
                try:
                    await asyncio.wait_for(client.ask(requests[number % len(requests)]), LATE_SECONDS)
                    took.append(time.perf_counter() - began)
                except (OSError, EOFError, ValueError, asyncio.TimeoutError) as error:
                    announce(f"lost: {error!r}")
                    lost += 1
                    client.close()
    finally:
        client.close()
        for writer in opened:
            writer.transport.abort()
    return {
        "connections": len(opened),
        "texts": len(took),
        "lost": lost,
        "p50_seconds": quantile(took, 0.5),
        "most_seconds": max(took, default=0.0),
    }


# ---- the peer -------------------------------------------------------------------------------------------------------


def peer(checkpoint: Path, requests: Sequence[dict[str, Any]], seconds: float) -> dict[str, Any]:
    """Returns the figures of transformers on the converted folder."""
    from kogpt2_gluon.convert.huggingface import convert_checkpoint
    from kogpt2_gluon.machine.limits import available_cores
    from kogpt2_gluon.runs.checkpoint import open_checkpoint

    with tempfile.TemporaryDirectory() as folder:
        convert_checkpoint(open_checkpoint(checkpoint), Path(folder) / "converted")
        done = subprocess.run(
            [sys.executable, "-c", PEER, f"{folder}/converted", str(seconds), str(available_cores())],
            input=json.dumps(requests),
            capture_output=True,
            text=True,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
            check=False,
        )
    if done.returncode:
        raise RuntimeError(f"transformers: {done.stderr[-2000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    return {
        "texts": found["texts"],
        "p50_seconds": quantile(found["latencies"], 0.5),
        "p99_seconds": quantile(found["latencies"], 0.99),
        "tokens_per_second": found["tokens"] / found["seconds"],
        "seconds": found["seconds"],
    }


if __name__ == "__main__":
    main()
