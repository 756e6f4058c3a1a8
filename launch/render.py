"""A plan as files for a scheduler: Slurm, Kubeflow's MPIJob, AWS Batch (multi-node), AWS ParallelCluster.

All of them end in the same two commands on the first host, ``kogpt2-launch plan`` with the hosts that the scheduler
gave, and ``kogpt2-launch run``; so supervisor, restarts and exit codes are the same everywhere. What comes from the
plan stands in YAML, JSON or quoted shell words, never inside of a script's text.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass, replace
from typing import Any, Callable, Dict, List, Optional

import yaml

from kogpt2_gluon.errors import PreemptedError, RecipeError

from .plan import Plan
from .variables import USER

Files = Dict[str, str]
PREEMPTED = PreemptedError.exit_code
SAVE_SECONDS = 180  # between a scheduler's SIGTERM and its SIGKILL
WORKER_GIB = 12  # of a host's memory, for a worker and what it reads ahead; the smallest types have 16 a GPU


@dataclass(frozen=True)
class Site:
    """What a plan does not know of the place where it will run; each target says which of these it wants."""

    image: Optional[str] = None  # of containers
    folder: str = "/fsx"  # where the shared file system is mounted, and the working folder
    claim: str = "fsx"  # PersistentVolumeClaim of it
    region: Optional[str] = None
    subnet: Optional[str] = None  # of the compute nodes
    head_subnet: Optional[str] = None  # of the head node, where another
    key_name: Optional[str] = None
    file_system: Optional[str] = None  # fs-..., of FSx for Lustre
    time_limit: str = "7-00:00:00"

    def need(self, target: str, **options: str) -> None:
        """RecipeError that names the options which `target` wants and nobody gave."""
        missing = [option for name, option in options.items() if getattr(self, name) is None]
        if missing:
            raise RecipeError(f"render --to {target}: give {', '.join(missing)}")


def render(plan: Plan, target: str, site: Site) -> Files:
    """The files of a target by name; RecipeError for hosts that are not alike, which no scheduler's job has."""
    slots = {host.slots for host in plan.hosts}
    if len(slots) > 1:
        raise RecipeError(f"render --to {target}: hosts with {sorted(slots)} slots; a scheduler's nodes are alike")
    return TARGETS[target](plan, site)


def _need_interface(plan: Plan, target: str) -> None:
    """RecipeError for several hosts without one: what mpirun starts cannot look for it."""
    if plan.network_interface is None and len(plan.hosts) > 1:
        raise RecipeError(f"render --to {target}: make the plan with --network-interface, as it is there (often eth0)")


def plan_arguments(plan: Plan) -> List[str]:
    """The arguments of ``kogpt2-launch plan`` that make this plan again, its hosts left out."""
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


# Shell for `{wait}` of the scripts: a launcher in the background gets the scheduler's SIGTERM, and $code is its exit
# code. bash would run no trap before a command in the foreground ends; `wait` ends at once, so it is asked again, and
# still knows the code of a launcher that has ended meanwhile.
WAIT = """\
launcher=$!
asked=yes
trap 'asked=yes; kill -TERM "$launcher" 2>/dev/null || true' TERM
while [ "$asked" ]; do
    asked= code=0
    wait "$launcher" || code=$?
done"""


# ---- Slurm ----------------------------------------------------------------------------------------------------------

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
    """A batch script; the allocation's own hosts take the place of the plan's."""
    slots = plan.hosts[0].slots
    if len(plan.hosts) == 1:  # in the job it is the machine of the launcher itself, where an interface is refused
        plan = replace(plan, network_interface=None)
    gpus = f"#SBATCH --gpus-per-node={slots}\n" if plan.fabric.instance is not None else ""
    script = SBATCH.format(
        name=_job_name(plan),
        nodes=len(plan.hosts),
        slots=slots,
        gpus=gpus,
        time_limit=site.time_limit,
        save_seconds=SAVE_SECONDS,
        preempted=PREEMPTED,
        wait=WAIT,
        arguments=" ".join(map(shlex.quote, plan_arguments(plan))),
        stop_file=shlex.quote(f"{plan.run_dir}/stop"),
    )
    return {"job.sbatch": script}


# ---- Kubeflow -------------------------------------------------------------------------------------------------------

# The arguments of plan come as "$@", so nothing of theirs is read by the shell.
MPIJOB_SCRIPT = (
    'kogpt2-launch plan "$@" --hostfile /etc/mpi/hostfile --out /tmp/plan.json '
    "&& exec kogpt2-launch run /tmp/plan.json --backend mpirun --stopped-is-done"
)


def mpijob(plan: Plan, site: Site) -> Files:
    """An MPIJob (kubeflow.org/v2beta1): a launcher without GPUs, and a pod for each host."""
    site.need("mpijob", image="--image")
    _need_interface(plan, "mpijob")
    instance, slots = plan.fabric.instance, plan.hosts[0].slots
    limits: Dict[str, Any] = {}
    requests: Dict[str, Any] = {}
    if instance is not None:
        limits["nvidia.com/gpu"] = slots
        if instance.efa:
            limits.update({"vpc.amazonaws.com/efa": instance.efa, "hugepages-2Mi": "5120Mi"})
            # Kubernetes refuses a pod with huge pages that asks for neither CPUs nor memory.
            requests["memory"] = f"{slots * WORKER_GIB}Gi"
    mounts = [{"name": "shared", "mountPath": site.folder}, {"name": "memory", "mountPath": "/dev/shm"}]
    volumes = [
        {"name": "shared", "persistentVolumeClaim": {"claimName": site.claim}},
        {"name": "memory", "emptyDir": {"medium": "Memory"}},
    ]
    container = {"image": site.image, "workingDir": site.folder, "volumeMounts": mounts}
    worker = {
        **container,
        "name": "worker",
        "command": ["/usr/sbin/sshd", "-De"],
        "securityContext": {"capabilities": {"add": ["IPC_LOCK"]}},  # EFA pins memory
        **({"resources": {"limits": limits, "requests": {**limits, **requests}}} if limits else {}),
    }
    launcher = {
        **container,
        "name": "launcher",
        "command": ["/bin/sh", "-c", MPIJOB_SCRIPT, "plan", *plan_arguments(plan)],
    }
    selector = {"nodeSelector": {"node.kubernetes.io/instance-type": instance.name}} if instance else {}
    job = {
        "apiVersion": "kubeflow.org/v2beta1",
        "kind": "MPIJob",
        "metadata": {"name": _job_name(plan)},
        "spec": {
            "slotsPerWorker": slots,
            "mpiImplementation": "OpenMPI",
            "sshAuthMountPath": "/root/.ssh",
            "launcherCreationPolicy": "WaitForWorkersReady",
            "runPolicy": {"cleanPodPolicy": "Running", "backoffLimit": 3},
            "mpiReplicaSpecs": {
                "Launcher": {
                    "replicas": 1,
                    "restartPolicy": "OnFailure",
                    "template": {
                        "spec": {
                            "containers": [launcher],
                            "volumes": volumes,
                            "terminationGracePeriodSeconds": SAVE_SECONDS,
                        }
                    },
                },
                "Worker": {
                    "replicas": len(plan.hosts),
                    "restartPolicy": "OnFailure",
                    "template": {
                        "spec": {
                            "containers": [worker],
                            "volumes": volumes,
                            "terminationGracePeriodSeconds": SAVE_SECONDS,
                            **selector,
                        }
                    },
                },
            },
        },
    }
    return {"mpijob.yaml": _yaml(job)}


# ---- AWS Batch ------------------------------------------------------------------------------------------------------

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
"$(command -v sshd)"  # by its whole path, as it wants
hostname -I | awk '{print $1}' > "$meeting/.node-$AWS_BATCH_JOB_NODE_INDEX"
mv "$meeting/.node-$AWS_BATCH_JOB_NODE_INDEX" "$meeting/node-$AWS_BATCH_JOB_NODE_INDEX"
if [ "$AWS_BATCH_JOB_NODE_INDEX" != "$AWS_BATCH_JOB_MAIN_NODE_INDEX" ]; then
    while [ ! -e "$meeting/over" ]; do sleep 5; done
    exit 0
fi
for ((node = 0; node < AWS_BATCH_JOB_NUM_NODES; node++)); do
    for ((waited = 0; ; waited++)); do
        if [ -e "$meeting/node-$node" ]; then break; fi
        if [ -e "$meeting/over" ] || [ "$waited" -ge 1800 ]; then echo "node $node has not come" >&2; exit 1; fi
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
    _need_interface(plan, "batch")
    instance, slots = plan.fabric.instance, plan.hosts[0].slots
    resources = [{"type": "VCPU", "value": str(slots * 4)}, {"type": "MEMORY", "value": str(slots * WORKER_GIB * 1024)}]
    linux: Dict[str, Any] = {"sharedMemorySize": 8192}
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
        "jobDefinitionName": _job_name(plan),
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


# ---- ParallelCluster ------------------------------------------------------------------------------------------------


def parallelcluster(plan: Plan, site: Site) -> Files:
    """A cluster with a queue of these instances, EFA and a placement group, FSx for Lustre, and the Slurm script."""
    site.need(
        "parallelcluster",
        region="--region",
        subnet="--subnet",
        key_name="--key-name",
    )
    instance = plan.fabric.instance
    if instance is None:
        raise RecipeError("render --to parallelcluster: make the plan with --instance-type")
    compute: Dict[str, Any] = {
        "Name": "gpu",
        "Instances": [{"InstanceType": instance.name}],
        "MinCount": 0,
        "MaxCount": len(plan.hosts),
        "DisableSimultaneousMultithreading": True,
    }
    if instance.efa:
        compute["Efa"] = {"Enabled": True}
    # Retain: checkpoints are not deleted with the cluster.
    lustre: Dict[str, Any] = {"StorageCapacity": 1200, "DeploymentType": "SCRATCH_2", "DeletionPolicy": "Retain"}
    file_system = site.file_system or (plan.file_system.id if plan.file_system else None)
    if file_system is not None:
        lustre = {"FileSystemId": file_system}
    cluster = {
        "Region": site.region,
        "Image": {"Os": "ubuntu2204"},
        "HeadNode": {
            "InstanceType": "m5.xlarge",
            "Networking": {"SubnetId": site.head_subnet or site.subnet},
            "Ssh": {"KeyName": site.key_name},
        },
        "Scheduling": {
            "Scheduler": "slurm",
            "SlurmQueues": [
                {
                    "Name": "train",
                    "ComputeResources": [compute],
                    "Networking": {"SubnetIds": [site.subnet], "PlacementGroup": {"Enabled": True}},
                }
            ],
        },
        "SharedStorage": [
            {"Name": "fsx", "StorageType": "FsxLustre", "MountDir": site.folder, "FsxLustreSettings": lustre}
        ],
    }
    return {"cluster.yaml": _yaml(cluster), **slurm(plan, site)}


TARGETS: Dict[str, Callable[[Plan, Site], Files]] = {
    "slurm": slurm,
    "mpijob": mpijob,
    "batch": batch,
    "parallelcluster": parallelcluster,
}


def _job_name(plan: Plan) -> str:
    """The recipe's name as schedulers admit it: letters, digits and hyphens, a letter first, no hyphen last."""
    stem = plan.recipe.rpartition("/")[2].rpartition(".")[0] or plan.recipe.rpartition("/")[2]
    kept = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in stem.lower()).strip("-")
    return (kept if kept[:1].isalpha() else f"kogpt2-{kept}")[:40].rstrip("-")


def _yaml(data: Dict[str, Any]) -> str:
    # Through JSON, so that what stands in two places is written out in both.
    return yaml.safe_dump(json.loads(json.dumps(data)), sort_keys=False, default_flow_style=False, width=110)
