"""Environment and plans: everything that is decided before anything starts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.recipe import load_recipe
from kogpt2_launch import hosts
from kogpt2_launch.hosts import Host, parse_hosts
from kogpt2_launch.plan import environment, variables
from kogpt2_launch.plan.plan import batch_divides, make_plan
from kogpt2_launch.plan.plan_file import is_plan, load_plan
from kogpt2_launch.plan.variables import Fabric
from tests.helpers import ROOT
from tests.launch.plan.plan_helpers import invoke

# Environment


@pytest.mark.parametrize(
    "name",
    [
        *("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "AWS_SESSION_TOKEN", "HF_TOKEN", "WANDB_API_KEY", "PASSWORD"),
        *("DB_PASSWORD", "my_secret", "HOROVOD_SECRET_KEY", "GITHUB_TOKEN", "KOGPT2_AUTH"),
    ],
)
def test_secrets_are_refused_and_not_inherited(name):
    with pytest.raises(RecipeError, match=r"looks like a secret.*credentials") as caught:
        environment.check_variable(name, "hunter2")
    assert "hunter2" not in str(caught.value)
    assert environment.inherited({name: "hunter2", "PATH": "/bin"}) == {"PATH": "/bin"}


@pytest.mark.parametrize("name", ["KOGPT2_TOKENIZER", "NCCL_DEBUG", "MXNET_KVSTORE_BIGARRAY_BOUND", "FI_PROVIDER"])
def test_harmless_variables_pass(name):
    environment.check_variable(name, "값 with spaces; $(x)")
    assert environment.inherited({name: "1"}) == {name: "1"}


@pytest.mark.parametrize("name", ["NCCL_SOCKET_IFNAME", "HOROVOD_RANK", "1X", "A B", "", "A-B"])
def test_variables_that_would_not_arrive_are_refused(name):
    with pytest.raises(RecipeError):
        environment.check_variable(name, "1")


def test_only_the_allowlist_is_inherited():
    given = {"LC_ALL": "ko_KR.UTF-8", "CUDA_VISIBLE_DEVICES": "1", "EDITOR": "vi", "HOROVOD_RANK": "3", "XPATH": "x"}
    assert environment.inherited(given) == {"LC_ALL": "ko_KR.UTF-8", "CUDA_VISIBLE_DEVICES": "1"}


def test_a_store_of_another_maker_is_found_and_its_password_stays_here():
    plain = {"AWS_ENDPOINT_URL": "https://store:9000", "AWS_CA_BUNDLE": "/etc/store.pem"}
    assert environment.inherited(plain) == plain
    assert environment.inherited({"AWS_ENDPOINT_URL": "https://me:hunter2@store:9000"}) == {}


# Plans


def test_plan_of_two_hosts(recipe):
    plan = make_plan(recipe, ["training.num_steps=7"], parse_hosts("h1:2,h2:2"), "eth0", {"NCCL_DEBUG": "INFO"})
    assert [list(ranks) for ranks in plan.ranks()] == [[0, 1], [2, 3]]
    assert (plan.size, plan.batch_size, plan.accumulate, plan.total_batch_size) == (4, 2, 4, 32)
    assert plan.to_dict()["batch"]["tokens_per_step"] == 32 * 32
    assert plan.argv() == [
        *("horovodrun", "--gloo", "--disable-cache", "-np", "4", "-H", "h1:2,h2:2", "--network-interfaces", "eth0"),
        *("kogpt2", "train", recipe, "training.num_steps=7"),
    ]
    assert [(each.name, each.value, each.source) for each in plan.env] == [
        ("HOROVOD_GLOO_IFACE", "eth0", "horovodrun: --network-interface"),
        ("NCCL_DEBUG", "INFO", "user: --env"),
        ("NCCL_SOCKET_IFNAME", "eth0", "horovodrun: --network-interface"),
    ]
    assert "set by each worker" in plan.describe()


def test_plan_of_one_host_is_the_same_on_that_host(recipe, tmp_path, monkeypatch):
    path = tmp_path / "any-name"
    for slots in (1, 8):
        path.write_text(make_plan(recipe, [], [Host("n1", slots)], "eth0").to_json(), encoding="utf-8")
        monkeypatch.setattr("socket.gethostname", lambda: "n1")
        plan = load_plan(path)
        assert plan.is_local and is_plan(str(path)) and plan.hosts == (Host("n1", slots),)
        assert plan.to_json() == path.read_text(encoding="utf-8")
        monkeypatch.undo()
    assert not is_plan(recipe) and not is_plan("kogpt2_base") and is_plan("x.json")


def test_time_and_cost_are_in_the_plan():
    one, two = (make_plan("kogpt2_base", [], parse_hosts(hosts)) for hosts in ("h1:8", "h1:8,h2:8"))
    for alone, both in zip(one.to_dict()["estimate"], two.to_dict()["estimate"]):
        assert alone["device"] == both["device"] and alone["basis"]
        assert 0 < both["seconds"] <= alone["seconds"]
        assert (alone["dollars"] is None) is ("CPU" in alone["device"])


def test_one_local_worker_needs_no_horovodrun(recipe):
    assert make_plan(recipe, [], [Host("localhost", 1)]).argv() == ["kogpt2", "train", recipe]
    assert make_plan(recipe, [], [Host("h1", 1)]).argv()[0] == "horovodrun"


@pytest.mark.parametrize(("cores", "slots", "threads"), [(8, 2, "4"), (7, 2, "3"), (2, 4, "1")])
def test_threads_are_cores_over_slots_on_this_host(recipe, monkeypatch, cores, slots, threads):
    monkeypatch.setattr(variables, "available_cores", lambda: cores)
    (variable,) = make_plan(recipe, [], [Host("localhost", slots)]).env
    assert (variable.name, variable.value) == ("OMP_NUM_THREADS", threads)
    assert variable.source.startswith(f"default: {cores} cores / ")


def test_threads_of_recipe_and_user(recipe):
    local = [Host("localhost", 2)]
    (variable,) = make_plan(recipe, ["training.threads=3"], local).env
    assert (variable.value, variable.source) == ("3", "recipe: training.threads")
    (variable,) = make_plan(recipe, ["training.threads=3"], local, env={"OMP_NUM_THREADS": "5"}).env
    assert (variable.value, variable.source) == ("5", "user: --env")


def test_available_cores_respects_affinity():
    assert hosts.available_cores() == len(os.sched_getaffinity(0))


def test_batch_that_cannot_be_shared_names_the_two_nearest(recipe):
    with pytest.raises(RecipeError, match="nearest that are: 30 or 36"):
        make_plan(recipe, [], [Host("h1", 3)])


def test_workers_must_divide_the_lanes(recipe):
    overrides = ["training.batch_size=1", "training.total_batch_size=96"]
    with pytest.raises(RecipeError, match="3 workers cannot share the 32 reading lanes"):
        make_plan(recipe, overrides, [Host("h1", 3)])
    assert make_plan(recipe, overrides, [Host("h1", 4)]).accumulate == 24


@pytest.mark.parametrize("interface", ["eth0,eth1", "eth0;ls", "-x", "", "averyveryverylongname"])
def test_bad_interface(recipe, interface):
    with pytest.raises(RecipeError, match="--network-interface"):
        make_plan(recipe, [], [Host("h1", 2)], interface)


def test_interface_is_refused_where_horovodrun_would_stumble(recipe):
    with pytest.raises(RecipeError, match="loopback"):
        make_plan(recipe, [], [Host("localhost", 2)], "eth0")


# Plan files


def test_plan_file_round_trip_and_repeats(recipe, tmp_path):
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    command = ["plan", recipe, "training.seed=3", "--hosts", "h1:2,h2:2", "--network-interface", "ens5"]
    command += ["--env", "FI_PROVIDER=efa", "--env", "NCCL_DEBUG=WARN"]
    printed = [invoke(*command, "--json", "--out", path) for path in (one, two)]
    assert [result.exit_code for result in printed] == [0, 0]
    assert one.read_bytes() == two.read_bytes() == printed[0].output.encode()
    plan = load_plan(one)
    assert plan.to_json().encode() == one.read_bytes()
    assert json.loads(one.read_text())["format"] == "kogpt2-launch-plan-5"


def edit_argv(plain):
    plain["processes"]["horovodrun"][0] = "/bin/sh"


def edit_batch(plain):
    plain["batch"]["batch_size"] = 1


def edit_env(plain):
    plain["env"].append({"name": "HF_TOKEN", "value": "x", "source": "user: --env"})


def edit_interface_variable(plain):
    plain["env"].append({"name": "NCCL_SOCKET_IFNAME", "value": "x", "source": "horovodrun: --network-interface"})


def edit_host(plain):
    plain["hosts"][0]["name"] = "-oProxyCommand=x"


def edit_slots(plain):
    plain["hosts"][0]["slots"] = "2"


def edit_format(plain):
    plain["format"] = "kogpt2-launch-plan-99"


def drop_hosts(plain):
    del plain["hosts"]


def add_key(plain):
    plain["cwd"] = "/"


def many_slots(plain):
    plain["hosts"][0]["slots"] = 1 << 40


def endless_slots(plain):
    plain["hosts"][0]["slots"] = float("inf")


def list_of_facts(plain):
    plain["fabric"] = [1]


def odd_version(plain):
    plain["fabric"].update(instance_type="p4d.24xlarge", libfabric_version="1e-320")


def odd_estimate(plain):
    plain["estimate"][0]["more"] = {}


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (edit_argv, "processes does not follow"),
        (edit_batch, "batch does not follow"),
        (edit_env, "looks like a secret"),
        (edit_interface_variable, "--network-interface"),
        (edit_host, "not a host name"),
        (edit_slots, "hosts does not follow"),
        (edit_format, "kogpt2-launch-plan-99"),
        (drop_hosts, "incomplete"),
        (add_key, "cwd does not follow"),
        (many_slots, "plan.json: host localhost: 1099511627776 slots"),
        (endless_slots, "plan.json: incomplete (OverflowError"),
        (list_of_facts, "plan.json: incomplete (AttributeError"),
        (odd_version, "plan.json: --libfabric-version '1e-320': not a version"),
        (odd_estimate, "plan.json: incomplete (TypeError"),
    ],
)
def test_edited_plan_is_refused(recipe, tmp_path, edit, told):
    path = tmp_path / "plan.json"
    plain = make_plan(recipe, [], [Host("localhost", 2)]).to_dict()
    edit(plain)
    path.write_text(json.dumps(plain), encoding="utf-8")
    result = invoke("run", path)
    assert result.exit_code == 2
    assert result.stderr.startswith("kogpt2-launch: ") and told in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("text", ["", "[]", "{", "null", "\udcff", "[" * 100_000])
def test_damaged_plan_is_refused(tmp_path, text):
    path = tmp_path / "plan.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(RecipeError, match="plan "):
        load_plan(path)


def test_plan_of_a_changed_recipe_is_refused(recipe, tmp_path):
    path = tmp_path / "plan.json"
    path.write_text(make_plan(recipe, [], [Host("localhost", 2)]).to_json(), encoding="utf-8")
    assert load_plan(path).size == 2
    with Path(recipe).open("a", encoding="utf-8") as file:
        file.write("model: {units: 24}\n")
    with pytest.raises(RecipeError, match="has changed since"):
        load_plan(path)


def test_the_batch_is_known_to_divide_without_a_plan(recipe):
    """The launcher asks it before it goes on with fewer hosts."""
    text = "training: {batch_size: 2, total_batch_size: 48}\ndata: {seq_length: 32, max_lanes: 16}\n"
    Path(recipe).write_text(text, encoding="utf-8")
    resolved = load_recipe(recipe, [])

    def planned(size):
        try:
            return bool(make_plan(recipe, [], [Host("localhost", size)]))
        except RecipeError:
            return False

    sizes = {size: planned(size) for size in range(1, 26)}
    assert {size: batch_divides(resolved, size) for size in sizes} == sizes
    assert [size for size in sizes if sizes[size]] == [1, 2, 4, 8]


def test_the_file_of_nccls_log_is_said_once(recipe):
    plan = make_plan(recipe, [], parse_hosts("h1:1,h2:1"), "eth0", fabric=Fabric("p3.16xlarge"))
    assert [line.split()[0] for line in plan.describe().splitlines() if "NCCL_DEBUG_FILE" in line] == ["rank", "by"]
    alone = make_plan(recipe, [], [Host("localhost", 1)], fabric=Fabric("p3.16xlarge"))
    assert [each.name for each in alone.env if each.name == "NCCL_DEBUG_FILE"] and not alone.rank_env()
    with pytest.raises(RecipeError, match="NCCL_DEBUG_FILE: kogpt2-launch run sets it for every rank"):
        make_plan(recipe, [], parse_hosts("h1:1"), env={"NCCL_DEBUG_FILE": "x"})


def test_json_has_what_a_start_by_hand_needs(recipe):
    fabric = Fabric("p3.16xlarge")
    for named, by_hand in (("h1:1,h2:1", ["NCCL_DEBUG_FILE"]), ("h1:2", ["NCCL_DEBUG_FILE"]), ("localhost:1", [])):
        plan = make_plan(recipe, [], parse_hosts(named), fabric=fabric)
        added = plan.to_dict()["by_hand_env"]
        assert [each["name"] for each in added] == by_hand
        line = plan.describe().splitlines()[-1]  # the text has the same variables
        assert all(f"{each['name']}={each['value']}" in line for each in (*plan.to_dict()["env"], *added))
    assert make_plan(recipe, [], parse_hosts("h1:2")).to_dict()["by_hand_env"] == []


@pytest.mark.parametrize("fabric", [Fabric(), Fabric("p3.16xlarge"), Fabric("g5.xlarge")])
def test_a_lone_worker_may_have_a_log_of_its_own(recipe, fabric):
    plan = make_plan(recipe, [], [Host("localhost", 1)], env={"NCCL_DEBUG_FILE": "/tmp/nccl.%p"}, fabric=fabric)
    (found,) = [each for each in plan.env if each.name == "NCCL_DEBUG_FILE"]
    assert found.value == "/tmp/nccl.%p" and plan.to_dict()["by_hand_env"] == []


# The command line


def test_plan_prints_every_part(recipe):
    result = invoke("plan", recipe, "--hosts", "h1:2,h2:2", "--env", "NCCL_DEBUG=INFO")
    assert result.exit_code == 0
    for part in ("h2: 2 slots, ranks 2-3", "32 sequences", "accumulate 4", "1,024 an update", "horovodrun"):
        assert part in result.output
    assert "NCCL_DEBUG=INFO  <- user: --env" in result.output


def test_plan_defaults_to_this_machine(recipe):
    result = invoke("plan", recipe, "--json")
    assert json.loads(result.output)["hosts"] == [{"name": "localhost", "slots": 1, "ranks": [0]}]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--hosts", "h1:3"], "nearest"),
        (["--hosts", "h1:2", "--hostfile", "x"], "hosts are named in 2 ways"),
        (["--env", "HF_TOKEN=abc"], "looks like a secret"),
        (["--env", "abc"], "NAME=VALUE"),
        (["training.bach_size=2"], "did you mean training.batch_size"),
        (["--out", "/nonexistent-folder/plan.json"], "cannot be written"),
    ],
)
def test_mistakes_are_answered_in_one_line_with_code_2(recipe, arguments, told):
    result = invoke("plan", recipe, *arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("kogpt2-launch: ") and told in result.stderr
    assert len(result.stderr.splitlines()) == 1 and "abc" not in result.stderr


def test_help_loads_neither_mxnet_nor_the_recipe_reader():
    program = (
        "import sys; sys.argv = ['launch', '--help']\n"
        "from kogpt2_launch.cli.main import main\n"
        "try: main()\n"
        "finally: print(sorted({'mxnet', 'numpy', 'yaml', 'psutil', 'horovod'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "plan" in result.stdout and result.stdout.rstrip().endswith("[]")


def test_planning_loads_no_mxnet(recipe):
    program = (
        "import sys, kogpt2_launch.run.local\n"
        "from kogpt2_launch.plan.plan import make_plan; from kogpt2_launch.hosts import Host\n"
        f"make_plan({recipe!r}, [], [Host('h1', 2)]); print('mxnet' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"


def test_python_dash_m():
    """Libraries on the path are enough: an installed package, here left out by -S, is not needed."""
    command = [sys.executable, "-S", "-m", "launch", "plan", "--help"]
    libraries = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if "site-packages" in path)}
    result = subprocess.run(command, cwd=ROOT, env=libraries, capture_output=True, text=True, check=True)
    assert "python -m launch plan" in result.stdout and "--hosts h1:8,h2:8" in result.stdout
