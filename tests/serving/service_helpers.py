"""A running `kogpt2 serve`, clients of it, and the texts that it must write."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

START_SECONDS = 300  # the fused operators may have to be compiled
JSON = {"Content-Type": "application/json"}


class Service:
    """A service, and one request after another to it."""

    def __init__(self, process: subprocess.Popen[str], port: int, token: str, errors: list[str]) -> None:
        self.process, self.port, self.token, self.errors = process, port, token, errors
        self.url = f"http://127.0.0.1:{port}"

    def connect(self, timeout: float = 60) -> socket.socket:
        """A bare connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout)

    def ask(
        self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """Sends a request on a connection of its own; returns status, headers by lower-case names, and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        sent = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        if body is not None:
            sent |= JSON
        data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
        try:
            connection.request(method, path, data, {**sent, **(headers or {})})
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def post(self, path: str, status: int = 200, **body: Any) -> Any:
        """Sends JSON, and returns the JSON that is answered with this status."""
        got, _, content = self.ask("POST", path, body)
        assert got == status, (got, content[:500])
        return json.loads(content)

    def get(self, path: str) -> Any:
        status, _, content = self.ask("GET", path)
        assert status == 200, (status, content[:500])
        return json.loads(content)

    @contextmanager
    def stream(self, path: str = "/generate", **body: Any) -> Iterator[Iterator[tuple[str, Any]]]:
        """The events of a stream, as (name, data); leaving the block hangs up."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        headers = {**JSON, **({"Authorization": f"Bearer {self.token}"} if self.token else {})}
        connection.request("POST", path, json.dumps({**body, "stream": True}).encode(), headers)
        answer = connection.getresponse()
        assert answer.status == 200, (answer.status, answer.read()[:500])
        try:
            yield _events(answer)
        finally:
            answer.close()
            connection.close()

    def metric(self, name: str) -> float:
        """A number of /metrics; 0 for one that is not there yet."""
        _, _, content = self.ask("GET", "/metrics")
        found = re.search(rf"^{re.escape(name)} (\S+)$", content.decode(), re.MULTILINE)
        return float(found[1]) if found else 0.0

    def wait_until(self, is_so: Callable[[], bool], seconds: float = 60) -> None:
        """Asks again and again."""
        end = time.monotonic() + seconds
        while not is_so():
            assert time.monotonic() < end, "it did not come to that"
            assert self.process.poll() is None, self.errors
            time.sleep(0.02)

    def memory(self) -> int:
        """Bytes in memory."""
        return psutil.Process(self.process.pid).memory_info().rss

    def end(self, number: int = signal.SIGTERM, seconds: float = 60) -> int:
        """Sends a signal; returns the exit code."""
        self.process.send_signal(number)
        return self.process.wait(seconds)


def _events(answer: http.client.HTTPResponse) -> Iterator[tuple[str, Any]]:
    name = ""
    for line in answer:
        kind, _, value = line.decode().rstrip("\n").partition(": ")
        if kind == "event":
            name = value
        elif kind == "data":
            yield name, value if value == "[DONE]" else json.loads(value)


@contextmanager
def _running(command: list[str], token: str, **variables: str) -> Iterator[Service]:
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        **({"KOGPT2_SERVE_TOKEN": token} if token else {}),
        **variables,
    }
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr
    lines: list[str] = []
    ready = threading.Event()

    def read() -> None:
        for line in process.stderr:
            lines.append(line.rstrip())
            if "serving at" in line:
                ready.set()
        ready.set()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        assert ready.wait(START_SECONDS), lines
        found = re.search(r"serving at http://127\.0\.0\.1:(\d+)", "\n".join(lines))
        assert found, lines
        yield Service(process, int(found[1]), token, lines)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        reader.join(10)
        process.stderr.close()


@contextmanager
def serving(*arguments: object, token: str = "", **variables: str) -> Iterator[Service]:
    """`kogpt2 serve` on a free port, as a user starts it."""
    verb = [sys.executable, "-m", "kogpt2_gluon.cli.main", "serve", *map(str, arguments), "--port", "0"]
    with _running(verb, token, **variables) as service:
        yield service


@contextmanager
def serving_with(checkpoint: Path, **settings: object) -> Iterator[Service]:
    """A service with settings that the command line lacks."""
    program = [
        sys.executable,
        "-m",
        "tests.serving.serve_program",
        str(checkpoint),
        json.dumps({"port": 0, **settings}),
    ]
    with _running(program, "") as service:
        yield service


def at_once(jobs: list[Callable[[], Any]]) -> list[Any]:
    """Calls all of these, each in a thread of its own; returns what they return."""
    with ThreadPoolExecutor(len(jobs)) as pool:
        return [future.result() for future in [pool.submit(job) for job in jobs]]
