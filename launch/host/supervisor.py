"""Run one worker on its host, tied to the launcher: when one of the two is gone, the other one ends.

The launcher puts the archive of this package on every host, next to a ``launch.json`` of mode 600. The engine
(horovodrun, mpirun, srun) starts it once for each rank: ``python FOLDER/agent.zip``. Environment, command and the
launcher's address are in launch.json, never on a command line.

The worker runs in a session of its own, and the kernel sends it SIGKILL if this process dies. The launcher is at the
other end of a connection (link.py). Each end sends a sign of life once a second. An end that hears nothing for
`detect_seconds` takes the other one for dead. Messages:

- to the launcher: ``started``, ``beat`` (step, beats, state of the process), ``line`` (rank 0's output), ``network``,
  ``spot`` (a notice that the instance ends), ``stacks``, ``exit`` (code, last lines);
- from it: ``beat``, ``save`` (SIGTERM: the worker saves its state and ends), ``end`` (with its `grace`), ``stacks``.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

from kogpt2_gluon.machine import job
from kogpt2_launch.host.link import BEAT_SECONDS, Link
from kogpt2_launch.host.place import place
from kogpt2_launch.host.processes import kill_marked, process_state, stacks
from kogpt2_launch.host.spot import METADATA, spot_notice

OWN_TO_HOST = ("HOME", "USER", "LOGNAME", "SHELL")
LAST_LINES = 20
SPOT_SECONDS = 5.0
NETWORK_WORDS = ("Using network", "NET/OFI Selected", "NET/Socket : Using", "NET/IB : Using")


def main() -> int:
    """Runs the worker and returns the exit code for the engine: 0 if the launcher knows how the worker ended.

    An engine that saw a failure would end the other ranks in its own way, while one of them may still be saving.
    """
    folder = Path(sys.argv[0]).resolve().parent
    launch = json.loads((folder / "launch.json").read_text(encoding="utf-8"))
    rank = job.rank()
    if rank is None:
        print("supervisor: no engine has set the rank of this worker", file=sys.stderr)
        return 2
    try:
        where = place(launch, rank, os.environ)
        link = Link.connect(launch, rank)
    except (OSError, ValueError) as error:
        print(f"supervisor: rank {rank}, launcher at {launch['address']}: {error}", file=sys.stderr)
        return 1
    # The engine sends it, and the launcher decides. (Ignored instead of handled, it would be so in the worker too.)
    signal.signal(signal.SIGTERM, lambda *_: None)
    Supervisor(launch, rank, where, folder, link).run()
    return 0


class Supervisor:
    """One worker from its start to its end."""

    def __init__(self, launch: dict[str, Any], rank: int, where: dict[str, str], folder: Path, link: Link) -> None:
        """where : Horovod's variables of this rank. folder : the launch's, on this host."""
        self.launch, self.rank, self.where, self.folder, self.link = launch, rank, where, folder, link
        self.log_dir = Path(launch["cwd"], launch["log_dir"])
        self.progress_file = folder / f"rank-{rank}.progress"
        self.nccl_file = self.log_dir / f"rank-{rank:05d}.nccl.log"
        self.last_lines: deque[str] = deque(maxlen=LAST_LINES)
        self.kill_at: float | None = None  # when a worker that was asked to end is killed
        self.output_closed = False
        self.network_known, self.nccl_offset, self.unfinished_line = False, 0, b""
        self.next_beat = self.next_spot = 0.0

    def run(self) -> None:
        """Runs the worker and reports its exit code: 128 + S for signal S, 127 if it cannot be started."""
        try:
            self.log_dir.mkdir(parents=True, exist_ok=True)
            self.log = (self.log_dir / f"rank-{self.rank:05d}.log").open("ab", buffering=0)
            self.worker = self._start()
        except OSError as error:
            self.link.send("exit", code=127, lines=[f"{error.filename}: {error.strerror}"])
        else:
            self.link.send("started", pid=self.worker.pid)
            code = self._watch()
            self._end_all_of_it()
            self._read_output(final=True)
            self.log.close()
            self.link.send("beat", **self._progress())  # the steps since the last beat
            self.link.send("exit", code=code, lines=list(self.last_lines))
        self.link.wait_for_release(float(self.launch["detect_seconds"]))
        if not job.local_rank():
            shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self) -> subprocess.Popen[bytes]:
        """Starts the worker; OSError if its command does not exist."""
        argv = list(self.launch["argv"])
        if "/" not in argv[0] and (installed := Path(sys.executable).with_name(argv[0])).exists():
            argv[0] = str(installed)
        worker = subprocess.Popen(
            argv,
            cwd=self.launch["cwd"],
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=job.end_with_parent(),
        )
        assert worker.stdout
        os.set_blocking(worker.stdout.fileno(), False)
        return worker

    def _environment(self) -> dict[str, str]:
        """The worker's environment: what the launcher sent, what is this host's own, and the worker's place."""
        own = {name: os.environ[name] for name in OWN_TO_HOST if name in os.environ}
        env = {**self.launch["env"], **own, **self.where}
        env[job.LAUNCH_ID], env[job.LAUNCH_RANK] = self.launch["id"], str(self.rank)
        env[job.PROGRESS_FILE] = str(self.progress_file)
        if "NCCL_DEBUG" in env:
            env["NCCL_DEBUG_FILE"] = str(self.nccl_file)
        return env

    def _watch(self) -> int:
        """Watches the worker until it ends; returns its exit code."""
        assert self.worker.stdout
        link, output = self.link.connection.fileno(), self.worker.stdout.fileno()
        while self.worker.poll() is None:
            # A closed connection is always ready to be read, so it is left out.
            select.select([link] * (not self.link.closed) + [output] * (not self.output_closed), [], [], 0.2)
            self._read_output()
            for message in self.link.receive():
                self._obey(message)
            now = time.monotonic()
            if now >= self.next_beat:
                self.next_beat = now + BEAT_SECONDS
                self.link.send("beat", **self._progress())
                self._report_network()
            if self.launch["spot"] and now >= self.next_spot:
                self.next_spot = now + SPOT_SECONDS
                self._look_for_spot_notice()
            self.link.flush()
            silent = now - self.link.heard
            if self.kill_at is None and (self.link.closed or silent > self.launch["detect_seconds"]):
                why = "ended" if self.link.closed else f"has said nothing for {silent:.0f} s"
                self._note(f"supervisor: the launcher {why}; this worker ends")
                self._ask_to_end(float(self.launch["orphan_grace"]))
            if self.kill_at is not None and now >= self.kill_at:
                self._signal(signal.SIGKILL)
        return self.worker.returncode if self.worker.returncode >= 0 else 128 - self.worker.returncode

    def _obey(self, message: dict[str, Any]) -> None:
        if message["kind"] == "save":
            self._signal(signal.SIGTERM)
        elif message["kind"] == "end":
            self._ask_to_end(float(message["grace"]))
        elif message["kind"] == "stacks":
            self.link.send("stacks", text=stacks(self.worker.pid))

    def _ask_to_end(self, grace: float) -> None:
        if grace > 0:
            self._signal(signal.SIGTERM)
        kill_at = time.monotonic() + grace
        self.kill_at = kill_at if self.kill_at is None else min(self.kill_at, kill_at)

    def _signal(self, number: int) -> None:
        """Sends a signal: SIGTERM goes to the worker alone, which then saves; SIGKILL goes to its whole group."""
        if self.worker.poll() is None:
            if number == signal.SIGKILL:
                os.killpg(self.worker.pid, number)
            else:
                self.worker.send_signal(number)

    def _end_all_of_it(self) -> None:
        """Ends everything that the worker has started, even what has left its process group."""
        kill_marked({job.LAUNCH_ID: self.launch["id"], job.LAUNCH_RANK: str(self.rank)})

    def _progress(self) -> dict[str, Any]:
        """The step that the worker has reported last, and the state of its process (R, S, D; T: stopped)."""
        step, beats = job.read_progress(self.progress_file)
        return {"step": step, "beats": beats, "state": process_state(self.worker.pid)}

    def _read_output(self, final: bool = False) -> None:
        assert self.worker.stdout
        while True:
            try:
                part = os.read(self.worker.stdout.fileno(), 65536)
            except BlockingIOError:
                break
            if not part:
                self.output_closed = True
                break
            self.log.write(part)
            *lines, self.unfinished_line = (self.unfinished_line + part).split(b"\n")
            self.unfinished_line = self.unfinished_line[-65536:]
            self._keep(lines)
        if final and self.unfinished_line:
            self._keep([self.unfinished_line])

    def _keep(self, lines: list[bytes]) -> None:
        texts = [line.decode("utf-8", "replace").rstrip("\r") for line in lines]
        self.last_lines.extend(text[-2000:] for text in texts if text.strip())
        if self.rank == 0:
            for text in texts:
                self.link.send("line", text=text)

    def _note(self, text: str) -> None:
        """Writes a line of the supervisor into the worker's log."""
        self.log.write(text.encode() + b"\n")
        self.last_lines.append(text)

    def _report_network(self) -> None:
        """Sends the launcher the lines of NCCL's log that name its network, once."""
        if self.network_known or not self.nccl_file.exists():
            return
        with self.nccl_file.open("rb") as file:
            file.seek(self.nccl_offset)
            part = file.read(1 << 20)
        whole, newline, _ = part.rpartition(b"\n")
        self.nccl_offset += len(whole) + len(newline)
        for line in whole.decode("utf-8", "replace").splitlines():
            if any(words in line for words in NETWORK_WORDS):
                self.network_known = self.network_known or "Using network" in line
                self.link.send("network", text=line.strip()[-300:])

    def _look_for_spot_notice(self) -> None:
        notice = spot_notice(str(self.launch.get("metadata", METADATA)))
        if notice:
            self.launch["spot"] = False
            self.link.send("spot", text=notice)
