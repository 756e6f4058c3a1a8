"""Measure how long planning and preflight of many hosts take.

    python benchmarks/many_hosts.py [--hosts 512] [--rounds 3] [--json]

A fake `ssh`, first on the PATH, reads its input and answers after 100 ms with the facts of this machine. The two
commands run as a user types them, each in a process of its own. Exit code 1 if both together take 10 s or more.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
from conditions import conditions

LAUNCH = [sys.executable, "-m", "kogpt2_launch"]
ALLOWED = 10.0  # seconds


@click.command()
@click.option("--hosts", default=512, show_default=True)
@click.option("--rounds", default=3, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(hosts: int, rounds: int, as_json: bool) -> None:
    """Time both commands and print the medians."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plan, env = folder / "plan.json", {**os.environ, "PATH": f"{fake_ssh(folder)}:{os.environ['PATH']}"}
        named = ",".join(f"10.{i // 62500}.{i // 250 % 250}.{i % 250 + 1}:8" for i in range(hosts))
        batch = [f"training.total_batch_size={8 * hosts}", f"data.max_lanes={8 * hosts}", "data.train=", "data.test="]
        batch += ["evaluation.stop_improvement=0", f"tracking.run_dir={folder / 'run'}", "training.batch_size=1"]
        where = ["--hosts", named, "--network-interface", "eth0", "--out", str(plan)]
        times: dict[str, list[float]] = {"plan": [], "preflight": []}
        for _ in range(rounds):
            times["plan"].append(timed([*LAUNCH, "plan", "kogpt2_base", *batch, *where], env, folder, {0}))
            # Exit code 1: this machine does not fit a plan of GPU nodes. Every host has answered all the same.
            times["preflight"].append(timed([*LAUNCH, "preflight", str(plan), "--json"], env, folder, {0, 1}))
        findings = json.loads((folder / "out").read_text(encoding="utf-8"))
    answered = len({each["host"] for each in findings if each["check"] == "clock"})
    medians = {verb: statistics.median(seconds) for verb, seconds in times.items()}
    total = sum(medians.values())
    if as_json:
        click.echo(json.dumps({"hosts": hosts, "answered": answered, **medians, "total": total, **conditions()}))
    else:
        click.echo(f"{hosts} hosts, {answered} answered: plan {medians['plan']:.2f} s, preflight", nl=False)
        click.echo(f" {medians['preflight']:.2f} s")
    sys.exit(0 if total < ALLOWED and answered == hosts else 1)


def fake_ssh(folder: Path) -> Path:
    """Makes a folder with an `ssh` that answers with this machine's facts and the present time."""
    from kogpt2_launch.hosts import Host
    from kogpt2_launch.preflight.preflight import PROBE
    from kogpt2_launch.ssh import Shell

    wanted = {"packages": [], "folders": [str(folder / "run")], "manifests": [], "peers": [], "ssh_port": None}
    probe = f"{PROBE.read_text(encoding='utf-8')}\n\nmain({wanted!r})\n"
    answer = Shell(sys.executable).run(Host("localhost", 1), probe)
    facts = {**json.loads(answer.output.splitlines()[-1]), "time": "NOW"}
    (folder / "facts").write_text(json.dumps(facts), encoding="utf-8")
    program = folder / "bin" / "ssh"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ncat > /dev/null\nsleep 0.1\nsed s/.NOW./$(date +%s.%N)/ {folder}/facts\n")
    program.chmod(0o755)
    return program.parent


def timed(argv: list[str], env: dict[str, str], folder: Path, codes: set[int]) -> float:
    """Runs a command with its output in a file; returns the seconds that it took."""
    began = time.perf_counter()
    with (folder / "out").open("wb") as out:
        done = subprocess.run(argv, env=env, stdout=out, stderr=subprocess.PIPE, check=False)
    if done.returncode not in codes:
        raise click.ClickException(f"{' '.join(argv[:4])}: exit code {done.returncode}: {done.stderr.decode()[-500:]}")
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
