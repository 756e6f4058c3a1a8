"""Write a plan as files for a scheduler: Slurm, Kubeflow's MPIJob, AWS Batch (multi-node), AWS ParallelCluster.

All of them run the same two commands on the first host: ``kogpt2-launch plan`` with the scheduler's hosts, and
``kogpt2-launch run``. So supervisors, restarts and exit codes are the same everywhere. Values of the plan go into YAML,
JSON or quoted shell words, never into the text of a script.
"""

from __future__ import annotations

from collections.abc import Callable

from kogpt2_gluon.errors import RecipeError
from kogpt2_launch.plan.plan import Plan
from kogpt2_launch.render.batch import batch
from kogpt2_launch.render.common import Files, Site, plan_arguments
from kogpt2_launch.render.mpijob import mpijob
from kogpt2_launch.render.parallelcluster import parallelcluster
from kogpt2_launch.render.slurm import slurm

__all__ = ["Files", "Site", "plan_arguments", "render"]

TARGETS: dict[str, Callable[[Plan, Site], Files]] = {
    "slurm": slurm,
    "mpijob": mpijob,
    "batch": batch,
    "parallelcluster": parallelcluster,
}


def render(plan: Plan, target: str, site: Site) -> Files:
    """The files of a target, by name; RecipeError if the hosts have different slots."""
    slots = {host.slots for host in plan.hosts}
    if len(slots) > 1:
        raise RecipeError(
            f"render --to {target}: the plan's hosts have different slots ({', '.join(map(str, sorted(slots)))}); "
            "a scheduler's job needs the same number on every node"
        )
    return TARGETS[target](plan, site)
