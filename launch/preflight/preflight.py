"""Ask every host of a plan for its facts, in parallel, and check them before anything is started."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kogpt2_gluon.findings import FAIL, STATUSES, Finding
from kogpt2_gluon.recipe import Recipe, load_recipe
from kogpt2_gluon.shards.folders import MANIFEST
from kogpt2_launch.hosts import Host
from kogpt2_launch.plan.plan import Plan
from kogpt2_launch.preflight.checks import ALL, CHECKS, HostFacts
from kogpt2_launch.ssh import Shell

PROBE = Path(__file__).with_name("probe.py")
PACKAGES = (
    *("kogpt2-gluon", "mxnet", "mxnet-cu112", "gluonnlp", "horovod", "sentencepiece", "numpy"),
    *("nvidia-nccl-cu11", "nvidia-cudnn-cu11", "nvidia-cublas-cu11"),
)
ANSWER_SECONDS = 90.0


def preflight(plan: Plan, shell: Shell, seconds: float = ANSWER_SECONDS) -> tuple[Finding, ...]:
    """Returns all findings, check by check; a host that does not answer has a single one."""
    recipe = load_recipe(plan.recipe, plan.overrides)
    source = PROBE.read_text(encoding="utf-8")
    wanted = {host.name: _wanted(plan, recipe, shell, number) for number, host in enumerate(plan.hosts)}

    def program(host: Host) -> str:
        # A JSON text inside a Python string: whatever it holds is data.
        return f"{source}\n\nmain(json.loads({json.dumps(wanted[host.name])!r}))\n"

    answers = shell.run_on_all(plan.hosts, program, seconds)
    findings: list[Finding] = []
    heard: list[HostFacts] = []
    for answer in answers:
        facts, problem = answer.said()
        if problem:
            fix = f"ssh {answer.host} true; see --python for its interpreter, 3.9 or later"
            findings.append(Finding(FAIL, "answer", answer.host, problem, fix))
        else:
            heard.append(HostFacts(answer.host, facts, answer.sent, answer.received))
    for check in CHECKS if heard else ():
        try:
            findings.extend(check(plan, recipe, heard))
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            text = f"an answer is not understood ({type(error).__name__}: {error})"
            findings.append(Finding(FAIL, check.__name__, ALL, text, "kogpt2-launch preflight --json, and report it"))
    return tuple(findings)


def to_json(findings: Sequence[Finding]) -> str:
    """A JSON list of objects with the keys check, host, status, text and fix."""
    plain = [
        {"check": each.what, "host": each.where, "status": each.status, "text": each.text, "fix": each.fix}
        for each in findings
    ]
    return json.dumps(plain, indent=1, ensure_ascii=False)


def to_table(findings: Sequence[Finding]) -> str:
    """A line for each finding, with equal ones of many hosts as one; failures come last, where people see them."""
    groups: dict[tuple[str, str, str, str], list[str]] = {}
    for each in findings:
        groups.setdefault((each.status, each.what, each.text, each.fix), []).append(each.where)
    lines = []
    for (status, check, text, fix), hosts in sorted(groups.items(), key=lambda item: STATUSES.index(item[0][0])):
        where = hosts[0] if len(hosts) == 1 else f"{hosts[0]} and {len(hosts) - 1} more"
        lines.append(f"{status}  {check:<20} {where:<24} {text}")
        if fix:
            lines.append(f"{'':<6}{'':<20} {'':<24} -> {fix}")
    counts = [f"{sum(each.status == status for each in findings)} {status}" for status in STATUSES]
    return "\n".join([*lines, ", ".join(counts)])


def _wanted(plan: Plan, recipe: Recipe, shell: Shell, number: int) -> dict[str, Any]:
    """The input of the probe on host `number`."""
    peers: list[str] = []
    if len(plan.hosts) > 1:
        # A ring, and each host with the first: these are all the ways that an engine takes, without testing all pairs.
        peers = sorted(
            {plan.hosts[(number + 1) % len(plan.hosts)].name, plan.hosts[0].name} - {plan.hosts[number].name}
        )
    shards = [*recipe.data.train_sets, *([recipe.data.test] if recipe.data.test else [])]
    return {
        "packages": list(PACKAGES),
        "folders": [str(recipe.run_dir)],
        "manifests": [f"{folder}/{MANIFEST}" for folder in shards if not str(folder).startswith("s3://")],
        "peers": peers,
        "ssh_port": shell.port,
    }
