"""A plan as files for a scheduler: Slurm, Kubeflow's MPIJob, AWS Batch (multi-node), AWS ParallelCluster.

All of them end in the same two commands on the first host, ``kogpt2-launch plan`` with the hosts that the scheduler
gave, and ``kogpt2-launch run``; so supervisor, restarts and exit codes are the same everywhere. What comes from the
plan stands in YAML, JSON or quoted shell words, never inside of a script's text.
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
    """The files of a target by name; RecipeError for hosts that are not alike, which no scheduler's job has."""
    slots = {host.slots for host in plan.hosts}
    if len(slots) > 1:
        raise RecipeError(f"render --to {target}: hosts with {sorted(slots)} slots; a scheduler's nodes are alike")
    return TARGETS[target](plan, site)
