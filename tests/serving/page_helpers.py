"""A browser, a service with a small network, and what a person does with the page that it shows."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tests.convert.convert_helpers import OWN_SENTENCES, make_checkpoint, train

POSITIONS = 400  # so that a text can be stopped long before it is full
PIECES = 450


def make_network(folder: Path, profile: str, end_scale: float = 0.0) -> Path:
    """A checkpoint whose texts have many different tokens, and end soon if `end_scale` is large; returns its folder."""
    draw = np.random.RandomState(5)

    def change(arrays: dict[str, Any]) -> None:
        rows = draw.normal(0, 0.3, (PIECES, 96)).astype(np.float32)
        rows[2] *= end_scale  # </s>
        arrays.update({"_embed.weight": rows, "_logits_proj.weight": rows})
        arrays["_pos_embed.weight"] = draw.normal(0, 0.1, (POSITIONS, 96)).astype(np.float32)
        for name, array in arrays.items():
            if "_layers" in name and array.ndim == 2:
                arrays[name] = draw.normal(0, 0.25, array.shape).astype(np.float32)

    # Texts of the page are cut into the pieces of these sentences; signs of a shell are among them.
    sentences = [*OWN_SENTENCES * 20, *["\"왜?\" '그래서' `오늘` $날씨 <b>날씨</b> & \\ - 끝!"] * 20]
    tokenizer = train(sentences, PIECES, profile=profile)
    return make_checkpoint(folder, tokenizer, change, vocab_size=PIECES, max_length=POSITIONS).path


class Served:
    """A running `kogpt2 serve`."""

    def __init__(self, process: subprocess.Popen, port: int, token: str) -> None:
        self.process, self.port, self.token = process, port, token
        self.url = f"http://127.0.0.1:{port}/"

    def post(self, **request: Any) -> dict[str, Any]:
        """Asks /generate as a program does."""
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.token}"}
        asked = urllib.request.Request(self.url + "generate", json.dumps(request).encode(), headers)
        with urllib.request.urlopen(asked, timeout=60) as answer:
            return json.load(answer)

    def wait(self) -> None:
        """Waits until the service answers."""
        while True:
            assert self.process.poll() is None, f"kogpt2 serve ended with {self.process.returncode}"
            try:
                urllib.request.urlopen(self.url + "ready", timeout=10).close()
                return
            except urllib.error.HTTPError:
                time.sleep(0.05)
            except OSError:
                time.sleep(0.05)


@contextmanager
def serve(*arguments: object, port: int = 0, token: str = "") -> Iterator[Served]:
    """Runs `kogpt2 serve` on a free port of this machine, or on `port`."""
    if not port:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
    command = [sys.executable, "-m", "kogpt2_gluon.cli.main", "serve", *map(str, arguments), "--port", str(port)]
    variables = {"KOGPT2_SERVE_TOKEN": token} if token else {}
    process = subprocess.Popen(command, env={**os.environ, **variables})
    try:
        served = Served(process, port, token)
        served.wait()
        yield served
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait()
