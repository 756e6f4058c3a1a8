"""Write the cluster of a plan for AWS ParallelCluster."""

from __future__ import annotations

from typing import Any

from kogpt2_gluon.errors import RecipeError
from kogpt2_launch.plan.plan import Plan
from kogpt2_launch.render.common import Files, Site, to_yaml
from kogpt2_launch.render.slurm import slurm


def parallelcluster(plan: Plan, site: Site) -> Files:
    """Returns a cluster (a queue of these instances, EFA, a placement group, FSx for Lustre) and the Slurm script."""
    site.need(
        "parallelcluster",
        region="--region",
        subnet="--subnet",
        key_name="--key-name",
    )
    instance = plan.fabric.instance
    if instance is None:
        raise RecipeError("render --to parallelcluster: make the plan with --instance-type")
    compute: dict[str, Any] = {
        "Name": "gpu",
        "Instances": [{"InstanceType": instance.name}],
        "MinCount": 0,
        "MaxCount": len(plan.hosts),
        "DisableSimultaneousMultithreading": True,
    }
    if instance.efa:
        compute["Efa"] = {"Enabled": True}
    # Retain: checkpoints are not deleted with the cluster.
    lustre: dict[str, Any] = {"StorageCapacity": 1200, "DeploymentType": "SCRATCH_2", "DeletionPolicy": "Retain"}
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
    return {"cluster.yaml": to_yaml(cluster), **slurm(plan, site)}
