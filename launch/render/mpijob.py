"""Write a plan as an MPIJob of Kubeflow's operator."""

from __future__ import annotations

from typing import Any

from kogpt2_launch.plan.plan import Plan
from kogpt2_launch.render.common import (
    SAVE_SECONDS,
    WORKER_GIB,
    Files,
    Site,
    job_name,
    need_interface,
    plan_arguments,
    to_yaml,
)

# The arguments of plan come as "$@", so the shell does not interpret them.
MPIJOB_SCRIPT = (
    'kogpt2-launch plan "$@" --hostfile /etc/mpi/hostfile --out /tmp/plan.json '
    "&& exec kogpt2-launch run /tmp/plan.json --backend mpirun --stopped-is-done"
)


def mpijob(plan: Plan, site: Site) -> Files:
    """Returns an MPIJob (kubeflow.org/v2beta1): a launcher without GPUs, and a pod for each host."""
    site.need("mpijob", image="--image")
    need_interface(plan, "mpijob")
    instance, slots = plan.fabric.instance, plan.hosts[0].slots
    limits: dict[str, Any] = {}
    requests: dict[str, Any] = {}
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
        "metadata": {"name": job_name(plan)},
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
    return {"mpijob.yaml": to_yaml(job)}
