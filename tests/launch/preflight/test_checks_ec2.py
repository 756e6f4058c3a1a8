"""The checks with EC2's facts about the hosts: each with a right and a wrong case, played by moto."""

from __future__ import annotations

import pytest

boto3 = pytest.importorskip("boto3", reason="asks EC2")
moto = pytest.importorskip("moto", reason="plays EC2")

from kogpt2_launch.hosts import Host  # noqa: E402
from kogpt2_launch.plan.plan import make_plan  # noqa: E402
from kogpt2_launch.preflight.checks_ec2 import ec2_findings  # noqa: E402


@pytest.fixture
def ec2(monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with moto.mock_aws():
        yield boto3.client("ec2")


IMAGE = "ami-03cf127a"  # one of moto's own 1,286; a list of them all takes it two seconds


class Site:
    """A VPC with two subnets."""

    def __init__(self, ec2):
        self.ec2 = ec2
        self.vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        self.subnets = [
            ec2.create_subnet(VpcId=self.vpc, CidrBlock=f"10.0.{number}.0/24")["Subnet"]["SubnetId"]
            for number in range(2)
        ]

    def group(self, name, ways=("ingress", "egress"), protocol="-1", source=None):
        made = self.ec2.create_security_group(GroupName=name, Description=name, VpcId=self.vpc)["GroupId"]
        for way in ways:
            rule = [{"IpProtocol": protocol, "UserIdGroupPairs": [{"GroupId": source or made}]}]
            if protocol != "-1":
                rule[0].update(FromPort=0, ToPort=65535)
            getattr(self.ec2, f"authorize_security_group_{way}")(GroupId=made, IpPermissions=rule)
        return made

    def start(self, group, subnet=0):
        made = self.ec2.run_instances(
            ImageId=IMAGE,
            MinCount=1,
            MaxCount=1,
            InstanceType="p4d.24xlarge",
            SubnetId=self.subnets[subnet],
            SecurityGroupIds=[group],
        )
        return made["Instances"][0]


class Placed:
    """moto's EC2, with the placement groups that it forgets: {instance: group}."""

    def __init__(self, ec2, groups):
        self.ec2, self.groups = ec2, groups

    def get_paginator(self, name):
        self.pages = self.ec2.get_paginator(name)
        return self if name == "describe_instances" else self.pages

    def paginate(self, **arguments):
        for page in self.pages.paginate(**arguments):
            for each in (each for reservation in page["Reservations"] for each in reservation["Instances"]):
                each["Placement"]["GroupName"] = self.groups.get(each["InstanceId"], "")
            yield page


def findings(ec2, *instances, placed=True):
    names = [each if isinstance(each, str) else each["PrivateIpAddress"] for each in instances]
    groups = {each["InstanceId"]: "near" for each in instances if not isinstance(each, str)}
    if not placed:
        groups.popitem()
    plan = make_plan("kogpt2_base", [], [Host(name, 8) for name in names], "ens32")
    return {(each.what, each.status): each for each in ec2_findings(plan, Placed(ec2, groups))}


def test_right_hosts_pass(ec2):
    site = Site(ec2)
    group = site.group("open")
    found = findings(ec2, site.start(group), site.start(group))
    assert set(found) == {("EC2 subnet", "pass"), ("placement group", "pass"), ("security group", "pass")}


def test_hosts_of_two_subnets(ec2):
    site = Site(ec2)
    group = site.group("open")
    assert ("EC2 subnet", "fail") in findings(ec2, site.start(group), site.start(group, subnet=1))


def test_hosts_outside_of_a_placement_group(ec2):
    site = Site(ec2)
    group = site.group("open")
    found = findings(ec2, site.start(group), site.start(group), placed=False)
    assert found["placement group", "warn"].fix


@pytest.mark.parametrize(
    ("made", "closed"),
    [
        ({"ways": ("ingress",)}, "egress"),
        ({"ways": ("egress",)}, "ingress"),
        ({"protocol": "tcp"}, "ingress and egress"),
    ],
)
def test_security_group_that_is_not_open_to_itself(ec2, made, closed):
    site = Site(ec2)
    group = site.group("half", **made)
    found = findings(ec2, site.start(group), site.start(group))["security group", "fail"]
    assert f"{group} is not open to itself: {closed}," in found.text
    assert found.fix.count(f"--group-id {group}") == len(closed.split(" and "))


def test_hosts_without_a_common_security_group(ec2):
    site = Site(ec2)
    found = findings(ec2, site.start(site.group("one")), site.start(site.group("two")))
    assert "no group is common" in found["security group", "fail"].text


def test_host_that_ec2_does_not_know_and_one_that_is_stopped(ec2):
    site = Site(ec2)
    stopped = site.start(site.group("open"))
    ec2.stop_instances(InstanceIds=[stopped["InstanceId"]])
    found = findings(ec2, "10.9.9.9", stopped)
    assert found["EC2 instance", "warn"].where == "10.9.9.9"
    assert "stopped" in found["EC2 instance", "fail"].text
