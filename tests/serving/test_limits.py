"""Too much at once, too slow, too long: what the service does then; and how it stops."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("fastapi", reason="the service needs it: the extra serve")

from kogpt2_gluon.cli.main import cli
from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.machine import job
from kogpt2_gluon.runs.checkpoint import open_checkpoint
from tests.convert.convert_helpers import make_checkpoint
from tests.serving.page_helpers import POSITIONS, make_network
from tests.serving.service_helpers import JSON, Service, at_once, serving, serving_with

PROMPT = "오늘은 날씨가 맑아서"
MANY = POSITIONS - 50  # tokens, which take a while
ENDLESS = {"prompt": PROMPT, "max_new_tokens": MANY, "min_new_tokens": MANY}
CONNECTIONS, SLOW = 24, 300
QUEUE = 100  # texts that take longer together than the service gives a request
HEAD = b"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that is damaged: near its last position it computes nothing."""
    whole = open_checkpoint(make_network(tmp_path_factory.mktemp("network"), "lossless"))
    arrays = {name: np.array(values) for name, values in whole.model_arrays().items()}
    arrays["_pos_embed.weight"][-2] = np.nan
    pieces, positions = len(arrays["_embed.weight"]), len(arrays["_pos_embed.weight"])
    damaged = tmp_path_factory.mktemp("damaged")
    tokenizer = whole.tokenizer_path.read_bytes()
    return make_checkpoint(
        damaged, tokenizer, lambda old: old.update(arrays), vocab_size=pieces, max_length=positions
    ).path


@pytest.fixture(scope="module")
def small(checkpoint: Path) -> Iterator[Service]:
    """One that admits little, and has no patience."""
    limits = {"connections": CONNECTIONS, "header_seconds": 3, "body_seconds": 3, "request_seconds": 2}
    with serving_with(checkpoint, slots=1, queue=QUEUE, max_body_bytes=2048, **limits) as service:
        yield service


def request(body: bytes) -> bytes:
    return HEAD + f"Content-Length: {len(body)}\r\n\r\n".encode() + body


def test_a_full_queue_refuses_and_then_takes_again(small):
    with small.stream(**ENDLESS, num_samples=1 + QUEUE) as events:
        next(events)
        assert small.metric("kogpt2_waiting_texts") == QUEUE
        status, headers, content = small.ask("POST", "/generate", {"prompt": ""})
        assert (status, headers["retry-after"]) == (429, "1")
        assert json.loads(content)["error"]["reason"] == "queue_full"
        error = small.post("/v1/completions", 429, model="a", prompt="")["error"]
        assert (error["type"], error["code"]) == ("rate_limit_error", "queue_full")
    small.wait_until(lambda: small.metric("kogpt2_running_texts") == 0)
    assert small.post("/generate", prompt="", max_new_tokens=1)["texts"]
    assert small.metric('kogpt2_refused_total{reason="queue_full"}') == 2


def test_what_is_written_when_the_time_is_over_is_answered(small):
    """Also of several texts, of which some have not begun."""
    texts = small.post("/generate", **ENDLESS, num_samples=QUEUE)["texts"]
    assert {text["finish_reason"] for text in texts} <= {"length", "time"} and texts[0]["tokens_written"]
    assert (texts[-1]["finish_reason"], texts[-1]["tokens_written"]) == ("time", 0)
    wanted = {"model": "a", "prompt": PROMPT, "n": QUEUE, "max_tokens": MANY, "temperature": 0}
    last = small.post("/v1/completions", **wanted)["choices"][-1]
    assert (last["finish_reason"], last["stop_reason"], last["text"]) == ("length", "time", "")
    answers = at_once([lambda: small.ask("POST", "/generate", ENDLESS)] * 20)
    assert {status for status, _, _ in answers} == {200, 503}  # the last ones have no token when their time is over
    assert all(b'"reason":"time"' in content for status, _, content in answers if status == 503)


def test_a_network_that_fails_in_the_middle_of_a_text(small):
    """An answer that has not begun gets a status; a stream ends with the error, and the next request is answered."""
    wanted = {"prompt": "", "written": [5] * (POSITIONS - 20), "max_new_tokens": 50, "min_new_tokens": 50, "seed": 1}
    error = small.post("/generate", 500, **wanted)["error"]
    assert error["reason"] == "failed" and "not finite" in error["message"]
    with small.stream(**wanted) as events:
        *begun, (name, data) = events
    assert (name, data["error"]["reason"]) == ("error", "failed") and len(begun) > 10
    completion = {"model": "a", "prompt": [5] * (POSITIONS - 12), "max_tokens": 20, "temperature": 0}
    with small.stream("/v1/completions", **completion) as chunks:
        *_, (_, last) = chunks
    assert last["error"]["type"] == "server_error" and last["error"]["code"] == "failed"
    assert small.post("/generate", prompt="", max_new_tokens=1)["texts"]


def test_slow_connections_do_not_keep_others_out(small):
    """Many more than the service admits, each with the beginning of a request, or none of it."""
    slow = [small.connect() for _ in range(CONNECTIONS)]
    try:
        for number in range(SLOW):
            connection = small.connect()
            slow.append(connection)
            if number % 3:
                connection.sendall(HEAD + b"Content-Length: 100\r\n\r\n{" if number % 3 == 1 else HEAD[: 20 + number])
            if number % 60 == 0:
                assert small.post("/generate", prompt="", max_new_tokens=1)["texts"]
        assert small.metric("kogpt2_connections") <= CONNECTIONS
        small.wait_until(lambda: small.metric("kogpt2_connections") == 1)  # the one that asks
    finally:
        for connection in slow:
            connection.close()
    assert small.metric('kogpt2_refused_total{reason="connections"}') >= SLOW - CONNECTIONS
    assert small.metric('kogpt2_refused_total{reason="slow"}') > 0
    assert small.post("/generate", prompt="", max_new_tokens=1)["texts"]


@pytest.mark.parametrize("sent", [HEAD, HEAD + b"Content-Length: 9\r\n\r\n{"], ids=["headers", "body"])
def test_headers_and_bodies_that_do_not_come(small, sent):
    with small.connect() as connection:
        connection.sendall(sent)
        answer = b"".join(iter(lambda: connection.recv(4096), b""))  # up to where it is closed
        assert b" 408 " in answer and b'"slow"' in answer, answer


def test_a_byte_now_and_then_is_not_a_request(small):
    with small.connect() as connection:
        connection.sendall(HEAD)
        end = time.monotonic() + 30
        with pytest.raises((ConnectionError, EOFError)):
            while time.monotonic() < end:
                connection.sendall(b"A")
                time.sleep(0.3)
                connection.settimeout(0.01)
                try:
                    if connection.recv(4096) == b"":
                        raise EOFError
                except TimeoutError:
                    pass


def test_connections_are_used_again(small):
    connection = http.client.HTTPConnection("127.0.0.1", small.port, timeout=60)

    def post(body: bytes) -> int:
        connection.request("POST", "/generate", body, JSON)
        answer = connection.getresponse()
        answer.read()
        return answer.status

    connection.connect()
    own = connection.sock
    small_body, too_large = b'{"prompt": "", "max_new_tokens": 1}', b" " * 4000
    # What is too large is read over, not kept, so that its client hears of it and can go on.
    assert [post(body) for body in (small_body, too_large, small_body, b"{", small_body)] == [200, 413, 200, 400, 200]
    assert connection.sock is own
    connection.close()


# ---- the end --------------------------------------------------------------------------------------------------------


def test_sigterm_lets_what_has_begun_end(checkpoint):
    """Running and waiting texts are finished, streams and whole answers; new requests get 503; the exit code is 0."""
    wanted = {"prompt": PROMPT, "max_new_tokens": MANY, "min_new_tokens": MANY, "temperature": 0, "num_samples": 10}
    with serving(checkpoint, "--slots", 2, "--drain-seconds", 100) as service:

        def stream() -> list[tuple[str, Any]]:
            with service.stream(**wanted) as events:
                return list(events)

        def whole() -> Any:
            return service.post("/generate", **wanted)

        def stop() -> tuple[int, bytes, int, int]:
            names = ("kogpt2_waiting_texts", "kogpt2_running_texts")
            service.wait_until(lambda: sum(map(service.metric, names)) > 30)  # so all four requests are there
            idle = service.connect()
            service.process.send_signal(signal.SIGTERM)
            service.wait_until(lambda: service.ask("GET", "/ready")[0] == 503)
            status, _, content = service.ask("POST", "/generate", {"prompt": ""})
            health = service.ask("GET", "/health")[0]
            code = service.process.wait(100)
            idle.close()
            return status, content, health, code

        *streams, answer, other, stopped = at_once([stream, stream, whole, whole, stop])
    status, content, health, code = stopped
    assert (status, json.loads(content)["error"]["reason"], health, code) == (503, "draining", 200, 0)
    for events in streams:
        assert sum(name == "end" and data["tokens_written"] == MANY for name, data in events) == 10
        first = [data for name, data in events if name == "token" and data["sample"] == 0]
        assert first == answer["texts"][0]["tokens"]
    assert answer["texts"] == other["texts"]
    assert service.errors[-1].startswith("kogpt2: stopping: ")


def test_texts_that_the_end_cuts_off_are_answered_and_reported(checkpoint):
    with serving(checkpoint, "--slots", 1, "--drain-seconds", 0.3) as service:

        def running() -> Any:
            with service.stream(**ENDLESS, num_samples=100) as events:
                return list(events)

        def stop() -> int:
            service.wait_until(lambda: service.metric("kogpt2_tokens_written_total") > 0)
            return service.end()

        events, code = at_once([running, stop])
    assert events[-1][0] == "end" and events[-1][1]["finish_reason"] == "shutdown"
    assert code == 1 and re.search(r"when \d+ texts were not finished", service.errors[-1]), service.errors


def test_a_second_signal_ends_it_at_once(checkpoint):
    with serving(checkpoint, "--slots", 1, "--drain-seconds", 1000) as service:
        with service.stream(**ENDLESS, num_samples=100) as events:
            next(events)
            service.process.send_signal(signal.SIGTERM)
            service.wait_until(lambda: service.ask("GET", "/ready")[0] == 503)
            service.process.send_signal(signal.SIGTERM)  # so soon, it is the same signal again
            time.sleep(job.ECHO_SECONDS + 0.5)
            assert service.process.poll() is None
            assert service.end(signal.SIGTERM) == 1
        assert "texts were not finished" in service.errors[-1], service.errors
        assert not any("Traceback" in line for line in service.errors)


# ---- who may ask ----------------------------------------------------------------------------------------------------


def test_what_cannot_be_is_refused_before_anything_is_loaded(tmp_path):
    """Through the command itself, and quickly: none of these has a checkpoint."""

    def refused(*arguments: object, **variables: str) -> str:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            done = CliRunner().invoke(cli, ["serve", str(tmp_path / "no"), *map(str, arguments)])
        assert isinstance(done.exception, (RecipeError, DataError)), done.output
        return str(done.exception)

    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        assert f"port {port}: Address already in use" in refused("--port", port)
    assert "cannot listen on 192.0.2.1" in refused("--host", "192.0.2.1")
    token = tmp_path / "token"
    for content, words in (
        ("secret\n", "16 to 4,096"),
        ("two words of a token", "without spaces"),
        ("토큰" * 9, "ASCII"),
    ):
        token.write_text(content)
        assert words in refused("--token-file", token)
        assert words in refused(KOGPT2_SERVE_TOKEN=content)
    assert "No such file" in refused("--token-file", tmp_path / "none")
    assert "without a path" in refused("--allow-origin", "*")
    assert "without a port" in refused("--allow-host", "a:80")
    assert "slots=0" in refused("--slots", 0)
    assert "open files" in refused("--connections", 100_000)
    assert "no checkpoint there" in refused("--port", 0)
