"""The environment variables of a plan's workers, each with the source of its value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.findings import FAIL, Finding
from kogpt2_gluon.machine import job
from kogpt2_gluon.recipe import Recipe
from kogpt2_gluon.wording import counted
from kogpt2_launch.hosts import Host, available_cores, is_alone
from kogpt2_launch.plan.environment import INTERFACE_VARIABLES, LIBRARY_PATH, check_variable, join_library_paths
from kogpt2_launch.plan.fabric import (
    PRESETS,
    InstanceType,
    Version,
    common_settings,
    fabric_settings,
    instance_type,
    parse_version,
)
from kogpt2_launch.plan.lint import lint

USER, INTERFACE = "user: --env", "horovodrun: --network-interface"
NCCL_DEBUG_FILE = "NCCL_DEBUG_FILE"
NO_PLUGIN = "none"  # instead of a version


@dataclass(frozen=True)
class Variable:
    """An environment variable of every worker, and the source of its value."""

    name: str
    value: str
    source: str


@dataclass(frozen=True)
class Fabric:
    """The facts about the hosts, as far as they are known: an EC2 type, versions as text, and a preset's name.

    A plugin_version of ``none`` means a host of that type without EFA: NCCL uses sockets there, and that is all right.
    """

    instance_type: str | None = None
    plugin_version: str | None = None
    libfabric_version: str | None = None
    preset: str | None = None

    def __post_init__(self) -> None:
        """RecipeError for a name that is not in the tables, or a text that is not a version."""
        if self.preset is not None and self.preset not in PRESETS:
            raise RecipeError(f"--preset {self.preset}: not one of {', '.join(PRESETS)}")
        versions = (self.plugin_version, self.libfabric)
        _ = self.plugin  # raises if it is not a version
        if self.instance is None and versions != (None, None):
            raise RecipeError("--plugin-version and --libfabric-version go with --instance-type")

    @property
    def instance(self) -> InstanceType | None:
        if self.instance_type is None:
            return None
        instance = instance_type(self.instance_type)
        return replace(instance, efa=0, gpudirect=False) if self.plugin_version == NO_PLUGIN else instance

    @property
    def has_efa(self) -> bool:
        return self.instance is not None and self.instance.has_efa

    @property
    def plugin(self) -> Version | None:
        if self.plugin_version in (None, NO_PLUGIN):
            return None
        return parse_version(str(self.plugin_version), "--plugin-version")

    @property
    def libfabric(self) -> Version | None:
        if self.libfabric_version is None:
            return None
        return parse_version(self.libfabric_version, "--libfabric-version")

    def settings(self) -> dict[str, Variable]:
        """The variables of the tables, with those of the preset on top."""
        found: dict[str, Variable] = {}
        if self.instance is not None:
            tables = (*common_settings(self.instance), *fabric_settings(self.instance, self.plugin, self.libfabric))
            found = {each.name: Variable(each.name, each.value, each.source) for each in tables}
        for name, value in PRESETS[self.preset].items() if self.preset is not None else ():
            found[name] = Variable(name, value, f"preset: {self.preset}")
        return found

    def lint(self, variables: Mapping[str, str]) -> tuple[Finding, ...]:
        """The findings on these variables for this network."""
        preset = PRESETS[self.preset] if self.preset is not None else None
        return lint(variables, self.instance, preset)


def worker_variables(
    recipe: Recipe, hosts: Sequence[Host], interface: str | None, fabric: Fabric, user: Mapping[str, str]
) -> tuple[Variable, ...]:
    """All variables of the workers, by name: tables, then preset, then ours, then the user's on top.

    RecipeError for a variable of the user's that a plan must not hold, or that would corrupt data.
    """
    chosen = fabric.settings()
    if fabric.instance is not None and is_alone(hosts):
        chosen[NCCL_DEBUG_FILE] = nccl_log_by_hand(str(recipe.run_dir))  # a worker alone has no supervisor
    for name in INTERFACE_VARIABLES if interface else ():
        chosen[name] = Variable(name, str(interface), INTERFACE)
    # Without OMP_NUM_THREADS MXNet computes on one CPU thread, and it reads the variable when it is imported. Several
    # hosts may differ in cores while all workers get the same variables, so there each worker sets its own.
    if recipe.training.threads:
        threads, source = recipe.training.threads, "recipe: training.threads"
        chosen["OMP_NUM_THREADS"] = Variable("OMP_NUM_THREADS", str(threads), source)
    elif len(hosts) == 1 and hosts[0].is_local:
        cores, slots = available_cores(), hosts[0].slots
        source = f"default: {counted(cores, 'core')} / {counted(slots, 'slot')}"
        chosen["OMP_NUM_THREADS"] = Variable("OMP_NUM_THREADS", str(max(1, cores // slots)), source)
    for name, value in user.items():
        check_variable(name, value)
        if name == NCCL_DEBUG_FILE and not is_alone(hosts):
            raise RecipeError(
                f"--env {name}: kogpt2-launch run sets it for every rank, to a file next to the rank's log; "
                "leave it out"
            )
        if name == LIBRARY_PATH and name in chosen:
            value = join_library_paths(value, chosen[name].value)
        chosen[name] = Variable(name, value, USER)
    for finding in fabric.lint(user):
        if finding.status == FAIL:
            raise RecipeError(f"--env {finding.what}={user[finding.what]}: {finding.text} ({finding.where})")
    return tuple(chosen[name] for name in sorted(chosen))


def nccl_log_by_hand(run_dir: str) -> Variable:
    """NCCL's log of workers without a supervisor. %h and %p are NCCL's own: host and process number."""
    return Variable(NCCL_DEBUG_FILE, f"{run_dir}/nccl.%h.%p.log", "recipe: tracking.run_dir")


def rank_variables(run_dir: str, with_nccl: bool) -> tuple[Variable, ...]:
    """The variables that the supervisor of a rank (launch/host) adds. Capitals are placeholders for later values."""
    found = {
        "HOROVOD_*": ("(the rank's place, and the rendezvous)", "run: the engine's, or the order of the hosts"),
        job.LAUNCH_ID: ("ID", "run: one for each attempt; processes that are left are found by it"),
        job.LAUNCH_RANK: ("RANK", "run: the supervisor's own"),
        job.PROGRESS_FILE: ("(in the launch's folder)", "run: how far the worker is"),
    }
    if with_nccl:
        log = f"{run_dir}/launch/attempt-NN/rank-RANK.nccl.log"
        found[NCCL_DEBUG_FILE] = (log, "run: next to the rank's own log, and read there")
    return tuple(Variable(name, *found[name]) for name in sorted(found))
