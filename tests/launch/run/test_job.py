"""A launch on this machine, of two workers that are small scripts: restarts, hangs, spot notices, status, the lock."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner

import kogpt2_gluon
from kogpt2_gluon.errors import DataError, KoGPT2Error, RecipeError
from kogpt2_launch.cli.main import main
from kogpt2_launch.hosts import Host, parse_hosts
from kogpt2_launch.plan import environment
from kogpt2_launch.plan.plan import make_plan
from kogpt2_launch.plan.variables import Fabric, rank_variables
from kogpt2_launch.run import attempt, verdicts
from kogpt2_launch.run.attempt import Options
from kogpt2_launch.run.control import Control
from kogpt2_launch.run.job import check_inherited, locked, next_number, run_job
from kogpt2_launch.run.restart import Policy
from kogpt2_launch.run.status import ask_to_stop, describe, read_status, report_file
from kogpt2_launch.run.verdicts import wrong_network
from tests.chaos.netns_helpers import launched, wait_for

pytest.importorskip("horovod", reason="make horovod builds it")

# What kogpt2 train does for its supervisor, and no more. argv: folder.
WORKER = """
import atexit, os, pathlib, signal, sys, time
folder, rank = pathlib.Path(sys.argv[1]), int(os.environ["HOROVOD_RANK"])
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
atexit.register(signal.signal, signal.SIGTERM, signal.SIG_IGN)
def step(number):
    pathlib.Path(os.environ["KOGPT2_PROGRESS_FILE"]).write_text(f"{number:>15} {number:>15}\\n")
    time.sleep(1.5)  # the supervisor reports it once a second
    (folder / f"moved-{rank}").touch()
print("rank", rank, "says", "안녕", flush=True)
"""


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """These workers end together: nobody waits long for another's better reason."""
    monkeypatch.setattr(attempt, "SETTLE_SECONDS", 0.5)


@pytest.fixture
def launch(tmp_path):
    """Runs two workers of a script; gives the exit code."""
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(f"training: {{batch_size: 2, total_batch_size: 8}}\ntracking: {{run_dir: {tmp_path / 'run'}}}\n")
    plan = make_plan(str(recipe), [], [Host("localhost", 2)])

    def run(code, policy=None, **options):
        script = tmp_path / "worker.py"
        script.write_text(WORKER + code, encoding="utf-8")
        options = Options(**{"detect": 5.0, "hang": 60.0, "grace": 20.0, **options})
        return run_job(plan, options, policy or Policy(0), [sys.executable, str(script), str(tmp_path)])

    run.plan, run.folder = plan, tmp_path / "run" / "launch"
    return run


def report(launch, number=1):
    return (launch.folder / f"attempt-{number:02d}.log").read_text()


def test_a_rank_that_stands_still_ends_the_job_with_the_stacks_of_all(launch, capfd):
    code = "def stuck():\n    time.sleep(100)\nstep(1)\nif rank: os.kill(os.getpid(), signal.SIGSTOP)\nstuck()"
    assert launch(code, hang=3.0) == 1
    first, *rest = report(launch).splitlines()
    assert first.startswith("no worker has moved for") and "rank 1 on localhost: its process is stopped" in first
    assert sum("stuck" in line for line in rest) >= 1 and any("state T (stopped" in line for line in rest)
    assert first in capfd.readouterr().err


def test_a_failure_is_followed_by_a_restart(launch, capfd):
    code = """
step(3)
if rank == 1 and not (folder / "tried").exists():
    (folder / "tried").touch()
    sys.exit(6)
"""
    assert launch(code, Policy(2, backoff=0.1)) == 0
    assert report(launch).startswith("rank 1 on localhost ended with exit code 6")
    assert report(launch, 2).startswith("done")
    out, err = capfd.readouterr()
    assert out.count("rank 0 says 안녕") == 2 and "restart 1 of 2 in 0.1 s" in err
    status = json.loads((launch.folder / "status.json").read_text())
    assert (status["state"], status["attempt"]) == ("done", 2)


def test_bad_data_is_not_tried_again(launch, capfd):
    assert launch("step(1)\ntime.sleep(0.5)\nsys.exit(3 if rank else 1)", Policy(5, backoff=0.1)) == 3
    assert "a restart would end the same way" in capfd.readouterr().err
    assert next_number(launch.folder) == 2


@pytest.mark.slow  # the rule is in test_restart.py
def test_two_attempts_without_a_checkpoint_are_enough(launch, capfd):
    assert launch("step(1)\ntime.sleep(0.2)\nsys.exit(6)", Policy(9, backoff=0.1)) == 6
    assert "no new checkpoint in 2 attempts in a row" in capfd.readouterr().err
    assert next_number(launch.folder) == 3


def test_notice_of_a_spot_instance_saves_and_ends(launch, metadata, tmp_path):
    metadata.wait_for = [tmp_path / "moved-0", tmp_path / "moved-1"]
    metadata.notice = json.dumps({"action": "terminate", "time": "2026-11-21T20:00:00Z"})
    assert launch("step(1)\ntime.sleep(60)", Policy(3, 0.1), metadata=metadata.address) == 75
    assert "localhost leaves (terminate at 2026-11-21T20:00:00Z): state saved" in report(launch).splitlines()[0]


def test_notice_before_the_first_step_ends_at_once(launch, metadata):
    metadata.notice = json.dumps({"action": "terminate", "time": "soon"})
    assert launch("time.sleep(60)", Policy(3, 0.1), metadata=metadata.address) == 1
    assert report(launch).startswith("localhost leaves before the first step")


def test_workers_that_do_not_save_in_time_are_ended(launch, metadata, tmp_path):
    metadata.wait_for = [tmp_path / "moved-0", tmp_path / "moved-1"]
    metadata.notice = json.dumps({"action": "terminate", "time": "soon"})
    code = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nstep(1)\ntime.sleep(60)"
    assert launch(code, metadata=metadata.address, grace=1.0) == 1
    assert "not saved within 1 s" in report(launch).splitlines()[0]


def test_sockets_where_efa_was_planned_are_a_failure():
    fabric = Fabric("p4d.24xlarge", "1.13.2", "1.22")
    plan = make_plan("kogpt2_base", [], parse_hosts("h1:8,h2:8"), "ens32", fabric=fabric)

    async def judged(*lines):
        control = Control(["h1"] * 8 + ["h2"] * 8, "token", 5.0, print)
        control.ranks[9].network.extend(lines)
        return wrong_network(plan, control.ranks)

    right = "h2:7:9 [1] NCCL INFO Using network AWS Libfabric"
    wrong = "h2:7:9 [1] NCCL INFO Using network Socket"
    assert asyncio.run(judged("NET/OFI Selected Provider is efa", right)) is None
    outcome = asyncio.run(judged(wrong))
    assert outcome.host == "h2" and "rank 9 on h2: NCCL fell back to sockets where EFA was planned" in outcome.reason


def test_network_lines_of_nccl_reach_the_launcher(launch, monkeypatch):
    monkeypatch.setenv("NCCL_DEBUG", "INFO")
    code = """
with open(os.environ["NCCL_DEBUG_FILE"], "w") as file:
    file.write("x:1:2 [0] NCCL INFO Bootstrap : Using eth0\\nx:1:2 [0] NCCL INFO Using network Socket\\n")
step(1)
time.sleep(2.5)
"""
    told = []
    monkeypatch.setattr(verdicts, "wrong_network", lambda plan, ranks: told.extend(ranks[1].network))
    assert launch(code) == 0
    assert "x:1:2 [0] NCCL INFO Using network Socket" in told
    assert (launch.folder / "attempt-01" / "rank-00001.nccl.log").exists()


def test_what_runs_is_what_the_plan_says(launch, monkeypatch):
    """The engine's command, and the variables that each rank gets according to the plan."""
    started, start = [], asyncio.create_subprocess_exec

    async def noted(*argv, **options):
        started.append(list(argv))
        return await start(*argv, **options)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", noted)
    monkeypatch.setenv("NCCL_DEBUG", "INFO")
    code = "pathlib.Path(folder / f'env-{rank}').write_text('\\n'.join(f'{n}={v}' for n, v in os.environ.items()))"
    assert launch(code) == 0
    planned = launch.plan.processes()
    (argv,) = started
    mark = argv[-1].removeprefix("/tmp/kogpt2-launch-").removesuffix("/agent.zip")
    as_written = [each.replace("PYTHON", sys.executable).replace("-ID/", f"-{mark}/") for each in planned["horovodrun"]]
    assert [Path(argv[0]).name, *argv[1:]] == as_written
    worker = dict(line.split("=", 1) for line in (launch.folder.parents[1] / "env-1").read_text().splitlines())
    added = rank_variables(str(launch.folder.parent), with_nccl=True)
    ours = {name for name in worker if name not in environment.inherited(os.environ) and name != "PWD"}
    said = {each.name for each in (*added, *launch.plan.env)}
    assert {name for name in ours if not name.startswith("HOROVOD_")} <= said
    assert worker["KOGPT2_LAUNCH_ID"] == mark and worker["KOGPT2_LAUNCH_RANK"] == "1"
    (log,) = [each.value for each in added if each.name == "NCCL_DEBUG_FILE"]
    assert worker["NCCL_DEBUG_FILE"] == log.replace("NN", "01").replace("RANK", "00001")


def test_a_worker_imports_the_installed_package(launch):
    """The archive on the hosts has a package of the same name, with one file in it."""
    assert launch("import kogpt2_gluon.recipe\n(folder / f'from-{rank}').write_text(kogpt2_gluon.__file__)") == 0
    assert (launch.folder.parents[1] / "from-1").read_text() == kogpt2_gluon.__file__


def test_launcher_that_is_asked_to_stop_does_not_start_again(launch):
    """Before its first step a worker has no handler yet, and the signal ends it."""
    code = "signal.signal(signal.SIGTERM, signal.SIG_DFL)\n"
    code += f"time.sleep(2)\nif rank == 0: os.kill({os.getpid()}, signal.SIGTERM)\ntime.sleep(60)"
    assert launch(code, Policy(5, backoff=0.1)) == 75
    assert report(launch).splitlines()[0] == "asked to stop before the first step"
    assert next_number(launch.folder) == 2


def test_workers_that_end_unasked_are_started_again(launch):
    """This happens when they have missed the launcher's heartbeat."""
    code = (
        "step(1)\nonce = folder / 'once'\nif not once.exists():\n    time.sleep(1)\n    once.touch()\n    sys.exit(75)"
    )
    assert launch(code, Policy(1, backoff=0.1)) == 0
    assert "the workers ended by themselves" in report(launch).splitlines()[0]


@pytest.mark.parametrize("how", ["file", "signal"])
def test_asked_to_stop_between_two_attempts(launch, how):
    def ask():
        wait_for(lambda: status(launch).get("state") == "waiting", "the pause", 60)
        if how == "file":
            (launch.folder.parent / "stop").touch()
        else:
            os.kill(os.getpid(), signal.SIGTERM)

    asking = threading.Thread(target=ask)
    asking.start()
    assert launch("sys.exit(9)", Policy(3, backoff=60)) == 75
    asking.join()
    assert next_number(launch.folder) == 2 and status(launch)["text"] == "asked to stop before the restart"
    assert {rank["code"] for rank in status(launch)["ranks"]} == {9}


def status(launch):
    path = launch.folder / "status.json"
    return json.loads(path.read_text()) if path.exists() else {}


def test_stop_file_of_an_earlier_launch_is_not_heeded(launch):
    (launch.folder.parent).mkdir()
    (launch.folder.parent / "stop").touch()
    assert launch("assert not (folder / 'run' / 'stop').exists()\nstep(1)") == 0


def test_status_that_cannot_be_written_does_not_end_a_run(launch, capfd):
    (launch.folder / "status.json").mkdir(parents=True)
    assert launch("step(1)") == 0
    assert "status.json: cannot be written" in capfd.readouterr().err


def test_folder_that_cannot_be_made_is_told(launch, capfd):
    launch.folder.mkdir(parents=True)
    (launch.folder / "attempt-01").touch()
    assert launch("step(1)") == 1
    assert "attempt-01: File exists" in capfd.readouterr().err


def test_one_rank_without_a_first_step_is_named(launch):
    assert launch("if rank == 0: step(1)\ntime.sleep(60)", start=10.0) == 1
    assert report(launch).startswith("no first step within 10 s: rank 1\n")


def test_stop_and_logs_of_a_folder(launch):
    run_dir = launch.folder.parent
    with pytest.raises(DataError, match="no launch has run here"):
        ask_to_stop(run_dir)
    run_dir.mkdir(exist_ok=True)
    (run_dir / "recipe.yaml").touch()
    assert read_status(run_dir)["state"] == "alone"
    assert ask_to_stop(run_dir).exists()  # a single worker looks for it too
    assert launch("") == 0
    with pytest.raises(DataError, match="the run has ended; there is nothing to stop"):
        ask_to_stop(run_dir)
    for number in (9, 99, 100):
        (launch.folder / f"attempt-{number:02d}.log").write_text(f"the end of {number}")
    assert report_file(run_dir).read_text() == "the end of 100" and report_file(run_dir, 9).name == "attempt-09.log"
    told = describe(read_status(run_dir)).splitlines()
    assert told[0] == "attempt 1: done" and len(told) == 3 and "ended with exit code 0" in told[1]


def test_mpirun_on_other_hosts_wants_an_interface():
    plan = make_plan("kogpt2_base", [], parse_hosts("h1:8,h2:8"))
    with pytest.raises(RecipeError, match="--backend mpirun: make the plan with --network-interface"):
        run_job(plan, Options("mpirun"), Policy(0))


def test_sigterm_to_launcher_engine_and_workers_at_once_is_one_request(launch):
    """A scheduler may send it to all processes of its job, and its script may send it once more."""
    code = f"""
import psutil
step(1)
if rank == 0:
    launcher = psutil.Process({os.getpid()})
    children = [child for child in launcher.children() if child.status() != psutil.STATUS_ZOMBIE]
    (engine,) = [child for child in children if any("horovodrun" in word for word in child.cmdline())]
    for process in (launcher, engine, psutil.Process(), launcher):
        process.terminate()
time.sleep(60)
"""
    assert launch(code, Policy(5, backoff=0.1)) == 75
    assert "state saved" in report(launch).splitlines()[0]


def test_variables_that_would_be_inherited_are_linted_too(monkeypatch, capsys):
    fabric = Fabric("p4d.24xlarge", "1.13.2", "1.22")
    plan = make_plan("kogpt2_base", [], parse_hosts("h1:8,h2:8"), "ens32", fabric=fabric)
    monkeypatch.setenv("NCCL_MIN_NCHANNELS", "8")
    check_inherited(plan)
    assert "NCCL_MIN_NCHANNELS in this environment" in capsys.readouterr().err
    monkeypatch.setenv("NCCL_PROTO", "LL128")
    with pytest.raises(RecipeError, match=r"NCCL_PROTO in this environment.*unset it"):
        check_inherited(plan)


def test_one_launcher_a_run_folder(tmp_path):
    refused = pytest.raises(KoGPT2Error, match="another launcher runs this")
    with locked(tmp_path / "launch"), refused, locked(tmp_path / "launch"):
        pass
    with locked(tmp_path / "launch"):
        pass


def test_status_logs_and_stop(launch, tmp_path):
    assert launch("step(7)\ntime.sleep(2.5)\nsys.exit(4 if rank else 0)") == 4
    run_dir = str(tmp_path / "run")
    status = CliRunner().invoke(main, ["status", run_dir])
    assert status.exit_code == 0 and "attempt 1: ended; rank 1 on localhost ended with exit code 4" in status.output
    logs = CliRunner().invoke(main, ["logs", run_dir, "--rank", "1"])
    assert logs.output == "rank 1 says 안녕\n"
    why = CliRunner().invoke(main, ["logs", run_dir, "--why"])
    assert why.output.startswith("rank 1 on localhost ended with exit code 4 (diverged)")
    assert CliRunner().invoke(main, ["stop", run_dir]).exit_code == 3 and not (tmp_path / "run" / "stop").exists()
    for missing in (["logs", run_dir, "--rank", "9"], ["status", str(tmp_path)], ["logs", run_dir, "--attempt", "8"]):
        result = CliRunner().invoke(main, missing)
        assert result.exit_code == 3 and len(result.stderr.splitlines()) == 1


BEAT = "def beat(number): progress.write_text(f'{number:>15} {number:>15}')\n"


@pytest.mark.parametrize(
    ("code", "exit_code", "steps"),
    [
        ("beat(28); beat(30)", 0, [30, 30]),  # two steps within a beat's second
        ("beat(7 + rank)", 0, [7, 8]),
        ("beat(4)\nif rank: beat(5); sys.exit(4)\ntime.sleep(3); sys.exit(0)", 4, [4, 5]),
        ("sys.exit(75)", 75, [-1, -1]),
    ],
)
def test_the_last_steps_of_a_rank_that_ended_are_in_its_status(launch, code, exit_code, steps):
    assert launch(f"progress = pathlib.Path(os.environ['KOGPT2_PROGRESS_FILE'])\n{BEAT}{code}") == exit_code
    assert [rank["step"] for rank in read_status(launch.folder.parent)["ranks"]] == steps


def test_killed_launcher_leaves_nothing(launch, tmp_path):
    """SIGKILL gives it no chance to clean up: its supervisors do."""
    script = tmp_path / "worker.py"
    script.write_text(WORKER + "step(1)\n(folder / f'up-{rank}').touch()\ntime.sleep(100)", encoding="utf-8")
    code = (
        "import sys; from kogpt2_launch.run.job import *; from kogpt2_launch.hosts import Host\n"
        f"plan = make_plan({str(tmp_path / 'tiny.yaml')!r}, [], [Host('localhost', 2)])\n"
        f"run_job(plan, Options(detect=3.0), Policy(0), [sys.executable, {str(script)!r}, {str(tmp_path)!r}])"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        wait_for(lambda: all((tmp_path / f"up-{rank}").exists() for rank in range(2)), "workers", 60)
        assert len(launched()) >= 4
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    wait_for(lambda: not launched(), "nothing left", 20)
