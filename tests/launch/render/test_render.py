"""Plans as files of schedulers, checked with the schedulers' own parsers where these can be installed."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from concurrent.futures import ThreadPoolExecutor

import boto3
import pytest
import yaml
from click.testing import CliRunner

from kogpt2_gluon.errors import RecipeError
from kogpt2_launch.cli.main import main
from kogpt2_launch.hosts import parse_hosts
from kogpt2_launch.plan.plan import make_plan
from kogpt2_launch.render import Site, plan_arguments, render
from tests.launch.render.render_helpers import SITE, planned

AWKWARD = "tracking.run_dir=runs/a b;$(touch hacked)'\""


@pytest.mark.parametrize("target", ["slurm", "mpijob", "batch", "parallelcluster"])
def test_same_plan_same_files_and_all_of_its_settings(target):
    files = render(planned(KOGPT2_MARKER="a b"), target, SITE)
    assert files == render(planned(KOGPT2_MARKER="a b"), target, SITE)
    text = "".join(files.values())
    for told in ("kogpt2_base", "data.train=/fsx/train", "ens32", "1.13.2", "KOGPT2_MARKER=a b"):
        assert told in text, told


def test_arguments_make_the_same_plan_again(tmp_path):
    plan = planned(overrides=[AWKWARD], KOGPT2_MARKER="a b;$c")
    out = tmp_path / "plan.json"
    result = CliRunner().invoke(main, ["plan", *plan_arguments(plan), "--hosts", "h1:8,h2:8", "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert out.read_text() == plan.to_json()


@pytest.mark.parametrize("limit", ["1 day", "24h", "1-00:00:00:00", "7 days", "", "-5", "1:2:3:4", "1-", "٣"])
def test_a_time_limit_that_slurm_does_not_take_is_refused(limit):
    with pytest.raises(RecipeError, match=r"--time-limit .*: Slurm takes MINUTES, .* such as 1-00:00:00 for a day"):
        Site(time_limit=limit)


@pytest.mark.parametrize("limit", ["90", "90:30", "12:00:00", "2-12", "2-12:30", "7-00:00:00", "UNLIMITED", "infinite"])
def test_a_time_limit_of_slurm_is_written(limit):
    assert f"#SBATCH --time={limit}\n" in render(planned(), "slurm", Site(time_limit=limit))["job.sbatch"]


@pytest.mark.parametrize("folder", ["~/fsx", "fsx", ""])
def test_the_mount_point_is_a_whole_path(folder):
    with pytest.raises(RecipeError, match=r"--folder .*: give the whole path"):
        Site(folder=folder)


@pytest.mark.parametrize(
    ("text", "overrides", "name"),
    [
        ("", [], "mine-7"),  # a recipe without a name: its file's
        ("name: exp_3\n", [], "exp-3"),
        ("name: exp_3\n", ["name=Run 12"], "run-12"),
        ("", ["name=kogpt2"], "kogpt2"),
        ("name: 한국어\n", [], "kogpt2"),
        ("name: 7b\n", [], "kogpt2-7b"),
    ],
)
def test_a_job_has_the_name_of_the_recipe(tmp_path, text, overrides, name):
    path = tmp_path / "mine.7.yaml"
    path.write_text(text + "training: {total_batch_size: 16}\n", encoding="utf-8")
    plan = make_plan(str(path), overrides, parse_hosts("h1:1,h2:1"), "eth0")
    assert f"#SBATCH --job-name={name}\n" in render(plan, "slurm", Site())["job.sbatch"]
    assert json.loads(render(plan, "batch", SITE)["job-definition.json"])["jobDefinitionName"] == name
    assert yaml.safe_load(render(plan, "mpijob", SITE)["mpijob.yaml"])["metadata"]["name"] == name


def test_hosts_that_differ_are_refused():
    plan = make_plan("kogpt2_base", [], parse_hosts("h1:4,h2:2,h3:2"), "eth0")
    with pytest.raises(RecipeError, match=r"the plan.s hosts have different slots \(2, 4\)"):
        render(plan, "slurm", SITE)


@pytest.mark.parametrize(
    ("target", "told"),
    [("mpijob", "--image"), ("batch", "--image"), ("parallelcluster", "--region, --subnet, --key-name")],
)
def test_what_is_missing_is_named(target, told):
    with pytest.raises(RecipeError, match=f"give {told}"):
        render(planned(), target, Site())


def stubs(folder, **programs):
    """A folder of commands that note their arguments, and do what is given."""
    folder.mkdir(exist_ok=True)
    for name, does in programs.items():
        path = folder / name.replace("_", "-")
        path.write_text(f'#!/bin/bash\nprintf "%s\\n" "{path.name}" "$@" >> "$NOTES"\n{does}\n')
        path.chmod(0o755)
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}


@pytest.mark.parametrize(("code", "requeued"), [(0, False), (75, True), (4, False)])
def test_slurm_script_runs_the_plan_and_queues_again_after_preemption(tmp_path, code, requeued):
    script = render(planned(overrides=[AWKWARD]), "slurm", SITE)["job.sbatch"]
    launch = f'if [ "$1" = run ]; then exit {code}; fi'
    env = {**stubs(tmp_path / "bin", kogpt2_launch=launch, scontrol=""), "NOTES": str(tmp_path / "notes")}
    done = subprocess.run(["bash", "-c", script], env={**env, "SLURM_JOB_ID": "7"}, cwd=tmp_path, check=False)
    notes = (tmp_path / "notes").read_text().splitlines()
    assert done.returncode == code and ("requeue" in notes) == requeued
    assert AWKWARD in notes and not (tmp_path / "hacked").exists()
    assert notes[notes.index("run") : notes.index("run") + 4] == ["run", "plan-7.json", "--backend", "horovodrun"]


def test_slurm_job_of_one_node_names_no_interface():
    """There is no network to name."""
    assert "--network-interface" in render(planned(), "slurm", SITE)["job.sbatch"]
    assert "--network-interface" not in render(planned("h1:8"), "slurm", SITE)["job.sbatch"]


def test_slurm_script_hands_the_signal_on_and_waits(tmp_path):
    script = render(planned(), "slurm", SITE)["job.sbatch"]
    launch = 'if [ "$1" = run ]; then trap "sleep 0.5; exit 75" TERM; touch up; while :; do sleep 0.1; done; fi'
    env = {**stubs(tmp_path / "bin", kogpt2_launch=launch, scontrol=""), "NOTES": str(tmp_path / "notes")}
    process = subprocess.Popen(["bash", "-c", script], env={**env, "SLURM_JOB_ID": "7"}, cwd=tmp_path)
    try:
        while not (tmp_path / "up").exists():
            assert process.poll() is None
        process.terminate()
        assert process.wait(timeout=20) == 75
    finally:
        process.kill()
    assert "requeue" in (tmp_path / "notes").read_text()


def test_batch_definition_is_what_aws_takes():
    definition = json.loads(render(planned(), "batch", SITE)["job-definition.json"])
    client = boto3.client("batch", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x")
    model = client.meta.service_model.operation_model("RegisterJobDefinition").input_shape
    from botocore.validate import ParamValidator

    report = ParamValidator().validate(definition, model)
    assert not report.has_errors(), report.generate_report()
    container = definition["nodeProperties"]["nodeRangeProperties"][0]["container"]
    assert len(container["linuxParameters"]["devices"]) == 4 and container["instanceType"] == "p4d.24xlarge"


@pytest.fixture
def batch_node(tmp_path):
    """Runs a node of a multi-node job of three; gives its exit code. what : of the stand-ins."""
    entry = render(planned(), "batch", SITE)["batch-entry.sh"].replace("sleep 5", "sleep 0.2")

    def run(number, attempt=1, **what):
        programs = {"kogpt2_launch": "", "sshd": "", "hostname": f"echo 10.0.{attempt}.{number}", **what}
        env = {
            **stubs(tmp_path / f"bin-{attempt}-{number}", **programs),
            **{"NOTES": str(tmp_path / "notes"), "AWS_BATCH_JOB_ID": "1234#0", "AWS_BATCH_JOB_ATTEMPT": str(attempt)},
            **{"AWS_BATCH_JOB_MAIN_NODE_INDEX": "0", "AWS_BATCH_JOB_NUM_NODES": "3"},
            "AWS_BATCH_JOB_NODE_INDEX": str(number),
        }
        argv = ["bash", "-c", entry, "entry", "8", "kogpt2_base"]
        return subprocess.run(argv, env=env, cwd=tmp_path, timeout=60, check=False).returncode

    return run


def all_nodes(run, **what):
    with ThreadPoolExecutor(3) as pool:
        return list(pool.map(lambda number: run(number, **what), (2, 0, 1)))


def test_batch_nodes_find_each_other(batch_node, tmp_path):
    """And in a retry only those of that attempt."""
    for attempt in (1, 2):
        assert all_nodes(batch_node, attempt=attempt) == [0, 0, 0]
        hosts = (tmp_path / f".batch-1234-{attempt}" / "hostfile").read_text().splitlines()
        assert hosts == [f"10.0.{attempt}.{number} slots=8" for number in range(3)]


def test_batch_node_that_fails_ends_the_job(batch_node):
    """The main node waits for nobody who cannot come."""
    with ThreadPoolExecutor(2) as pool:
        main = pool.submit(batch_node, 0)
        assert batch_node(1, sshd="exit 1") == 1
        assert main.result(timeout=30) == 1


def test_mpijob_passes_arguments_and_not_shell_text(tmp_path):
    job = yaml.safe_load(render(planned(overrides=[AWKWARD]), "mpijob", SITE)["mpijob.yaml"])
    assert (job["apiVersion"], job["kind"], job["spec"]["slotsPerWorker"]) == ("kubeflow.org/v2beta1", "MPIJob", 8)
    pods = job["spec"]["mpiReplicaSpecs"]
    assert pods["Worker"]["replicas"] == 2 and pods["Launcher"]["replicas"] == 1
    worker = pods["Worker"]["template"]["spec"]["containers"][0]
    assert worker["resources"]["limits"]["vpc.amazonaws.com/efa"] == 4
    command = pods["Launcher"]["template"]["spec"]["containers"][0]["command"]
    env = {**stubs(tmp_path / "bin", kogpt2_launch=""), "NOTES": str(tmp_path / "notes")}
    subprocess.run(command, env=env, cwd=tmp_path, check=True)
    assert AWKWARD in (tmp_path / "notes").read_text().splitlines() and not (tmp_path / "hacked").exists()


def test_parallelcluster_has_efa_a_placement_group_and_lustre():
    files = render(planned(), "parallelcluster", Site(**{**vars(SITE), "file_system": "fs-0123456789abcdef0"}))
    cluster = yaml.safe_load(files["cluster.yaml"])
    queue = cluster["Scheduling"]["SlurmQueues"][0]
    assert queue["Networking"]["PlacementGroup"] == {"Enabled": True}
    assert queue["ComputeResources"][0]["Efa"] == {"Enabled": True}
    assert cluster["SharedStorage"][0]["FsxLustreSettings"] == {"FileSystemId": "fs-0123456789abcdef0"}
    assert "job.sbatch" in files


def test_command_line_writes_and_does_not_overwrite(tmp_path):
    plan = tmp_path / "plan.json"
    plan.write_text(planned().to_json())
    argv = ["render", str(plan), "--to", "slurm", "--out", str(tmp_path / "out")]
    for _ in range(2):  # the same file may be written again
        assert CliRunner().invoke(main, argv).exit_code == 0
    assert shlex.split((tmp_path / "out" / "job.sbatch").read_text().splitlines()[-1]) == ["exit", "$code"]
    (tmp_path / "out" / "job.sbatch").write_text("mine")
    result = CliRunner().invoke(main, argv)
    assert result.exit_code == 2 and "exists with other content" in result.stderr
