"""Finding hosts: moto plays EC2 and Auto Scaling, a Stubber plays the rest of AWS."""

from __future__ import annotations

import os

import pytest

boto3 = pytest.importorskip("boto3", reason="asks EC2")
moto = pytest.importorskip("moto", reason="plays EC2")

from botocore.stub import Stubber  # noqa: E402

from kogpt2_gluon.errors import DataError, RecipeError  # noqa: E402
from kogpt2_launch.hosts import FileSystem, Host  # noqa: E402
from kogpt2_launch.plan.discovery import file_system, from_auto_scaling_group, from_ec2  # noqa: E402
from kogpt2_launch.plan.plan_file import load_plan  # noqa: E402
from tests.launch.plan.discovery_helpers import plan  # noqa: E402


@pytest.fixture(autouse=True)
def region(monkeypatch):
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "ap-northeast-2")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def ec2():
    with moto.mock_aws():
        yield boto3.client("ec2")


IMAGE = "ami-03cf127a"  # moto starts an image that it does not know


def start(ec2, count: int, kind: str = "p4d.24xlarge", name: str = "kogpt2", **arguments) -> list:
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "job", "Value": name}]}]
    answer = ec2.run_instances(
        ImageId=IMAGE, MinCount=count, MaxCount=count, InstanceType=kind, TagSpecifications=tags, **arguments
    )
    return answer["Instances"]


def test_by_tag(ec2):
    """Sorted by address as numbers; others and stopped ones are not among them."""
    ours = start(ec2, 3)
    start(ec2, 2, name="other")
    stopped = start(ec2, 1)[0]["InstanceId"]
    ec2.stop_instances(InstanceIds=[stopped])
    found = from_ec2(tag="job=kogpt2")
    assert found.instance_type == "p4d.24xlarge"
    assert sorted(host.name for host in found.hosts) == sorted(each["PrivateIpAddress"] for each in ours)
    assert {host.slots for host in found.hosts} == {8}
    numbers = [tuple(map(int, host.name.split("."))) for host in found.hosts]
    assert numbers == sorted(numbers)


def described(address: str, efa: int = 4, group: str = "close") -> dict:
    """An instance as EC2 describes it; moto knows neither placement groups nor attached EFA."""
    interfaces = [{"InterfaceType": "efa"}] * efa + [{"InterfaceType": "interface"}]
    return {
        **{"InstanceId": f"i-{address}", "PrivateIpAddress": address, "InstanceType": "p4d.24xlarge"},
        **{"State": {"Name": "running"}, "SubnetId": "s", "NetworkInterfaces": interfaces},
        "Placement": {"AvailabilityZone": "a", "GroupName": group},
    }


def page(*instances: dict, **more) -> dict:
    return {"Reservations": [{"Instances": list(instances)}], **more}


def test_by_placement_group_and_tag():
    client = boto3.client("ec2")
    filters = [
        {"Name": "instance-state-name", "Values": ["running"]},
        {"Name": "tag:job", "Values": ["kogpt2"]},
        {"Name": "placement-group-name", "Values": ["close"]},
    ]
    with Stubber(client) as stubber:
        stubber.add_response("describe_instances", page(described("10.0.0.1")), {"Filters": filters})
        found = from_ec2(tag="job=kogpt2", placement_group="close", client=client)
    assert found.hosts == (Host("10.0.0.1", 8),) and found.notes == ()


@pytest.mark.parametrize(("groups", "told"), [(("a", "a"), False), (("a", ""), True), (("a", "b"), True)])
def test_apart(groups, told):
    client = boto3.client("ec2")
    with Stubber(client) as stubber:
        instances = [described(f"10.0.0.{i}", group=group) for i, group in enumerate(groups)]
        stubber.add_response("describe_instances", page(*instances))
        notes = from_ec2(tag="a=b", client=client).notes
    assert any("not all in one placement group" in note for note in notes) is told


def test_notes_on_the_network(ec2):
    """moto attaches no EFA, and here each instance is in a subnet of its own."""
    subnets = [each["SubnetId"] for each in ec2.describe_subnets()["Subnets"]][:2]
    for subnet in subnets:
        start(ec2, 1, SubnetId=subnet)
    notes = from_ec2(tag="job=kogpt2").notes
    assert any("2 of 2 instances have fewer EFA interfaces than the 4" in note for note in notes)
    assert any("2 subnets" in note for note in notes)
    assert any("2 availability zones" in note for note in notes)
    assert any("not all in one placement group" in note for note in notes)


def test_nothing_found(ec2):
    with pytest.raises(RecipeError, match=r"tag job=none: no running instance in this region.*AWS_REGION"):
        from_ec2(tag="job=none")


def test_types_mixed(ec2):
    start(ec2, 1)
    start(ec2, 1, kind="g5.48xlarge")
    with pytest.raises(RecipeError, match=r"instances of g5\.48xlarge, p4d\.24xlarge; .* one type"):
        from_ec2(tag="job=kogpt2")


def test_a_type_that_mxnet_cannot_use(ec2):
    start(ec2, 1, kind="p5.48xlarge")
    with pytest.raises(RecipeError, match="no machine code for H100"):
        from_ec2(tag="job=kogpt2")


@pytest.mark.parametrize("tag", ["job", "=x", ""])
def test_bad_tags(tag):
    with pytest.raises(RecipeError, match="write KEY=VALUE"):
        from_ec2(tag=tag)


def test_pages_and_attached_efa():
    client = boto3.client("ec2")
    with Stubber(client) as stubber:
        stubber.add_response("describe_instances", page(described("10.0.0.10"), NextToken="more"))
        stubber.add_response("describe_instances", page(described("10.0.0.9", efa=3)))
        found = from_ec2(tag="a=b", client=client)
        stubber.assert_no_pending_responses()
    assert found.hosts == (Host("10.0.0.9", 8), Host("10.0.0.10", 8))
    (note,) = found.notes
    assert "1 of 2" in note and "i-10.0.0.9 first" in note


def test_a_refusal_is_one_line():
    client = boto3.client("ec2")
    with Stubber(client) as stubber:
        stubber.add_client_error("describe_instances", "UnauthorizedOperation", "You are not authorized\nto do that")
        with pytest.raises(DataError, match=r"^EC2: .*UnauthorizedOperation") as caught:
            from_ec2(tag="a=b", client=client)
    assert len(str(caught.value).splitlines()) == 1


def test_no_credentials(monkeypatch, tmp_path):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(RecipeError, match="EC2: no AWS credentials; set AWS_PROFILE"):
        from_ec2(tag="a=b")


def test_auto_scaling_group(ec2):
    auto_scaling_group(ec2, "p3dn.24xlarge")
    found = from_auto_scaling_group("workers")
    assert (len(found.hosts), found.instance_type) == (2, "p3dn.24xlarge")
    with pytest.raises(RecipeError, match="--asg nobody: no Auto Scaling group"):
        from_auto_scaling_group("nobody")


def auto_scaling_group(ec2, kind: str) -> None:
    """Two instances of a group named workers."""
    autoscaling = boto3.client("autoscaling")
    autoscaling.create_launch_configuration(LaunchConfigurationName="train", ImageId=IMAGE, InstanceType=kind)
    zone = ec2.describe_availability_zones()["AvailabilityZones"][0]["ZoneName"]
    autoscaling.create_auto_scaling_group(
        AutoScalingGroupName="workers",
        LaunchConfigurationName="train",
        MinSize=2,
        MaxSize=2,
        AvailabilityZones=[zone],
    )


def test_members_that_are_not_in_service(ec2):
    instance = start(ec2, 1)[0]["InstanceId"]
    autoscaling = boto3.client("autoscaling")
    members = [
        {
            **{"InstanceId": name, "AvailabilityZone": "a", "LifecycleState": state, "HealthStatus": "Healthy"},
            "ProtectedFromScaleIn": False,
        }
        for name, state in ((instance, "InService"), ("i-2", "Pending"))
    ]
    group = {
        **{"AutoScalingGroupName": "g", "MinSize": 2, "MaxSize": 2, "DesiredCapacity": 2, "DefaultCooldown": 1},
        **{"AvailabilityZones": ["a"], "HealthCheckType": "EC2", "CreatedTime": 0, "Instances": members},
    }
    with Stubber(autoscaling) as stubber:
        stubber.add_response("describe_auto_scaling_groups", {"AutoScalingGroups": [group]})
        found = from_auto_scaling_group("g", autoscaling, ec2)
    assert len(found.hosts) == 1
    assert "1 of 2 instances of g are not in service and are left out" in found.notes


# ---- FSx ------------------------------------------------------------------------------------------------------------


SUBNET = "subnet-12345678"


def lustre(kind: str = "LUSTRE") -> str:
    """A file system of moto's."""
    made = boto3.client("fsx").create_file_system(FileSystemType=kind, StorageCapacity=1200, SubnetIds=[SUBNET])
    return made["FileSystem"]["FileSystemId"]


def test_file_system(ec2):
    name = lustre()
    found = file_system(name)
    assert (found.id, found.subnet) == (name, SUBNET)
    assert found.mount_command("/fsx") == (
        f"mount -t lustre -o noatime,flock {name}.fsx.ap-northeast-2.amazonaws.com@tcp:/fsx /fsx"
    )


def test_mount_name_and_state_as_fsx_says_them():
    """moto makes neither up."""
    described = {
        **{"FileSystemId": "fs-0123456789abcdef0", "FileSystemType": "LUSTRE"},
        **{"DNSName": "fs-0.fsx.us-east-1.amazonaws.com", "SubnetIds": [SUBNET]},
        **{"LustreConfiguration": {"MountName": "abcde"}},
    }
    client = boto3.client("fsx")
    with Stubber(client) as stubber:
        for state in ("AVAILABLE", "CREATING"):
            answer = {"FileSystems": [{**described, "Lifecycle": state}]}
            stubber.add_response("describe_file_systems", answer, {"FileSystemIds": [described["FileSystemId"]]})
        assert file_system(described["FileSystemId"], client).mount_name == "abcde"
        with pytest.raises(RecipeError, match="fs-0123456789abcdef0: CREATING, not AVAILABLE"):
            file_system(described["FileSystemId"], client)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("fs-00000000", "no such file system in this region"),
        ("fsx", "write the id of an FSx for Lustre"),
        ("fs-0; rm -r /", "write the id of an FSx for Lustre"),
        (None, "of type WINDOWS, not LUSTRE"),
    ],
)
def test_file_systems_that_are_none(ec2, name, told):
    with pytest.raises(RecipeError, match=told):
        file_system(name or lustre("WINDOWS"))


# ---- the command line -----------------------------------------------------------------------------------------------

VERSIONS = ("--plugin-version", "1.6.0", "--libfabric-version", "1.17.1")


@pytest.mark.parametrize("way", [("--ec2-tag", "job=kogpt2"), ("--asg", "workers")])
def test_plan_of_discovered_hosts(ec2, tmp_path, way):
    if way[0] == "--asg":
        auto_scaling_group(ec2, "p4d.24xlarge")
    else:
        start(ec2, 2)
    result = plan(tmp_path, *way, *VERSIONS)
    assert result.exit_code == 0, result.stderr
    assert "workers      16\n" in result.stdout and "p4d.24xlarge: 8 x A100" in result.stdout
    assert "FI_EFA_USE_DEVICE_RDMA=1" in result.stdout
    assert "note: 2 of 2 instances have fewer EFA interfaces" in result.stderr


def test_plan_with_a_file_system(ec2, tmp_path):
    name, out = lustre(), tmp_path / "plan.json"
    start(ec2, 2)
    result = plan(tmp_path, "--ec2-tag", "job=kogpt2", "--file-system", name, "--out", str(out), *VERSIONS)
    assert result.exit_code == 0, result.stderr
    assert f"file system  {name}: {name}.fsx.ap-northeast-2.amazonaws.com@tcp:/fsx, {SUBNET}\n" in result.stdout
    assert load_plan(out).file_system == FileSystem(name, f"{name}.fsx.ap-northeast-2.amazonaws.com", "fsx", SUBNET)


def test_a_type_that_contradicts_ec2(ec2, tmp_path):
    start(ec2, 2)
    result = plan(tmp_path, "--ec2-tag", "job=kogpt2", "--instance-type", "p3dn.24xlarge", *VERSIONS)
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].endswith("p3dn.24xlarge: the hosts found are of type p4d.24xlarge")
