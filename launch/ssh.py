"""Run a program on many hosts at once: through ssh, or directly on this machine.

No shell string is ever built from data. A remote host executes a constant, ``exec PYTHON -``. The program and all its
data go through stdin, where ``ps`` does not show them.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Callable

from kogpt2_gluon.errors import RecipeError
from kogpt2_launch.hosts import Host

# Nobody is there to answer a question, and a host that is down must not hold up the others. IPv4, because hosts call
# the launcher back at the address that ssh came from, and Horovod listens on nothing else.
OPTIONS = ("-4", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "StrictHostKeyChecking=accept-new")
MAX_PARALLEL = 64
_PATH = re.compile(r"[A-Za-z0-9_./+-]+")


@dataclass(frozen=True)
class Answer:
    """The output of a program on a host.

    code : its exit code; 255 is a failure of ssh itself, None means that it did not end in time. sent, received : when
    it was started and when it had ended, by this machine's clock, in seconds.
    """

    host: str
    code: int | None
    output: str
    errors: str
    sent: float
    received: float

    @property
    def problem(self) -> str:
        """One line about what went wrong; empty if nothing went wrong."""
        if self.code == 0:
            return ""
        if self.code is None:
            return f"no answer within {self.received - self.sent:.0f} s"
        lines = [line.strip() for line in self.errors.splitlines() if line.strip()]
        return lines[-1][:300] if lines else f"exit code {self.code}"

    def said(self) -> tuple[dict[str, Any], str]:
        """The JSON object that the program printed, and one line about what went wrong.

        The line is empty if nothing went wrong. A program may report a problem of its own under the key "problem".
        """
        if self.problem:
            return {}, self.problem
        lines = self.output.strip().splitlines()
        try:
            said = json.loads(lines[-1]) if lines else None  # a login message may come before it
        except ValueError:
            said = None
        if not isinstance(said, dict):
            return {}, f"answered {lines[-1][:80] if lines else 'nothing'!r}, which is not what the program prints"
        return said, str(said.get("problem", ""))


@dataclass(frozen=True)
class Shell:
    """The way to reach hosts.

    Attributes
    ----------
    python : str
        The interpreter on the hosts. RecipeError if the path has a character that a shell would interpret.
    port : int or None
        The port of sshd, if it is not the one in ~/.ssh/config.
    """

    python: str = "python3"
    port: int | None = None

    def __post_init__(self) -> None:
        if not _PATH.fullmatch(self.python) or self.python.startswith("-"):
            raise RecipeError(f"--python {self.python!r}: not a path of letters, digits and _ . / + -")

    def argv(self, host: Host) -> list[str]:
        """The command that runs a program from stdin on `host`."""
        if host.is_local:
            return [self.python, "-"]
        port = ["-p", str(self.port)] if self.port is not None else []
        return ["ssh", *OPTIONS, *port, host.name, "exec", self.python, "-"]

    def run(self, host: Host, program: str, seconds: float = 60.0) -> Answer:
        """Runs a Python program on a host and waits for its end; nothing that happens on the host raises an error."""
        sent = time.time()
        code: int | None
        try:
            done = subprocess.run(
                self.argv(host), input=program.encode(), capture_output=True, timeout=seconds, check=False
            )
            code, output, errors = done.returncode, done.stdout, done.stderr
        except subprocess.TimeoutExpired:
            code, output, errors = None, b"", b""
        except OSError as error:
            code, output, errors = 255, b"", f"{error.strerror}: {self.argv(host)[0]}".encode()
        texts = (output.decode(errors="replace"), errors.decode(errors="replace"))
        return Answer(host.name, code, *texts, sent, time.time())

    def run_on_all(
        self, hosts: Sequence[Host], program: Callable[[Host], str], seconds: float = 60.0
    ) -> tuple[Answer, ...]:
        """Runs a program of its own on each host, all at once, and returns the answers in the order of the hosts."""
        with ThreadPoolExecutor(max_workers=max(1, min(MAX_PARALLEL, len(hosts)))) as pool:
            answers: Iterable[Answer] = pool.map(lambda host: self.run(host, program(host), seconds), hosts)
            return tuple(answers)
