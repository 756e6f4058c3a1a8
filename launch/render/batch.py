"""Write a plan as a multi-node job of AWS Batch."""

from __future__ import annotations

import json
from typing import Any

from kogpt2_launch.plan.plan import Plan
from kogpt2_launch.render.common import (
    PREEMPTED,
    WAIT,
    WORKER_GIB,
    Files,
    Site,
    job_name,
    need_interface,
    plan_arguments,
)

BATCH_ENTRY = """\
#!/bin/bash
# What every node of the multi-node job runs, in the shared folder: batch-entry.sh SLOTS PLAN-ARGUMENTS...
# Nodes find each other through files there; the image has sshd, and one key for all in /root/.ssh.
set -euo pipefail
slots=$1
shift
meeting=.batch-${AWS_BATCH_JOB_ID%%#*}-${AWS_BATCH_JOB_ATTEMPT:-1}
mkdir -p "$meeting"
trap 'touch "$meeting/over"' EXIT
mkdir -p /run/sshd
"$(command -v sshd)"  # sshd refuses to start without its full path
hostname -I | awk '{print $1}' > "$meeting/.node-$AWS_BATCH_JOB_NODE_INDEX"
mv "$meeting/.node-$AWS_BATCH_JOB_NODE_INDEX" "$meeting/node-$AWS_BATCH_JOB_NODE_INDEX"
if [ "$AWS_BATCH_JOB_NODE_INDEX" != "$AWS_BATCH_JOB_MAIN_NODE_INDEX" ]; then
    while [ ! -e "$meeting/over" ]; do sleep 5; done
    exit 0
fi
for ((node = 0; node < AWS_BATCH_JOB_NUM_NODES; node++)); do
    for ((waited = 0; ; waited++)); do
        if [ -e "$meeting/node-$node" ]; then break; fi
        if [ -e "$meeting/over" ] || [ "$waited" -ge 1800 ]; then echo "node $node did not start" >&2; exit 1; fi
        sleep 1
    done
    echo "$(cat "$meeting/node-$node") slots=$slots"
done > "$meeting/hostfile"
kogpt2-launch plan "$@" --hostfile "$meeting/hostfile" --out "$meeting/plan.json"
kogpt2-launch run "$meeting/plan.json" --backend mpirun --stopped-is-done &
{wait}
exit "$code"
""".replace("{wait}", WAIT)


def batch(plan: Plan, site: Site) -> Files:
    """The input of ``aws batch register-job-definition --cli-input-json`` and the script that its nodes run."""
    site.need("batch", image="--image")
    need_interface(plan, "batch")
    instance, slots = plan.fabric.instance, plan.hosts[0].slots
    resources = [{"type": "VCPU", "value": str(slots * 4)}, {"type": "MEMORY", "value": str(slots * WORKER_GIB * 1024)}]
    linux: dict[str, Any] = {"sharedMemorySize": 8192}
    if instance is not None:
        resources.append({"type": "GPU", "value": str(slots)})
        devices = [f"/dev/infiniband/uverbs{number}" for number in range(instance.efa)]
        linux["devices"] = [{"hostPath": device, "containerPath": device} for device in devices]
    container = {
        "image": site.image,
        "command": ["bash", f"{site.folder}/batch-entry.sh", str(slots), *plan_arguments(plan)],
        "resourceRequirements": resources,
        "linuxParameters": linux,
        "ulimits": [{"name": "memlock", "hardLimit": -1, "softLimit": -1}],
        "volumes": [{"name": "shared", "host": {"sourcePath": site.folder}}],
        "mountPoints": [{"sourceVolume": "shared", "containerPath": site.folder, "readOnly": False}],
        **({"instanceType": instance.name} if instance is not None else {}),
    }
    nodes = len(plan.hosts)
    definition = {
        "jobDefinitionName": job_name(plan),
        "type": "multinode",
        "retryStrategy": {
            "attempts": 5,
            "evaluateOnExit": [
                {"onExitCode": str(PREEMPTED), "action": "RETRY"},
                {"onStatusReason": "Host EC2*", "action": "RETRY"},
                {"onReason": "*", "action": "EXIT"},
            ],
        },
        "nodeProperties": {
            "numNodes": nodes,
            "mainNode": 0,
            "nodeRangeProperties": [{"targetNodes": f"0:{nodes - 1}", "container": container}],
        },
    }
    return {"job-definition.json": json.dumps(definition, indent=2) + "\n", "batch-entry.sh": BATCH_ENTRY}
