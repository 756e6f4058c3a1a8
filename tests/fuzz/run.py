"""Runs the parsers of this package on hostile files: `python -m tests.fuzz.run` prints a table of what came out.

Each target (tests/fuzz/*_files.py, sets.py) runs in a process of its own, so that a library that crashes ends that
process only. There are two engines. One keeps the inputs that ended in a new way and changes them further. The other
is `atheris`, where it is installed: it keeps those that reached new places of this package's code. By default each
gets half of the executions. Both make new inputs with the target's own mutator, which knows the format.

What is not an error for users counts as a finding: any other exception, a crash, a hang, memory beyond a small limit,
a message that names no file or has control characters.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
MODULES = ("weight_files", "sets", "run_files", "tokenizer_files", "corpus_files", "task_files", "prompt_files")
KEPT = 400  # inputs of the plain engine
SILENT = 180.0  # seconds without an execution after which a process is taken for stuck


def all_targets() -> dict[str, Any]:
    from importlib import import_module

    targets = [target for name in MODULES for target in import_module(f"tests.fuzz.{name}").TARGETS]
    return {target.name: target for target in targets}


class Tally:
    """Counts what came out of a target. It is written to a file now and then, since the process may crash."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.executions, self.outcomes, self.seconds = 0, {}, 0.0  # type: ignore[var-annotated]
        self.findings: dict[str, dict[str, Any]] = {}
        self._start = self._written = time.monotonic()

    def add(self, outcome: Any, data: bytes) -> bool:
        """Counts an outcome; True if none like it came before."""
        self.executions += 1
        new = outcome.shape not in self.outcomes
        self.outcomes[outcome.shape] = self.outcomes.get(outcome.shape, 0) + 1
        if outcome.finding:
            found = self.findings.setdefault(outcome.finding, {"count": 0, "detail": outcome.detail, "size": 1 << 30})
            found["count"] += 1
            if len(data) < found["size"]:
                found.update(size=len(data), input=data.hex() if len(data) < 4096 else "", detail=outcome.detail)
        if new or outcome.finding or time.monotonic() > self._written + 2:
            self.write()
        return new

    def write(self) -> None:
        self._written = time.monotonic()
        self.seconds = self._written - self._start
        plain = {"executions": self.executions, "outcomes": self.outcomes, "findings": self.findings}
        partial = self.path.with_suffix(".new")
        partial.write_text(json.dumps({**plain, "seconds": self.seconds}), encoding="utf-8")
        partial.replace(self.path)


def run_child(arguments: argparse.Namespace) -> None:
    """Runs one target in this process."""
    if arguments.engine == "atheris":
        import atheris

        # Its counters go into the code of this package as that is imported.
        with atheris.instrument_imports(include=["kogpt2_gluon", "kogpt2_launch"], enable_loader_override=False):
            targets = all_targets()
    else:
        targets = all_targets()
    execute_target(targets[arguments.target[0]], Path(arguments.folder), arguments)


def execute_target(target: Any, folder: Path, arguments: argparse.Namespace) -> None:
    """Executes a target in `folder`, where its tally is written."""
    from tests.fuzz.watch import Watch, limits

    tally = Tally(folder / "tally.json")
    for name in ("seeds", "in"):
        (folder / name).mkdir()
    seeds = target.seeds(folder / "seeds")
    watch = Watch(target, folder / "in")
    with limits():
        for seed in seeds:
            tally.add(watch.execute(seed), seed)
        if arguments.engine == "atheris":
            _follow_coverage(target, watch, tally, seeds, arguments)
        else:
            _mutate(target, watch, tally, seeds, arguments)
    tally.write()


def run_together(
    targets: dict[str, Any], dealt: dict[str, int], arguments: argparse.Namespace, folder: Path
) -> list[Any]:
    """Runs the targets one after another in this process, and returns what came out of each."""
    results = []
    for name, arguments.executions in dealt.items():
        (folder / name).mkdir()
        execute_target(targets[name], folder / name, arguments)
        results.append({"target": name, **json.loads((folder / name / "tally.json").read_bytes())})
    return results


def _mutate(target: Any, watch: Any, tally: Tally, seeds: list[bytes], arguments: argparse.Namespace) -> None:
    draw, kept = random.Random(arguments.seed), list(seeds)
    while tally.executions < arguments.executions:
        data = target.mutate(draw, draw.choice(kept if draw.randrange(2) else seeds))
        if tally.add(watch.execute(data), data) and len(kept) < KEPT:
            kept.append(data)


def _follow_coverage(target: Any, watch: Any, tally: Tally, seeds: list[bytes], arguments: argparse.Namespace) -> None:
    import atheris

    corpus = watch.path.parent.parent / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(seeds):
        (corpus / str(number)).write_bytes(seed)

    def execute(data: bytes) -> None:
        tally.add(watch.execute(data), data)
        if tally.executions >= arguments.executions:  # libFuzzer's own end would leave the tally as it last was
            tally.write()
            os._exit(0)

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        draw = random.Random(seed)
        if draw.randrange(4) == 0:
            return bytes(atheris.Mutate(data, most))
        return bytes(target.mutate(draw, data)[:most])

    options = [
        f"-runs={2 * arguments.executions}",
        f"-seed={arguments.seed + 1}",
        "-timeout=600",
        "-rss_limit_mb=0",
        "-max_len=65536",
    ]
    atheris.Setup(
        [sys.argv[0], *options, "-len_control=0", "-print_final_stats=0", str(corpus)], execute, custom_mutator=mutate
    )
    atheris.Fuzz()  # it ends the process


def run_target(name: str, executions: int, arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Runs one target in a process of its own, again after each crash, and returns what came out."""
    total: dict[str, Any] = {"target": name, "executions": 0, "seconds": 0.0, "outcomes": {}, "findings": {}}
    engines = ("plain", "atheris") if arguments.engine == "both" else (arguments.engine,)
    for number, engine in enumerate(engines, start=1):
        _run_with(engine, name, executions * number // len(engines), arguments, folder, total)
    return total


def _run_with(
    engine: str, name: str, executions: int, arguments: argparse.Namespace, folder: Path, total: dict[str, Any]
) -> None:
    """Runs a target with one engine until `total` has that many executions in all."""
    crashes = 0
    while total["executions"] < executions and crashes < arguments.crashes:
        place = folder / f"{name}-{engine}-{crashes}"
        place.mkdir()
        seed = arguments.seed + 1000 * crashes
        command = [sys.executable, "-m", "tests.fuzz.run", "--child", "--folder", str(place), "--target", name]
        command += ["--executions", str(executions - total["executions"]), "--seed", str(seed)]
        command += ["--engine", engine]
        with (place / "log").open("wb") as log:
            code = _wait(command, log, place)
        tally = json.loads((place / "tally.json").read_bytes()) if (place / "tally.json").exists() else {}
        total["executions"] += tally.get("executions", 0)
        total["seconds"] += tally.get("seconds", 0.0)
        for shape, count in tally.get("outcomes", {}).items():
            total["outcomes"][shape] = total["outcomes"].get(shape, 0) + count
        for what, facts in tally.get("findings", {}).items():
            total["findings"].setdefault(what, {**facts, "count": 0})["count"] += facts["count"]
        if code == 0:
            break
        crashes += 1
        last = next((path for path in (place / "in").rglob("*") if path.is_file()), None)
        tail = (place / "log").read_text(encoding="utf-8", errors="replace")[-3000:]
        what = "it got stuck" if code is None else signal.Signals(-code).name if code < 0 else f"exit code {code}"
        total["findings"][f"the process died: {what} ({crashes})"] = {"count": 1, "detail": tail, "last": str(last)}


def _wait(command: list[str], log: Any, place: Path) -> int | None:
    """Waits for a process; None if it was ended because nothing happened for SILENT seconds."""
    process = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT, env=_environment())
    tally, heard, before = place / "tally.json", time.monotonic(), -1.0
    while process.poll() is None:
        time.sleep(0.05)
        now = tally.stat().st_mtime if tally.exists() else -1.0
        if now != before:
            before, heard = now, time.monotonic()
        if time.monotonic() > heard + SILENT:
            process.kill()
            process.wait()
            return None
    return process.returncode


def _environment() -> dict[str, str]:
    one_thread = {"RUST_BACKTRACE": "0"}  # writing one takes memory
    one_thread |= {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")}
    return {**os.environ, **one_thread, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}


def shares(targets: dict[str, Any], names: list[str], executions: int) -> dict[str, int]:
    """Deals the executions out by the targets' shares."""
    whole = sum(targets[name].share for name in names)
    return {name: max(1, executions * targets[name].share // whole) for name in names}


def show(results: list[dict[str, Any]]) -> str:
    rows = [f"| {'target':<24} | {'executions':>10} | {'outcomes':>8} | {'findings':>8} | {'executions/s':>12} |"]
    rows.append(f"|{'-' * 26}|{'-' * 11}:|{'-' * 9}:|{'-' * 9}:|{'-' * 13}:|")
    sums = {"executions": 0, "outcomes": 0, "findings": 0}
    for result in results:
        counts = {"executions": result["executions"], **{key: len(result[key]) for key in ("outcomes", "findings")}}
        sums = {key: sums[key] + counts[key] for key in sums}
        rate = result["executions"] / max(1e-9, result["seconds"])
        numbers = f"{counts['executions']:>10,} | {counts['outcomes']:>8,} | {counts['findings']:>8,}"
        rows.append(f"| {result['target']:<24} | {numbers} | {rate:>12,.0f} |")
    rate = sums["executions"] / max(1e-9, sum(result["seconds"] for result in results))
    numbers = f"{sums['executions']:>10,} | {sums['outcomes']:>8,} | {sums['findings']:>8,}"
    rows.append(f"| {'all':<24} | {numbers} | {rate:>12,.0f} |")
    findings = [(each["target"], what, facts) for each in results for what, facts in each["findings"].items()]
    found = [f"{target}: {what} ({facts['count']}x)" for target, what, facts in findings]
    return "\n".join([*rows, "", *found])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", action="append", help="only this one; may be given several times")
    parser.add_argument("--executions", type=int, default=1_000_000, help="over all targets")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engine", choices=("auto", "both", "atheris", "plain"), default="auto")
    parser.add_argument("--crashes", type=int, default=5, help="a target that ended its process so often is given up")
    parser.add_argument("--json", type=Path, help="also write the results there, with each finding's smallest input")
    parser.add_argument("--together", action="store_true", help="all targets in one process: quicker for a short run")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help="where inputs are written; best in memory, such as /dev/shm")
    arguments = parser.parse_args()
    if arguments.child:
        run_child(arguments)
        return 0
    if arguments.engine == "auto":
        from importlib.util import find_spec

        arguments.engine = "both" if find_spec("atheris") else "plain"
    targets = all_targets()
    dealt = shares(targets, arguments.target or list(targets), arguments.executions)
    base = arguments.folder or (Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else Path(tempfile.gettempdir()))
    folder = Path(tempfile.mkdtemp(prefix="kogpt2-fuzz-", dir=base))
    try:
        results = run_together(targets, dealt, arguments, folder) if arguments.together else []
        for name, count in dealt.items() if not arguments.together else ():
            results.append(run_target(name, count, arguments, folder))
            print(f"{name}: {results[-1]['executions']:,} executions", file=sys.stderr, flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(show(results))
    if arguments.json:
        plain = {"engine": arguments.engine, "seed": arguments.seed, "targets": results}
        arguments.json.write_text(json.dumps(plain, indent=1), encoding="utf-8")
    return 1 if any(result["findings"] for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
