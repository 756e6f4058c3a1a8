"""Plans to render, and the places where they will run."""

from __future__ import annotations

from kogpt2_launch.hosts import parse_hosts
from kogpt2_launch.plan.plan import Plan, make_plan
from kogpt2_launch.plan.variables import Fabric
from kogpt2_launch.render import Site

P4D = Fabric("p4d.24xlarge", "1.13.2", "1.22")
P3DN = Fabric("p3dn.24xlarge", "1.13.2", "1.22")
G5 = Fabric("g5.xlarge")  # without EFA
SITE = Site(image="example/kogpt2:1", region="us-east-1", subnet="subnet-0123456789abcdef0", key_name="mine")


def planned(hosts="h1:8,h2:8", fabric=P4D, overrides=(), **more) -> Plan:
    return make_plan("kogpt2_base", ["data.train=/fsx/train", *overrides], parse_hosts(hosts), "ens32", more, fabric)


def changed(tree, path: str, value):
    """A copy of nested mappings and lists with one value set; `path` is keys and numbers with dots between."""
    key, _, rest = path.partition(".")
    copy = tree.copy()
    if isinstance(tree, list):
        copy[int(key)] = changed(tree[int(key)], rest, value) if rest else value
    else:
        copy[key] = changed(tree[key], rest, value) if rest else value
    return copy
