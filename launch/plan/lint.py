"""Environment variables that do harm or have no effect on the network of a plan: a line for each, with the reason.

They come from blog posts and old job scripts. A rule warns, or fails for a variable that corrupts data. The way out is
to leave the variable out, unless the text of the rule says otherwise. A value that is not read as it says fails too
(values.py).
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Callable

from kogpt2_gluon.findings import FAIL, WARN, Finding
from kogpt2_launch.plan.fabric import PLUGIN_CHEATSHEET, InstanceType
from kogpt2_launch.plan.values import unreadable


@dataclass(frozen=True)
class Rule:
    """A pattern of names, a test for wrong values (None: all are wrong), and the reason with its source."""

    pattern: str
    wrong: Callable[[str, InstanceType | None], bool] | None
    status: str
    text: str
    source: str


def _on_efa(_value: str, instance: InstanceType | None) -> bool:
    return instance is not None and instance.has_efa


def _forces_low_latency(value: str, instance: InstanceType | None) -> bool:
    """Returns True if NCCL_PROTO admits LL or LL128 on EFA."""
    return _on_efa(value, instance) and any(_admits(value, name) for name in ("ll", "ll128"))


def _admits(value: str, name: str) -> bool:
    """Returns True if a list such as ``a,b`` has `name`, or if one such as ``^a,b`` (all but these) does not."""
    listed = name in [each.strip().lower() for each in value.lstrip("^").split(",")]
    return listed != value.startswith("^")


def _rdma_on_type_without(value: str, instance: InstanceType | None) -> bool:
    return value != "0" and instance is not None and instance.has_efa and not instance.gpudirect


def _another_provider(value: str, instance: InstanceType | None) -> bool:
    return _on_efa(value, instance) and not _admits(value, "efa")


NCCL_ENV, HOROVOD_SOURCE = "NCCL documentation, Environment Variables", "horovod/common/operations.cc"
FEWER = "more channels than NCCL's own choice make messages smaller, and EFA starves: leave it out"
RULES: tuple[Rule, ...] = (
    Rule(
        "RDMAV_*",
        None,
        WARN,
        "belongs to rdma-core and breaks fork() on newer kernels; the plugin sets what is needed, FI_EFA_FORK_SAFE",
        PLUGIN_CHEATSHEET,
    ),
    Rule("NCCL_TREE_THRESHOLD", None, WARN, "NCCL 2.5 and later ignore it; NCCL_ALGO took its place", NCCL_ENV),
    Rule("NCCL_MIN_NRINGS", None, WARN, f"is the old name of NCCL_MIN_NCHANNELS; {FEWER}", NCCL_ENV),
    Rule("NCCL_MIN_NCHANNELS", _on_efa, WARN, FEWER, PLUGIN_CHEATSHEET),
    Rule(
        "HOROVOD_HIERARCHICAL_ALLREDUCE",
        None,
        WARN,
        "does nothing: workers are started with Gloo, and this part of Horovod needs MPI",
        HOROVOD_SOURCE,
    ),
    Rule("NCCL_SOCKET_NTHREADS", _on_efa, WARN, "is for sockets; EFA does not use them", PLUGIN_CHEATSHEET),
    Rule("NCCL_NSOCKS_PERTHREAD", _on_efa, WARN, "is for sockets; EFA does not use them", PLUGIN_CHEATSHEET),
    Rule(
        "NCCL_PROTO",
        _forces_low_latency,
        FAIL,
        "lets NCCL use LL or LL128, which need ordered 128-byte stores, and EFA on these types promises none: data may "
        "be corrupted, silently; take simple",
        "aws-ofi-nccl, src/platform-aws.c (v1.7.4, v1.13.2), configure_nccl_proto",
    ),
    Rule(
        "FI_EFA_USE_DEVICE_RDMA",
        _rdma_on_type_without,
        FAIL,
        "asks for GPUDirect, which this instance type's EFA does not have",
        PLUGIN_CHEATSHEET,
    ),
    Rule("FI_PROVIDER", _another_provider, FAIL, "keeps libfabric from using EFA; take efa", PLUGIN_CHEATSHEET),
    Rule("NCCL_IB_DISABLE", _on_efa, WARN, "is for InfiniBand; EFA goes through the plugin", NCCL_ENV),
)


def lint(
    variables: Mapping[str, str], instance: InstanceType | None, preset: Mapping[str, str] | None = None
) -> tuple[Finding, ...]:
    """The findings on `variables`, by name, for hosts of this type (None: unknown).

    A variable that a preset sets to the same value is meant, and passes.
    """
    found: dict[tuple[str, str], Finding] = {}
    for name, value in sorted(variables.items()):
        if misread := unreadable(name, value):
            found[name, ""] = misread
            continue
        if preset is not None and preset.get(name) == value:
            continue
        for rule in RULES:
            if fnmatch.fnmatchcase(name, rule.pattern) and (rule.wrong is None or rule.wrong(value, instance)):
                found[name, rule.pattern] = Finding(rule.status, name, rule.source, rule.text)
    return tuple(found.values())
