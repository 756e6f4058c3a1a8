"""Shared code of the speed benchmarks: contestants in processes of their own, rounds, and the conditions of a run."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from conditions import conditions

HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}  # malloc asks for transparent huge pages
ISA_FLAGS = ("avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16")
PACKAGES = ("mxnet", "mxnet-cu112", "gluonnlp", "horovod", "torch", "transformers", "onednn-cpu-gomp")
PREFIX = re.compile(r"^\[\d+\]<std(out|err)>:")  # what horovodrun puts before a worker's line
TIMEOUT = 1800  # seconds of one contestant in one round

Result = dict[str, Any]


class ContestantError(Exception):
    """A contestant ended without a result; the message is the end of what it said."""


@dataclass(frozen=True)
class Contestant:
    """A command that prints one JSON object on its last line that begins with a brace."""

    name: str
    command: Sequence[object]
    variables: Mapping[str, str] = field(default_factory=dict)

    def run(self, **variables: str) -> Result:
        """Starts a new process and returns what it measured. Raises ContestantError if it fails."""
        result: Result = json.loads(self.output(**variables)[-1])
        return result

    def start(self, **variables: str) -> subprocess.Popen[str]:
        """Starts a new process whose input and output are open; its errors go where ours go."""
        environment = {**os.environ, **one_limit(), **self.variables, **variables}
        command = [str(part) for part in self.command]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, errors="replace", env=environment)

    def output(self, **variables: str) -> list[str]:
        """Returns the lines it wrote, the result last: a C library may write without Python knowing, and later."""
        command = [str(part) for part in self.command]
        environment = {**os.environ, **one_limit(), **self.variables, **variables}
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=TIMEOUT, env=environment, errors="replace"
        )
        lines = [PREFIX.sub("", line) for line in done.stdout.splitlines()]
        results = [line for line in lines if line.startswith("{")]
        if done.returncode or not results:
            raise ContestantError(f"exit code {done.returncode}: {last_words(done.stderr or done.stdout)}")
        return [line for line in lines if line not in results] + results[-1:]


def hand_over(result: Result | None) -> None:
    """For a contestant: prints what it measured; of several workers, only one has a result."""
    if result:
        print(json.dumps(result))


# Taking turns: a machine that others use changes its speed within seconds, so contestants that take turns step by step,
# all of them alive, are compared more fairly than those that run one after the other.

TURNS = "KOGPT2_BENCHMARK_TURNS"  # set for a contestant that takes turns
READY = "ready for a turn"


def wait_for_turn() -> None:
    """For a contestant: returns when its next step may begin, at once if it does not take turns."""
    if os.environ.get(TURNS):
        announce(READY, to=sys.stdout)
        sys.stdin.readline()


class Clock:
    """For a contestant: the seconds of each of its turns, from where a turn begins to where the next is asked for."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._began: float | None = None

    def next_turn(self) -> None:
        """Ends the turn, if there is one, and returns when the next may begin."""
        self.end()
        wait_for_turn()
        self._began = time.perf_counter()

    def end(self) -> None:
        if self._began is not None:
            self.seconds.append(time.perf_counter() - self._began)
        self._began = None


class Turns:
    """Contestants that are started one after another, and then make their steps in turn.

    A contestant starts when the one before it is ready: while it starts, ours measures kernels, compile compiles.
    """

    def __init__(self, contestants: Sequence[Contestant]):
        self._contestants = contestants
        self._processes: dict[str, subprocess.Popen] = {}
        self._results: dict[str, Result] = {}

    def run(self) -> dict[str, Result]:
        """Returns the results. Raises ContestantError if a contestant ends without one."""
        try:
            for contestant in self._contestants:
                self._processes[contestant.name] = contestant.start(**{TURNS: "1"})
                self._until_ready(contestant.name)
            while len(self._results) < len(self._processes):
                for name, process in self._processes.items():
                    if name not in self._results:
                        with suppress(BrokenPipeError):  # it has ended, and the next line finds that
                            process.stdin.write("\n")
                            process.stdin.flush()
                        self._until_ready(name)
            return self._results
        finally:
            for process in self._processes.values():
                process.kill()
                process.communicate()

    def _until_ready(self, name: str) -> None:
        """Reads what a contestant writes until it waits for its turn or has its result."""
        process = self._processes[name]
        for line in process.stdout:
            if line.strip() == READY:
                return
            if line.startswith("{"):
                self._results[name] = json.loads(line)
                return
        raise ContestantError(f"{name}: exit code {process.wait()}; its words are above")


def last_words(text: str) -> str:
    """Returns the end of a process's output; if horovodrun passed on its workers' output, the end of theirs."""
    lines = [line for line in text.splitlines() if PREFIX.sub("", line).strip()]
    of_workers = [PREFIX.sub("", line) for line in lines if PREFIX.match(line)]
    return "\n".join((of_workers or lines)[-12:]) or "nothing was said"


def one_limit() -> dict[str, str]:
    """ONEDNN_MAX_CPU_ISA under its older name too: MXNet 1.9.1 carries oneDNN 2.4, which knows only that one."""
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA")
    return {"DNNL_MAX_CPU_ISA": limit} if limit else {}


def run_rounds(
    contestants: Sequence[Contestant], rounds: int, needed: Sequence[str], show: Sequence[str], in_turns: bool = False
) -> list[dict[str, Result]]:
    """Runs every contestant in turn, `rounds` times; returns {name: result} of each round.

    The figures `show` go to stderr at once. A contestant that fails is reported and left out of all rounds. Raises
    ContestantError if it is `needed`. With `in_turns`, all contestants of a round are alive, make their steps in
    turn, and are needed.
    """
    out: dict[str, str] = {}
    results: list[dict[str, Result]] = []
    for number in range(1, rounds + 1):
        if in_turns:
            load = os.getloadavg()[0]
            taken = Turns(contestants).run()
            results.append({name: {**taken[name], "load": load, "in_turns": True} for name in taken})
            for name, result in results[-1].items():
                shown = "  ".join(f"{key} {result[key]:,.1f}" for key in show)
                announce(f"round {number} of {rounds}  {name:<14} {shown}")
            continue
        this: dict[str, Result] = {}
        for contestant in contestants:
            name = contestant.name
            if name in out:
                continue
            load = os.getloadavg()[0]
            try:
                this[name] = {**contestant.run(), "load": round(load, 2)}
            except ContestantError as error:
                if name in needed:
                    raise ContestantError(f"{name}: {error}") from None
                out[name] = str(error)
                announce(f"round {number} of {rounds}  {name:<14} left out: {error}")
                continue
            shown = "  ".join(f"{key} {this[name][key]:,.1f}" for key in show)
            announce(f"round {number} of {rounds}  {name:<14} {shown}  load {load:.2f}")
        results.append(this)
    return [{name: result for name, result in this.items() if name not in out} for this in results]


def announce(text: str, to: Any = None) -> None:
    print(text, file=to or sys.stderr, flush=True)


def figures(rounds: Sequence[Mapping[str, Result]], name: str, key: str) -> list[float]:
    """Returns one contestant's figure in each round."""
    return [round_[name][key] for round_ in rounds]


def ratio(rounds: Sequence[Mapping[str, Result]], ours: str, theirs: str, key: str) -> float | None:
    """The median over the rounds of ours / theirs; None where either did not run.

    Of contestants that took turns, a round's ratio of speeds is the median of those of its steps.
    """
    if not rounds or not all(ours in round_ and theirs in round_ for round_ in rounds):
        return None
    return statistics.median(_ratio_of_round(round_[ours], round_[theirs], key) for round_ in rounds)


def _ratio_of_round(ours: Result, theirs: Result, key: str) -> float:
    if key == "tokens_per_second" and ours.get("in_turns"):
        return statistics.median(their / our for their, our in zip(theirs["step_seconds"], ours["step_seconds"]))
    return float(ours[key] / theirs[key])


def peak_memory_mb() -> float:
    """The most memory that this process has held since it was started, in MiB (VmHWM)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def speed_conditions(threads: int) -> dict[str, Any]:
    """Returns what figures of speed depend on. If the machine is busy before anything has run, it announces that."""
    if os.getloadavg()[0] > 0.5 * threads:
        announce(f"the load is {os.getloadavg()[0]:.1f} already: threads that wait for a core make figures worthless")
    words = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    pages = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    return {
        **conditions(),
        "threads": threads,
        "isa_flags": [flag for flag in ISA_FLAGS if flag in words],
        "onednn_max_cpu_isa": os.environ.get("ONEDNN_MAX_CPU_ISA"),
        "kogpt2_ops_isa": os.environ.get("KOGPT2_OPS_ISA"),
        "transparent_huge_pages": pages.read_text().strip() if pages.exists() else None,
        "malloc": os.environ.get("GLIBC_TUNABLES") or os.environ.get("LD_PRELOAD") or "as glibc has it",
        "libc": " ".join(platform.libc_ver()),
        "versions": {name: version for name in PACKAGES if (version := installed(name))},
    }


def installed(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def product_kernels(contestant: Contestant) -> list[str]:
    """The oneDNN kernels that multiplied matrices in a run of `contestant`, by its own report; none seen: [].

    What a library does not do through oneDNN (PyTorch's float32 goes to MKL) is not in it.
    """
    kernels = set()
    for line in contestant.output(ONEDNN_VERBOSE="1", DNNL_VERBOSE="1"):
        parts = line.split(",")
        if parts[0] not in ("onednn_verbose", "dnnl_verbose") or "exec" not in parts:
            continue
        kind, kernel = parts[parts.index("cpu") + 1 :][:2] if "cpu" in parts else ("", "")
        if kind in ("matmul", "inner_product", "gemm_api"):
            kernels.add(kernel)
    return sorted(kernels)


def names_of(known: Collection[str], text: str) -> list[str]:
    """Splits `hf,stock`, the value of an option; raises argparse's error for a name that is not a known one."""
    names = [name for name in text.split(",") if name]
    if unknown := [name for name in names if name not in known]:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not one of {', '.join(known)}")
    return names
