"""Write a plan as a batch script of Slurm."""

from __future__ import annotations

import shlex
from dataclasses import replace

from kogpt2_launch.plan.plan import Plan
from kogpt2_launch.render.common import PREEMPTED, SAVE_SECONDS, WAIT, Files, Site, job_name, plan_arguments

SBATCH = """\
#!/bin/bash
#SBATCH --job-name={name}
#SBATCH --nodes={nodes}
#SBATCH --ntasks-per-node={slots}
{gpus}#SBATCH --exclusive
#SBATCH --time={time_limit}
#SBATCH --requeue
#SBATCH --signal=B:TERM@{save_seconds}
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
# Submit it from the folder that all nodes share: sbatch job.sbatch
# Before the time limit, or when the job is preempted, the workers save; after exit code {preempted} it queues again.
set -euo pipefail
plan=plan-$SLURM_JOB_ID.json
kogpt2-launch plan {arguments} \\
    --slurm --out "$plan"
kogpt2-launch run "$plan" --backend horovodrun &
{wait}
if [ "$code" -eq {preempted} ] && [ ! -e {stop_file} ]; then scontrol requeue "$SLURM_JOB_ID"; fi
exit "$code"
"""


def slurm(plan: Plan, site: Site) -> Files:
    """Returns a batch script; it uses the hosts of its allocation instead of the plan's."""
    slots = plan.hosts[0].slots
    if len(plan.hosts) == 1:  # the launcher's own machine: there is no network to name
        plan = replace(plan, network_interface=None)
    gpus = f"#SBATCH --gpus-per-node={slots}\n" if plan.fabric.instance is not None else ""
    script = SBATCH.format(
        name=job_name(plan),
        nodes=len(plan.hosts),
        slots=slots,
        gpus=gpus,
        time_limit=site.time_limit,
        save_seconds=SAVE_SECONDS,
        preempted=PREEMPTED,
        wait=WAIT,
        arguments=" ".join(map(shlex.quote, plan_arguments(plan))),
        stop_file=shlex.quote(str(plan.stop_file)),
    )
    return {"job.sbatch": script}
