"""Check with EC2 that a plan's hosts have one subnet, a placement group, and security groups open to themselves.

This is ``kogpt2-launch preflight --ec2``. The hosts must be named by their private addresses or private DNS names, as
discovery names them. A host that EC2 does not know is a finding, not an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kogpt2_gluon.findings import FAIL, PASS, WARN, Finding
from kogpt2_launch.plan.discovery import explained, make_client
from kogpt2_launch.plan.plan import Plan
from kogpt2_launch.preflight.checks import ALL

PAGE = 200  # the most values that a filter of DescribeInstances takes
EVERY_PROTOCOL = "-1"  # EFA's packets are neither TCP nor UDP


def ec2_findings(plan: Plan, client: Any = None) -> tuple[Finding, ...]:
    """Asks EC2 and returns all findings; DataError if it does not answer."""
    with explained("EC2"):
        client = client or make_client("ec2")
        instances = _instances(client, [host.name for host in plan.hosts])
        known = [each for each in instances.values() if each is not None]
        groups = _security_groups(client, known) if known else {}
    return (
        *_presence(instances),
        *_one_subnet(instances),
        *_placement(instances, plan),
        *_open_to_itself(instances, groups),
    )


def _instances(client: Any, names: list[str]) -> dict[str, dict[str, Any] | None]:
    """EC2's description of each host; None for a host that it does not know."""
    found: dict[str, dict[str, Any]] = {}
    pages = client.get_paginator("describe_instances")
    for filter_name, key in (("private-ip-address", "PrivateIpAddress"), ("private-dns-name", "PrivateDnsName")):
        for start in range(0, len(names), PAGE):
            filters = [{"Name": filter_name, "Values": names[start : start + PAGE]}]
            for page in pages.paginate(Filters=filters):
                for reservation in page["Reservations"]:
                    found.update({each[key]: each for each in reservation["Instances"] if each.get(key)})
    return {name: found.get(name) for name in names}


def _security_groups(client: Any, instances: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    wanted = sorted({group["GroupId"] for each in instances for group in each.get("SecurityGroups", [])})
    if not wanted:
        return {}
    pages = client.get_paginator("describe_security_groups").paginate(GroupIds=wanted)
    return {group["GroupId"]: group for page in pages for group in page["SecurityGroups"]}


def _presence(instances: dict[str, dict[str, Any] | None]) -> Iterator[Finding]:
    for name, each in instances.items():
        if each is None:
            fix = "name hosts by their private addresses; check AWS_REGION and AWS_PROFILE"
            yield Finding(WARN, "EC2 instance", name, "EC2 does not know an instance of this name in this region", fix)
        elif each["State"]["Name"] != "running":
            yield Finding(FAIL, "EC2 instance", name, f"{each['InstanceId']} is {each['State']['Name']}", "start it")


def _one_subnet(instances: dict[str, dict[str, Any] | None]) -> Iterator[Finding]:
    subnets = {name: each.get("SubnetId", "none") for name, each in instances.items() if each is not None}
    if len(set(subnets.values())) == 1:
        yield Finding(PASS, "EC2 subnet", ALL, next(iter(subnets.values())))
    for name, subnet in subnets.items() if len(set(subnets.values())) > 1 else ():
        yield Finding(FAIL, "EC2 subnet", name, subnet, "start all instances in one subnet: EFA does not cross subnets")


def _placement(instances: dict[str, dict[str, Any] | None], plan: Plan) -> Iterator[Finding]:
    if len(plan.hosts) == 1:
        return
    groups = {name: each["Placement"].get("GroupName", "") for name, each in instances.items() if each is not None}
    if len(set(groups.values())) == 1 and "" not in groups.values():
        yield Finding(PASS, "placement group", ALL, next(iter(groups.values())))
    else:
        fix = "start the instances in one placement group of strategy cluster"
        for name, group in groups.items():
            yield Finding(WARN, "placement group", name, group or "in none", fix)


def _open_to_itself(
    instances: dict[str, dict[str, Any] | None], groups: dict[str, dict[str, Any]]
) -> Iterator[Finding]:
    """Checks that one group, common to all hosts, lets everything in from itself and out to itself."""
    members = [{g["GroupId"] for g in each.get("SecurityGroups", [])} for each in instances.values() if each]
    common = sorted(set.intersection(*members)) if members else []
    if members and not common:
        yield Finding(FAIL, "security group", ALL, "no group is common to all hosts", "put all hosts into one group")
    ways = {name: _closed_ways(groups[name]) for name in common if name in groups}
    open_ones = [name for name, closed in ways.items() if not closed]
    if open_ones:
        yield Finding(PASS, "security group", ALL, f"{open_ones[0]} is open to itself, in and out")
        return
    for name, closed in ways.items():
        rules = " && ".join(
            f"aws ec2 authorize-security-group-{way} --group-id {name} "
            f"--ip-permissions IpProtocol=-1,UserIdGroupPairs=[{{GroupId={name}}}]"
            for way in closed
        )
        text = f"{name} is not open to itself: {' and '.join(closed)}, which EFA needs for all protocols"
        yield Finding(FAIL, "security group", ALL, text, rules)


def _closed_ways(group: dict[str, Any]) -> list[str]:
    """The directions, ``ingress`` and ``egress``, without a rule for all protocols of the group itself.

    A rule for an address range is not enough.
    """
    ways = {"ingress": group.get("IpPermissions", []), "egress": group.get("IpPermissionsEgress", [])}
    return [way for way, rules in ways.items() if not any(_admits(rule, group["GroupId"]) for rule in rules)]


def _admits(rule: dict[str, Any], group_id: str) -> bool:
    named = {pair.get("GroupId") for pair in rule.get("UserIdGroupPairs", [])}
    return rule.get("IpProtocol") == EVERY_PROTOCOL and group_id in named
