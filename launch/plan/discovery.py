"""Find hosts: EC2 instances by tag, placement group or Auto Scaling group, Slurm's allocation; and FSx file systems.

With the addresses come the facts that EC2 has (type, EFA interfaces, subnet), so that a plan is made for what is really
there. Hosts are sorted by address: the same instances give the same plan.
"""

from __future__ import annotations

import ipaddress
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.wording import counted
from kogpt2_launch.hosts import FileSystem, Host
from kogpt2_launch.plan.fabric import instance_type

NO_BOTO3 = "asking EC2 needs boto3: pip install 'kogpt2-gluon[aws]'"


@dataclass(frozen=True)
class Instance:
    """A running EC2 instance. efa : the EFA interfaces attached to it, at most as many as its type allows."""

    id: str
    address: str
    type: str
    zone: str
    subnet: str
    placement_group: str
    efa: int


@dataclass(frozen=True)
class Discovered:
    """Hosts, their EC2 type if they have one, and notes for the user, one line each."""

    hosts: tuple[Host, ...]
    instance_type: str | None = None
    notes: tuple[str, ...] = ()


def from_ec2(tag: str | None = None, placement_group: str | None = None, client: Any = None) -> Discovered:
    """Finds the running instances with a tag ``KEY=VALUE``, in a placement group, or both.

    Raises RecipeError if there are none or if they cannot be workers of one run, DataError if EC2 does not answer.
    """
    filters = [{"Name": "instance-state-name", "Values": ["running"]}]
    asked = []
    if tag is not None:
        key, equals, value = tag.partition("=")
        if not key or not equals:
            raise RecipeError(f"--ec2-tag {tag!r}: write KEY=VALUE")
        filters.append({"Name": f"tag:{key}", "Values": [value]})
        asked.append(f"tag {tag}")
    if placement_group is not None:
        filters.append({"Name": "placement-group-name", "Values": [placement_group]})
        asked.append(f"placement group {placement_group}")
    assert asked
    with explained("EC2"):
        instances = _describe(client or make_client("ec2"), Filters=filters)
    return _discovered(instances, " and ".join(asked))


def from_auto_scaling_group(name: str, autoscaling: Any = None, ec2: Any = None) -> Discovered:
    """Finds the instances of an Auto Scaling group that are in service. Raises the errors of :func:`from_ec2`."""
    with explained("EC2 Auto Scaling"):
        pages = (autoscaling or make_client("autoscaling")).get_paginator("describe_auto_scaling_groups")
        groups = [group for page in pages.paginate(AutoScalingGroupNames=[name]) for group in page["AutoScalingGroups"]]
        if not groups:
            raise RecipeError(f"--asg {name}: no Auto Scaling group of that name in this region")
        members = groups[0]["Instances"]
        ready = sorted(each["InstanceId"] for each in members if each["LifecycleState"] == "InService")
        instances = _describe(ec2 or make_client("ec2"), InstanceIds=ready) if ready else []
    found = _discovered(instances, f"Auto Scaling group {name}")
    waiting = len(members) - len(ready)
    notes = (f"{waiting} of {len(members)} instances of {name} are not in service and are left out",) if waiting else ()
    return Discovered(found.hosts, found.instance_type, (*found.notes, *notes))


def from_slurm(environment: Mapping[str, str]) -> Discovered:
    """Finds the nodes of the Slurm allocation of this process, with a slot for each GPU, or else for each task.

    What the job asked for counts before what it got: ``--exclusive`` gives a job all GPUs of its nodes.
    """
    nodes = environment.get("SLURM_JOB_NODELIST")
    if not nodes:
        raise RecipeError("--slurm: SLURM_JOB_NODELIST is not set; run this inside sbatch or salloc")
    names = _expand(nodes)
    slots = _slurm_slots(environment, len(names))
    return Discovered(tuple(Host(name, each) for name, each in zip(names, slots)))


def _expand(nodes: str) -> list[str]:
    """The names in a node list such as ``node[1-4]``; DataError with scontrol's own words if it cannot tell them."""
    what = f"--slurm: scontrol show hostnames {nodes}"
    try:
        done = subprocess.run(
            ["scontrol", "show", "hostnames", nodes],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=60,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise DataError(f"{what}: no answer within {error.timeout:g} s") from None
    except OSError as error:
        raise DataError(f"{what}: {error.strerror}") from None
    names = done.stdout.split()
    if done.returncode or not names:
        said = " ".join(f"{done.stderr} {done.stdout}".split())[:300]
        raise DataError(f"{what}: exit code {done.returncode}: {said or 'it said nothing'}")
    return names


def _slurm_slots(environment: Mapping[str, str], nodes: int) -> list[int]:
    """The slots of each node; RecipeError if Slurm's variables do not say, or cannot be read."""
    # Without --ntasks, SLURM_TASKS_PER_NODE counts the cores of nodes that a job has for itself: it asked for no tasks.
    tasks = ("SLURM_TASKS_PER_NODE",) if "SLURM_NTASKS" in environment else ()
    for name in ("SLURM_GPUS_PER_NODE", "SLURM_NTASKS_PER_NODE", *tasks, "SLURM_GPUS_ON_NODE"):
        text = environment.get(name, "")
        if not text:
            continue
        slots = _per_node(text, nodes) if name in tasks else [_count(text)] * nodes
        if len(slots) != nodes or min(slots) < 1:
            raise RecipeError(
                f"--slurm: {name}={text} does not say how many workers each of {counted(nodes, 'node')} gets; allocate "
                "with --gpus-per-node=N or --ntasks-per-node=N"
            )
        return slots
    raise RecipeError(
        "--slurm: none of SLURM_GPUS_PER_NODE, SLURM_NTASKS_PER_NODE and SLURM_GPUS_ON_NODE says how many workers a "
        "node gets; allocate with --gpus-per-node=N or --ntasks-per-node=N"
    )


def _count(text: str) -> int:
    """The sum of ``8``, ``a100:8``, ``gpu:a100:8(S:0-1)`` or several of these; 0 if it is none of them."""
    items = [re.fullmatch(r"(?:[A-Za-z][\w.-]*:)*([0-9]{1,4})(?:\([A-Z]+:[^)]*\))?", each) for each in text.split(",")]
    return sum(int(item[1]) for item in items if item) if all(items) else 0


def _per_node(text: str, nodes: int) -> list[int]:
    """The counts of ``2(x2),4``: two nodes with 2, one with 4; none if it is not such a list, or one of more nodes."""
    counts: list[int] = []
    for item in text.split(","):
        found = re.fullmatch(r"([0-9]{1,4})(?:\(x([0-9]{1,6})\))?", item.strip())
        if not found or len(counts) + int(found[2] or 1) > nodes:
            return []
        counts += [int(found[1])] * int(found[2] or 1)
    return counts


def file_system(name: str, client: Any = None) -> FileSystem:
    """Finds the FSx for Lustre ``fs-...``; RecipeError if it cannot be used, else the errors of :func:`from_ec2`."""
    if not re.fullmatch(r"fs-[0-9a-f]{8,40}", name):
        raise RecipeError(f"--file-system {name!r}: write the id of an FSx for Lustre, fs-...")
    with explained("FSx"):
        client = client or make_client("fsx")
        try:
            (found,) = client.describe_file_systems(FileSystemIds=[name])["FileSystems"]
        except (client.exceptions.FileSystemNotFound, ValueError):
            raise RecipeError(
                f"--file-system {name}: no such file system in this region; check AWS_REGION and AWS_PROFILE"
            ) from None
    kind, state = found["FileSystemType"], found.get("Lifecycle", "AVAILABLE")
    if kind != "LUSTRE":
        raise RecipeError(f"--file-system {name}: of type {kind}, not LUSTRE")
    if state not in ("AVAILABLE", "UPDATING"):
        raise RecipeError(f"--file-system {name}: {state}, not AVAILABLE")
    # All file systems of the oldest kind (SCRATCH_1) have the mount name "fsx", and FSx may leave it out.
    mount_name = found.get("LustreConfiguration", {}).get("MountName", "fsx")
    return FileSystem(name, found["DNSName"], mount_name, found["SubnetIds"][0])


# ---- EC2 ------------------------------------------------------------------------------------------------------------


def make_client(service: str) -> Any:
    """Makes a boto3 client for the region and account that the environment names."""
    import boto3

    return boto3.session.Session().client(service)


def _describe(client: Any, **arguments: Any) -> list[Instance]:
    """Asks EC2 for instances, page by page; returns those that are running."""
    pages = client.get_paginator("describe_instances").paginate(**arguments)
    described = [each for page in pages for group in page["Reservations"] for each in group["Instances"]]
    return [_instance(each) for each in described if each["State"]["Name"] == "running"]


def _instance(described: dict[str, Any]) -> Instance:
    placement, interfaces = described["Placement"], described.get("NetworkInterfaces", [])
    return Instance(
        id=described["InstanceId"],
        address=described["PrivateIpAddress"],
        type=described["InstanceType"],
        zone=placement.get("AvailabilityZone", ""),
        subnet=described.get("SubnetId", ""),
        placement_group=placement.get("GroupName", ""),
        efa=sum(each.get("InterfaceType", "").startswith("efa") for each in interfaces),
    )


def _discovered(instances: Sequence[Instance], asked: str) -> Discovered:
    if not instances:
        raise RecipeError(f"{asked}: no running instance in this region; check the name, AWS_REGION and AWS_PROFILE")
    types = sorted({each.type for each in instances})
    if len(types) > 1:
        raise RecipeError(f"{asked}: instances of {', '.join(types)}; the workers of a run must be of one type")
    kind = instance_type(types[0])
    ordered = sorted(instances, key=lambda each: ipaddress.ip_address(each.address))
    notes = []
    lacking = [each.id for each in ordered if each.efa < kind.efa]
    if lacking:
        notes.append(
            f"{len(lacking)} of {len(ordered)} instances have fewer EFA interfaces than the {kind.efa} that "
            f"{kind.name} can have, {lacking[0]} first: launch them with all of them"
        )
    for what, values in (
        ("availability zones", {each.zone for each in ordered}),
        ("subnets", {each.subnet for each in ordered}),
    ):
        if len(values) > 1:
            notes.append(f"the instances are in {len(values)} {what} ({', '.join(sorted(values))}): EFA needs one")
    groups = {each.placement_group for each in ordered}
    if kind.efa and len(ordered) > 1 and (len(groups) > 1 or "" in groups):
        notes.append("the instances are not all in one placement group: one of kind cluster brings them close together")
    return Discovered(tuple(Host(each.address, kind.gpus) for each in ordered), kind.name, tuple(notes))


@contextmanager
def explained(service: str) -> Iterator[None]:
    """Turns an error of AWS into one line with the way out."""
    try:
        import botocore.exceptions as errors
    except ImportError:
        raise RecipeError(NO_BOTO3) from None
    try:
        yield
    except (errors.NoCredentialsError, errors.PartialCredentialsError, errors.CredentialRetrievalError):
        raise RecipeError(f"{service}: no AWS credentials; set AWS_PROFILE or use an instance role") from None
    except errors.NoRegionError:
        raise RecipeError(f"{service}: no region is set; set AWS_DEFAULT_REGION") from None
    except errors.ProfileNotFound as error:
        raise RecipeError(f"{service}: {error}; check AWS_PROFILE") from None
    except (errors.ClientError, errors.BotoCoreError) as error:
        raise DataError(f"{service}: {' '.join(str(error).split())[:300]}") from None
