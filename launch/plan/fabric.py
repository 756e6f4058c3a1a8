"""The variables that each instance type needs to use its own network: tables, each row with its source.

Collective operations on EC2 go NCCL -> the plugin aws-ofi-nccl -> libfabric -> EFA. The environment variables that this
takes depend on the instance type and on the versions of the last three. If one is missing, NCCL falls back to sockets
without an error. Some of these variables corrupt data on the wrong machine. Nothing here asks a host: the user gives
the facts, or discovery finds them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.machine.cuda import GPU_MAJORS

Version = tuple[int, ...]

EC2 = "EC2 DescribeInstanceTypes"
PLUGIN_CHEATSHEET = "aws-ofi-nccl, doc/efa-env-var.md"
G5_CHEATSHEET = "awsome-distributed-training pull request 406; NVIDIA/nccl issues 922 and 1298"


@dataclass(frozen=True)
class InstanceType:
    """The GPUs and the network of an EC2 instance type.

    Attributes
    ----------
    gpu, gpus, capability : str, int, int
        The model and number of the GPUs, and their compute capability times 10.
    gigabits : float
        Network bandwidth in Gbit/s, the sum of all cards.
    efa : int
        The largest number of EFA interfaces; 0 if the type has none.
    gpudirect : bool
        True if EFA reads and writes GPU memory directly.
    """

    name: str
    gpu: str
    gpus: int
    capability: int
    gigabits: float
    efa: int
    gpudirect: bool
    source: str

    @property
    def has_efa(self) -> bool:
        return self.efa > 0

    @property
    def runs_mxnet(self) -> bool:
        """Returns True if mxnet-cu112 has machine code that these GPUs can run."""
        return self.capability // 10 in GPU_MAJORS


def _type(
    name: str, gpu: str, gpus: int, capability: int, gigabits: float, efa: int = 0, gpudirect: bool = False
) -> InstanceType:
    return InstanceType(name, gpu, gpus, capability, gigabits, efa, gpudirect, EC2)


INSTANCE_TYPES: dict[str, InstanceType] = {
    each.name: each
    for each in (
        _type("p3.2xlarge", "V100", 1, 70, 10),
        _type("p3.8xlarge", "V100", 4, 70, 10),
        _type("p3.16xlarge", "V100", 8, 70, 25),
        _type("p3dn.24xlarge", "V100", 8, 70, 100, efa=1),
        _type("g4dn.xlarge", "T4", 1, 75, 25),
        _type("g4dn.2xlarge", "T4", 1, 75, 25),
        _type("g4dn.4xlarge", "T4", 1, 75, 25),
        _type("g4dn.8xlarge", "T4", 1, 75, 50, efa=1),
        _type("g4dn.12xlarge", "T4", 4, 75, 50, efa=1),
        _type("g4dn.16xlarge", "T4", 1, 75, 50, efa=1),
        _type("g4dn.metal", "T4", 8, 75, 100, efa=1),
        _type("g5.xlarge", "A10G", 1, 86, 10),
        _type("g5.2xlarge", "A10G", 1, 86, 10),
        _type("g5.4xlarge", "A10G", 1, 86, 25),
        _type("g5.8xlarge", "A10G", 1, 86, 25, efa=1),
        _type("g5.12xlarge", "A10G", 4, 86, 40, efa=1),
        _type("g5.16xlarge", "A10G", 1, 86, 25, efa=1),
        _type("g5.24xlarge", "A10G", 4, 86, 50, efa=1),
        _type("g5.48xlarge", "A10G", 8, 86, 100, efa=1),
        _type("p4d.24xlarge", "A100", 8, 80, 400, efa=4, gpudirect=True),
        _type("p4de.24xlarge", "A100", 8, 80, 400, efa=4, gpudirect=True),
        _type("p5.48xlarge", "H100", 8, 90, 3200, efa=32, gpudirect=True),
    )
}


@dataclass(frozen=True)
class Setting:
    """An environment variable that a rule requires. source : the rule, and the document that it is from."""

    name: str
    value: str
    source: str


def instance_type(name: str) -> InstanceType:
    """Looks up a type; RecipeError if it is not in the table, or if MXNet cannot use its GPUs."""
    if name not in INSTANCE_TYPES:
        raise RecipeError(f"--instance-type {name}: not in the table; it has {', '.join(INSTANCE_TYPES)}")
    found = INSTANCE_TYPES[name]
    if not found.runs_mxnet:
        raise RecipeError(
            f"--instance-type {name}: mxnet-cu112 has no machine code for {found.gpu} (sm_{found.capability}; it has "
            f"sm_{GPU_MAJORS[0]}x to sm_{GPU_MAJORS[-1]}x and no PTX): train on V100, T4, A100 or A10G and take the "
            "checkpoint to PyTorch with kogpt2 convert"
        )
    return found


def parse_version(text: str, option: str) -> Version:
    """Reads ``1.7.4`` as (1, 7, 4), without a leading v or a suffix such as -aws or amzn1.0; RecipeError otherwise."""
    found = re.fullmatch(r"v?(\d+(?:\.\d+){1,3})(?:[-.]?[a-z][a-z0-9.]*)?", text)
    if not found:
        raise RecipeError(f"{option} {text!r}: not a version; write it as 1.7.4")
    return tuple(int(part) for part in found.group(1).split("."))


GENERATIONS = {"1.5": "up to 1.5", "1.6": "1.6, or later with a libfabric before 1.18", "1.7": "1.7 or later"}


def plugin_generation(plugin: Version, libfabric: Version) -> str:
    """The column of the plugin's own table that applies: '1.5' (and before), '1.6', or '1.7' (and later).

    With a libfabric before 1.18, a plugin of 1.7 or later behaves like 1.6 (doc/efa-env-var.md).
    """
    if plugin < (1, 6):
        return "1.5"
    return "1.7" if plugin >= (1, 7) and libfabric >= (1, 18) else "1.6"


def fabric_settings(
    instance: InstanceType, plugin: Version | None = None, libfabric: Version | None = None
) -> tuple[Setting, ...]:
    """The variables that this type's network needs with these versions.

    RecipeError if the type has EFA and a version is missing, because the versions decide what is needed.
    """
    settings = []
    if instance.efa:
        for version, option in ((plugin, "--plugin-version"), (libfabric, "--libfabric-version")):
            if version is None:
                raise RecipeError(
                    f"{instance.name} has EFA, whose variables depend on versions: give {option} as well, "
                    "or --plugin-version none for hosts without EFA"
                )
        assert plugin is not None and libfabric is not None
        generation = plugin_generation(plugin, libfabric)
        source = f"{instance.name}, aws-ofi-nccl {GENERATIONS[generation]}: {PLUGIN_CHEATSHEET}"
        if generation == "1.5":  # from 1.6 on the plugin sets these two itself
            settings.append(Setting("FI_PROVIDER", "efa", source))
            # Without it NCCL may take LL or LL128, which need ordered 128-byte stores that EFA does not promise.
            settings.append(Setting("NCCL_PROTO", "simple", source))
        if instance.gpudirect and generation in ("1.5", "1.6"):
            settings.append(Setting("FI_EFA_USE_DEVICE_RDMA", "1", source))
    if instance.gpus > 1 and instance.name.partition(".")[0] in ("g4dn", "g5"):
        # There is neither NVLink nor peer access: the GPUs of a host exchange data through its memory, with any plugin.
        settings.append(Setting("NCCL_SHM_USE_CUDA_MEMCPY", "1", f"{instance.name}: {G5_CHEATSHEET}"))
    return tuple(settings)


# The EFA installer and the Deep Learning AMIs put libfabric, Open MPI and the plugin here; the loader ignores folders
# that do not exist. Source: EFA user guide, "Get started with EFA and NCCL".
EFA_LIBRARIES = (
    *("/opt/amazon/efa/lib", "/opt/amazon/efa/lib64", "/opt/amazon/openmpi/lib", "/opt/amazon/openmpi/lib64"),
    *("/opt/aws-ofi-nccl/lib", "/opt/amazon/ofi-nccl/lib"),
    *("/opt/amazon/ofi-nccl/lib/x86_64-linux-gnu", "/opt/amazon/ofi-nccl/lib64"),
)


def common_settings(instance: InstanceType) -> tuple[Setting, ...]:
    """The variables of every GPU worker: libraries, NCCL's log, and sums in float32."""
    libraries = Setting("LD_LIBRARY_PATH", ":".join(EFA_LIBRARIES), f"{instance.name}: EFA, Open MPI and the plugin")
    return (
        *((libraries,) if instance.efa else ()),
        # INFO, into files: only these lines name the network that NCCL uses (VERSION does not).
        Setting("NCCL_DEBUG", "INFO", "default: its log says which network NCCL took"),
        Setting("NCCL_DEBUG_SUBSYS", "INIT,NET", "default: no more than that needs"),
        Setting("MXNET_SAFE_ACCUMULATION", "1", "default: float16 sums of softmax and LayerNorm in float32"),
    )


# Settings of a past time, by name: GluonNLP trained BERT with these over EFA in 2019. Newer NCCL ignores
# NCCL_TREE_THRESHOLD.
PRESETS: dict[str, dict[str, str]] = {
    "period-2019": {
        "FI_EFA_TX_MIN_CREDITS": "64",
        "HOROVOD_FUSION_THRESHOLD": "268435456",
        "HOROVOD_CYCLE_TIME": "30",
        "HOROVOD_HIERARCHICAL_ALLREDUCE": "0",
        "NCCL_TREE_THRESHOLD": "0",
    }
}
