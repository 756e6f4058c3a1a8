"""A launch plan: everything that is decided before the first process starts, as text that can be read and compared.

A plan depends on no clock, no random number and no network: the same recipe, hosts and options give the same text (a
plan for this machine alone also has its number of cores). Every environment variable names the source of its value. The
command is a list of arguments; the line that a person may paste is written from it and never read back.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.estimate import Estimate, estimates
from kogpt2_gluon.findings import Finding
from kogpt2_gluon.machine import job
from kogpt2_gluon.recipe import Recipe, load_recipe
from kogpt2_gluon.wording import counted
from kogpt2_launch.hosts import FileSystem, Host, is_alone
from kogpt2_launch.plan.commands import ENGINES, engine_argv, horovodrun_argv, supervisor_argv
from kogpt2_launch.plan.variables import (
    NCCL_DEBUG_FILE,
    USER,
    Fabric,
    Variable,
    nccl_log_by_hand,
    rank_variables,
    worker_variables,
)

FORMAT = "kogpt2-launch-plan-5"
PYTHON, LAUNCH_ID = "PYTHON", "ID"  # placeholders: the interpreter on the hosts, and the number that each attempt draws

# The names that Linux allows for an interface, without the characters that a shell would interpret.
_INTERFACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}")


@dataclass(frozen=True)
class Plan:
    """One run on given hosts. Build it with :func:`make_plan` or read it with ``plan_file.load_plan``."""

    recipe: str  # as the user named it: a path or a shipped recipe's name
    overrides: tuple[str, ...]
    fingerprint: str  # that of the resolved recipe
    run_dir: str  # that of the recipe
    hosts: tuple[Host, ...]
    network_interface: str | None
    env: tuple[Variable, ...]  # sorted by name
    batch_size: int  # sequences of one worker and micro step
    accumulate: int  # micro steps of one update
    seq_length: int  # tokens of one sequence
    fabric: Fabric = Fabric()
    file_system: FileSystem | None = None  # the one that the hosts share
    estimate: tuple[Estimate, ...] = ()  # time and cost on each kind of device

    @property
    def size(self) -> int:
        """Number of workers."""
        return sum(host.slots for host in self.hosts)

    @property
    def stop_file(self) -> Path:
        """The file that ``kogpt2-launch stop`` creates. Workers look for it, and the launcher does between attempts."""
        return job.stop_file(self.run_dir)

    @property
    def total_batch_size(self) -> int:
        return self.batch_size * self.size * self.accumulate

    @property
    def is_local(self) -> bool:
        """Returns True if every worker runs on this machine."""
        return all(host.is_local for host in self.hosts)

    @property
    def is_alone(self) -> bool:
        """Returns True for one worker of localhost, which needs neither engine nor supervisor."""
        return is_alone(self.hosts)

    def findings(self) -> tuple[Finding, ...]:
        """The findings on the user's own variables."""
        return self.fabric.lint({each.name: each.value for each in self.env if each.source == USER})

    def ranks(self) -> list[range]:
        """The ranks of each host: Horovod numbers the slots in the order of the hosts."""
        first, ranks = 0, []
        for host in self.hosts:
            ranks.append(range(first, first + host.slots))
            first += host.slots
        return ranks

    def worker_argv(self) -> list[str]:
        """The command of one worker."""
        return ["kogpt2", "train", self.recipe, *self.overrides]

    def argv(self) -> list[str]:
        """The command that starts all workers by hand; a single local worker needs no horovodrun."""
        if self.is_alone:
            return self.worker_argv()
        return [*horovodrun_argv(self.hosts, self.network_interface), *self.worker_argv()]

    def processes(self) -> dict[str, list[str]]:
        """The command of every process of ``kogpt2-launch run``: engine, each rank's supervisor, worker.

        A single local worker has neither engine nor supervisor.
        """
        if self.is_alone:
            return {"worker": self.worker_argv()}
        supervisor = supervisor_argv(PYTHON, LAUNCH_ID)
        preset = self.fabric.preset
        engines = {each: engine_argv(each, self.hosts, self.network_interface, preset) for each in ENGINES}
        started = {engine: [*argv, *supervisor] for engine, argv in engines.items()}
        return {**started, "supervisor": supervisor, "worker": self.worker_argv()}

    def rank_env(self) -> tuple[Variable, ...]:
        """The variables that ``kogpt2-launch run`` adds to `env` for each rank; none without supervisors."""
        if "supervisor" not in self.processes():
            return ()
        return rank_variables(self.run_dir, any(each.name == "NCCL_DEBUG" for each in self.env))

    def to_dict(self) -> dict[str, Any]:
        """The plan as plain data, with everything that follows from it."""
        return {
            "format": FORMAT,
            "recipe": {"name": self.recipe, "overrides": list(self.overrides), "fingerprint": self.fingerprint},
            "run_dir": self.run_dir,
            "hosts": [
                {"name": host.name, "slots": host.slots, "ranks": list(ranks)}
                for host, ranks in zip(self.hosts, self.ranks())
            ],
            "size": self.size,
            "batch": {
                "batch_size": self.batch_size,
                "accumulate": self.accumulate,
                "total_batch_size": self.total_batch_size,
                "seq_length": self.seq_length,
                "tokens_per_step": self.total_batch_size * self.seq_length,
            },
            "network_interface": self.network_interface,
            "fabric": asdict(self.fabric),
            "file_system": asdict(self.file_system) if self.file_system else None,
            "findings": [
                {"status": each.status, "name": each.what, "text": each.text, "source": each.where}
                for each in self.findings()
            ],
            "env": _plain(self.env),
            "estimate": [asdict(each) for each in self.estimate],
            "rank_env": _plain(self.rank_env()),
            "processes": self.processes(),
            "by_hand": self.argv(),
            "by_hand_env": _plain(self.env_by_hand()),  # in addition to env
        }

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n"

    def describe(self) -> str:
        """The plan for people: a few aligned lines."""
        rows = [("recipe", " ".join([self.recipe, *self.overrides])), ("fingerprint", self.fingerprint[:16])]
        for host, ranks in zip(self.hosts, self.ranks()):
            numbers = f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {ranks[0]}-{ranks[-1]}"
            here = ", this machine" if host.is_local else ""
            rows.append(("host", f"{host.name}: {counted(host.slots, 'slot')}, {numbers}{here}"))
        rows += [
            ("workers", str(self.size)),
            (
                "total batch",
                f"{self.total_batch_size} sequences = batch_size {self.batch_size} x {counted(self.size, 'worker')} "
                f"x accumulate {self.accumulate}",
            ),
            ("tokens", f"{self.total_batch_size * self.seq_length:,} an update (seq_length {self.seq_length})"),
            ("threads", self._describe_threads()),
            ("network", self.network_interface or ("loopback" if self.is_local else "chosen by horovodrun")),
        ]
        rows += [("instance", self._describe_instance())] if self.fabric.instance else []
        if shared := self.file_system:
            rows += [("file system", f"{shared.id}: {shared.dns_name}@tcp:/{shared.mount_name}, {shared.subnet}")]
        rows += [("env", f"{each.name}={each.value}  <- {each.source}") for each in self.env]
        rows += [(each.status, f"{each.what} {each.text} ({each.where})") for each in self.findings()]
        rows += [("rank env", f"{each.name}={each.value}  <- {each.source}") for each in self.rank_env()]
        rows += [(what, json.dumps(argv, ensure_ascii=False)) for what, argv in self.processes().items()]
        settings = [f"{each.name}={each.value}" for each in sorted((*self.env, *self.env_by_hand()), key=_name)]
        rows += [("by hand", shlex.join([*(["env", *settings] if settings else []), *self.argv()]))]
        return "".join(f"{label:<12} {text}\n" for label, text in rows)

    def env_by_hand(self) -> tuple[Variable, ...]:
        """The variables that a start by hand adds to `env`: without supervisors NCCL names its log file itself."""
        if self.fabric.instance is None or any(each.name == NCCL_DEBUG_FILE for each in self.env):
            return ()
        return (nccl_log_by_hand(self.run_dir),)

    def _describe_instance(self) -> str:
        instance = self.fabric.instance
        assert instance is not None
        efa = counted(instance.efa, "EFA interface") if instance.efa else "no EFA"
        direct = ", GPUDirect" if instance.gpudirect else ""
        return f"{instance.name}: {instance.gpus} x {instance.gpu}, {instance.gigabits:g} Gbit/s, {efa}{direct}"

    def _describe_threads(self) -> str:
        for each in self.env:
            if each.name == "OMP_NUM_THREADS":
                return f"{each.value} a worker"
        return "set by each worker: the cores of its host / the slots of its host"


def _name(variable: Variable) -> str:
    return variable.name


def _plain(variables: Sequence[Variable]) -> list[dict[str, str]]:
    return [{"name": each.name, "value": each.value, "source": each.source} for each in variables]


def make_plan(
    recipe: str,
    overrides: Sequence[str],
    hosts: Sequence[Host],
    network_interface: str | None = None,
    env: Mapping[str, str] | None = None,
    fabric: Fabric | None = None,
    file_system: FileSystem | None = None,
) -> Plan:
    """Plans a run of `recipe` on `hosts`. env : the user's own variables.

    Raises RecipeError for a bad recipe, for a total batch that this number of workers cannot share evenly, for more
    workers on a host than its type has GPUs, and for an interface or variable that cannot be used.
    """
    resolved, fabric = load_recipe(recipe, overrides), fabric or Fabric()
    size = sum(host.slots for host in hosts)
    accumulate = resolved.accumulate(size)
    _check_lanes(resolved, size)
    plan = Plan(
        recipe=recipe,
        overrides=tuple(overrides),
        fingerprint=resolved.fingerprint(),
        run_dir=str(resolved.run_dir),
        hosts=tuple(hosts),
        network_interface=network_interface,
        env=worker_variables(resolved, hosts, network_interface, fabric, env or {}),
        batch_size=resolved.training.batch_size,
        accumulate=accumulate,
        seq_length=resolved.data.seq_length,
        fabric=fabric,
        file_system=file_system,
        estimate=estimates(resolved, size),
    )
    check_interface(plan)
    check_gpus(plan)
    return plan


def check_interface(plan: Plan) -> None:
    """RecipeError for a text that cannot name an interface, and for an interface that local workers would not use."""
    interface = plan.network_interface
    if interface is None:
        return
    if not _INTERFACE.fullmatch(interface):
        raise RecipeError(f"--network-interface {interface!r}: not the name of one network interface, such as eth0")
    if all(host.is_loopback for host in plan.hosts):
        raise RecipeError(
            f"--network-interface {interface}: all workers run on this machine and use its loopback; leave it out"
        )


def check_gpus(plan: Plan) -> None:
    """RecipeError for a host with more workers than its instance type has GPUs."""
    instance = plan.fabric.instance
    for host in plan.hosts if instance is not None else ():
        assert instance is not None
        if host.slots > instance.gpus:
            raise RecipeError(
                f"host {host.name}: {host.slots} slots, but {instance.name} has {counted(instance.gpus, 'GPU')}; "
                "each worker needs one"
            )


def batch_divides(recipe: Recipe, size: int) -> bool:
    """Returns True if `size` workers can share the recipe's total batch, and its reading lanes, evenly."""
    training = recipe.training
    return training.total_batch_size % (training.batch_size * size) == 0 and _lanes(recipe) % size == 0


def _lanes(recipe: Recipe) -> int:
    """The reading lanes of this recipe for data without end: batch and max_lanes alone decide, and no data is read."""
    from kogpt2_gluon.reading.order import choose_lanes

    return choose_lanes(1 << 40, recipe.training.total_batch_size, recipe.data.max_lanes)


def _check_lanes(recipe: Recipe, size: int) -> None:
    """RecipeError if `size` workers cannot share the reading lanes of this recipe."""
    lanes = _lanes(recipe)
    if lanes % size:
        raise RecipeError(
            f"{size} workers cannot share the {lanes} reading lanes that total_batch_size="
            f"{recipe.training.total_batch_size} and data.max_lanes={recipe.data.max_lanes} give: "
            "use a number of workers that divides them, or raise either"
        )
