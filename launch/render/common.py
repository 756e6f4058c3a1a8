"""Parts that the files of all schedulers share: the site, the plan's arguments, the job's name, the wait in shell."""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from kogpt2_gluon.errors import PreemptedError, RecipeError
from kogpt2_gluon.recipe import Recipe, load_recipe
from kogpt2_launch.plan.plan import Plan
from kogpt2_launch.plan.variables import USER

Files = dict[str, str]  # texts by file name
PREEMPTED = PreemptedError.exit_code
SAVE_SECONDS = 180  # between a scheduler's SIGTERM and its SIGKILL
WORKER_GIB = 12  # memory of a host for each worker and what it reads ahead; the smallest types have 16 for each GPU

# Shell for `{wait}` of the scripts: a launcher in the background gets the scheduler's SIGTERM, and $code is its exit
# code. bash runs no trap until a command in the foreground ends. `wait`, however, ends at once, so it is called again;
# it still knows the code of a launcher that has ended meanwhile.
WAIT = """\
launcher=$!
asked=yes
trap 'asked=yes; kill -TERM "$launcher" 2>/dev/null || true' TERM
while [ "$asked" ]; do
    asked= code=0
    wait "$launcher" || code=$?
done"""


# What --time of sbatch takes: a number of minutes, MM:SS, HH:MM:SS, D-HH, D-HH:MM, D-HH:MM:SS, or no limit.
_SLURM_TIME = re.compile(
    r"[0-9]{1,8}|[0-9]{1,8}:[0-9]{1,2}(:[0-9]{1,2})?|[0-9]{1,5}-[0-9]{1,2}(:[0-9]{1,2}){0,2}|unlimited|infinite",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Site:
    """Facts about the place of a run that are not in its plan; each target names those that it needs."""

    image: str | None = None  # of containers
    folder: str = "/fsx"  # where the shared file system is mounted, and the working folder
    claim: str = "fsx"  # PersistentVolumeClaim of it
    region: str | None = None
    subnet: str | None = None  # of the compute nodes
    head_subnet: str | None = None  # of the head node, where another
    key_name: str | None = None
    file_system: str | None = None  # fs-..., of FSx for Lustre
    time_limit: str = "7-00:00:00"

    def __post_init__(self) -> None:
        if not _SLURM_TIME.fullmatch(self.time_limit):
            raise RecipeError(
                f"--time-limit {self.time_limit!r}: Slurm takes MINUTES, HOURS:MINUTES:SECONDS, DAYS-HOURS or "
                "DAYS-HOURS:MINUTES:SECONDS, such as 1-00:00:00 for a day, or UNLIMITED"
            )
        if not self.folder.startswith("/"):
            raise RecipeError(f"--folder {self.folder!r}: give the whole path of the mount point, such as /fsx")

    def need(self, target: str, **options: str) -> None:
        """RecipeError that names the options which `target` needs and nobody gave."""
        missing = [option for name, option in options.items() if getattr(self, name) is None]
        if missing:
            raise RecipeError(f"render --to {target}: give {', '.join(missing)}")


def need_interface(plan: Plan, target: str) -> None:
    """RecipeError for several hosts without an interface: mpirun, unlike horovodrun, does not look for one."""
    if plan.network_interface is None and len(plan.hosts) > 1:
        raise RecipeError(
            f"render --to {target}: make the plan with --network-interface, the name on the nodes (often eth0)"
        )


def plan_arguments(plan: Plan) -> list[str]:
    """The arguments of ``kogpt2-launch plan`` that make this plan again, without its hosts."""
    arguments = [plan.recipe, *plan.overrides]
    options = {
        "--network-interface": plan.network_interface,
        "--instance-type": plan.fabric.instance_type,
        "--plugin-version": plan.fabric.plugin_version,
        "--libfabric-version": plan.fabric.libfabric_version,
        "--preset": plan.fabric.preset,
    }
    for name, value in options.items():
        arguments += [name, value] if value is not None else []
    for each in plan.env:
        arguments += ["--env", f"{each.name}={each.value}"] if each.source == USER else []
    return arguments


def job_name(plan: Plan) -> str:
    """The recipe's name in a form for schedulers: letters, digits and hyphens, a letter first, no hyphen last.

    A recipe without a name, or one that is not on this machine, has that of its file.
    """
    name = Path(plan.recipe).stem
    with contextlib.suppress(RecipeError):
        recipe = load_recipe(plan.recipe, plan.overrides)
        if recipe.name != Recipe().name or any(each.partition("=")[0] == "name" for each in plan.overrides):
            name = recipe.name
    kept = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in name.lower()).strip("-")
    return (kept if kept[:1].isalpha() else f"kogpt2-{kept}")[:40].rstrip("-")


def to_yaml(data: dict[str, Any]) -> str:
    """Writes data as YAML. It goes through JSON, so that YAML repeats equal parts instead of making aliases."""
    return yaml.safe_dump(json.loads(json.dumps(data)), sort_keys=False, default_flow_style=False, width=110)
