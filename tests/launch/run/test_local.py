"""Plans that really run on this machine: processes, signals, exit codes, and nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import sys

import psutil
import pytest
from click.testing import CliRunner

from kogpt2_gluon.errors import KoGPT2Error, RecipeError
from kogpt2_gluon.machine import job
from kogpt2_launch.cli.main import main
from kogpt2_launch.hosts import Host, parse_hosts
from kogpt2_launch.plan.plan import make_plan
from kogpt2_launch.run import local as run
from kogpt2_launch.run import stopping
from kogpt2_launch.run.attempt import Options
from kogpt2_launch.run.control import Rank
from kogpt2_launch.run.local import run_local
from kogpt2_launch.run.outcome import explains
from kogpt2_launch.run.programs import find_program
from tests.chaos.netns_helpers import launched, wait_for

# A worker that is ready says so with a file; rank 0 then stops the launcher, as a scheduler would.
STOPPED_WORKER = """
import atexit, os, pathlib, signal, sys, time
folder, launcher, rank = pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(os.environ.get("HOROVOD_RANK", 0))
def save(number, frame):
    if rank == 0:
        time.sleep(7)
    (folder / f"saved-{rank}").touch()
    atexit.register(signal.signal, signal.SIGTERM, signal.SIG_IGN)
    sys.exit(75)
signal.signal(signal.SIGTERM, save)
(folder / f"ready-{rank}").touch()
while not all((folder / f"ready-{other}").exists() for other in range(int(os.environ.get("HOROVOD_SIZE", 1)))):
    time.sleep(0.05)
if rank == 0:
    os.kill(launcher, signal.SIGTERM)
time.sleep(120)
"""

# Rank 1 leaves with a code of its own; rank 0 is then thrown out of its second allreduce.
HOROVOD_WORKER = """
import sys
import mxnet as mx
import horovod.mxnet as hvd
hvd.init()
total = hvd.allreduce(mx.nd.ones(4) * (hvd.rank() + 1), average=False, name="first")
print("total", total.asnumpy().tolist(), "size", hvd.size(), flush=True)
if hvd.rank() == 1:
    sys.exit(3)
hvd.allreduce(mx.nd.ones(4), name="second").asnumpy()
"""


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "tiny.yaml"
    run_dir = tmp_path / "run"
    path.write_text(
        f"training: {{batch_size: 2, total_batch_size: 8}}\ntracking: {{run_dir: {run_dir}}}\n", encoding="utf-8"
    )
    return str(path)


@pytest.fixture(autouse=True)
def nothing_left():
    """Proves at the end of each test that nothing which it launched is left."""
    yield
    assert not launched()


def start(recipe, tmp_path, code, size=1, arguments=(), grace=120.0):
    script = tmp_path / "worker.py"
    script.write_text(code, encoding="utf-8")
    plan = make_plan(recipe, [], [Host("localhost", size)], env={"KOGPT2_TEST": "a b;$c"})
    return run_local(plan, worker=[sys.executable, str(script), *map(str, arguments)], options=Options(grace=grace))


def need_horovod():
    pytest.importorskip("horovod", reason="make horovod builds it")


def test_exit_code_of_a_horovod_worker_comes_back(recipe, tmp_path, capfd):
    need_horovod()
    assert start(recipe, tmp_path, HOROVOD_WORKER, size=2) == 3
    out, err = capfd.readouterr()
    told = "total [3.0, 3.0, 3.0, 3.0] size 2"
    assert told in out and told in (tmp_path / "run" / "launch" / "attempt-01" / "rank-00001.log").read_text()
    assert "rank 1 on localhost ended with exit code 3 (bad data)" in err
    assert (
        (tmp_path / "run" / "launch" / "attempt-01.log").read_text().startswith("rank 1 on localhost ended with exit")
    )


def test_two_workers_that_end_well(recipe, tmp_path):
    need_horovod()
    code = "import os, sys; open(sys.argv[1] + '/rank-' + os.environ['HOROVOD_RANK'], 'w').write(sys.argv[2])"
    assert start(recipe, tmp_path, code, size=2, arguments=[tmp_path, "한 글; $x"]) == 0
    assert [(tmp_path / f"rank-{rank}").read_text(encoding="utf-8") for rank in range(2)] == ["한 글; $x"] * 2


@pytest.mark.slow
def test_two_workers_that_save_on_sigterm_are_waited_for(recipe, tmp_path, capfd):
    """Rank 0 saves for longer than the 5 seconds that horovodrun gives once another rank has failed."""
    need_horovod()
    assert start(recipe, tmp_path, STOPPED_WORKER, size=2, arguments=[tmp_path, os.getpid()]) == 75
    assert (tmp_path / "saved-0").exists() and (tmp_path / "saved-1").exists()
    assert "asked to stop: state saved" in capfd.readouterr().err


def test_killed_worker_is_named(recipe, tmp_path, capfd):
    need_horovod()
    code = "import os, time; os.kill(os.getpid(), 9) if os.environ['HOROVOD_RANK'] == '1' else time.sleep(120)"
    assert start(recipe, tmp_path, code, size=2) == 128 + 9
    assert "rank 1 on localhost was killed by SIGKILL" in capfd.readouterr().err


def test_worker_that_cannot_start(recipe, capfd):
    need_horovod()
    plan = make_plan(recipe, [], [Host("localhost", 2)])
    assert run_local(plan, worker=["/nonexistent/kogpt2"]) == 127
    assert "/nonexistent/kogpt2: No such file or directory" in capfd.readouterr().err


@pytest.mark.parametrize("code", [0, 1, 2, 4, 75])
def test_exit_code_of_a_single_worker(recipe, tmp_path, code):
    assert start(recipe, tmp_path, f"raise SystemExit({code})") == code


def test_single_worker_killed_by_a_signal(recipe, tmp_path):
    assert start(recipe, tmp_path, "import os; os.kill(os.getpid(), 9)") == 137


def test_single_worker_that_cannot_start(recipe):
    plan = make_plan(recipe, [], [Host("localhost", 1)])
    with pytest.raises(KoGPT2Error, match="/nonexistent/kogpt2: cannot be started"):
        run_local(plan, worker=["/nonexistent/kogpt2"])


def test_second_signal_ends_a_worker_that_does_not_listen(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(job, "ECHO_SECONDS", 0.5)
    code = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for _ in range(2):
    os.kill(int(sys.argv[1]), signal.SIGTERM)
    time.sleep(1)
time.sleep(120)
"""
    assert start(recipe, tmp_path, code, arguments=[os.getpid()]) == 128 + 9


def test_worker_that_does_not_end_is_killed_after_the_grace(recipe, tmp_path):
    code = """
import os, signal, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.kill(int(sys.argv[1]), signal.SIGINT)
time.sleep(120)
"""
    assert start(recipe, tmp_path, code, arguments=[os.getpid()], grace=0.5) == 128 + 9


def test_leftovers_are_ended_even_out_of_the_session(recipe, tmp_path):
    code = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"], start_new_session=True)
open(sys.argv[1], "w").write(str(child.pid))
"""
    bystander = psutil.Popen([sys.executable, "-c", "import time; time.sleep(120)"])
    try:
        assert start(recipe, tmp_path, code, arguments=[tmp_path / "pid"]) == 0
        pid = int((tmp_path / "pid").read_text())
        assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_workers_get_the_allowlist_and_the_plan(recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    monkeypatch.setenv("SOME_EDITOR", "vi")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    monkeypatch.setenv("OMP_NUM_THREADS", "77")
    code = "import json, os, sys; json.dump(dict(os.environ), open(sys.argv[1], 'w'))"
    assert start(recipe, tmp_path, code, arguments=[tmp_path / "env.json"]) == 0
    seen = json.loads((tmp_path / "env.json").read_text())
    assert "AWS_SECRET_ACCESS_KEY" not in seen and "SOME_EDITOR" not in seen
    assert seen["LC_ALL"] == "C.UTF-8" and seen["PATH"] == os.environ["PATH"]
    assert seen["KOGPT2_TEST"] == "a b;$c" and seen["OMP_NUM_THREADS"] != "77"


def test_worker_saves_and_ends_when_its_launcher_is_gone(recipe, tmp_path):
    """The launcher is killed, or its terminal hangs up: neither leaves the single worker running."""
    script = tmp_path / "worker.py"
    script.write_text(
        STOPPED_WORKER.replace("os.kill(launcher, signal.SIGTERM)", "pass").replace("sleep(7)", "sleep(0)")
    )
    for number in (signal.SIGKILL, signal.SIGHUP):
        worker = [sys.executable, str(script), str(tmp_path), "0"]
        code = (
            "from kogpt2_launch.run.local import run_local; from kogpt2_launch.plan.plan import make_plan\n"
            "from kogpt2_launch.hosts import Host\n"
            f"run_local(make_plan({recipe!r}, [], [Host('localhost', 1)]), worker={worker!r})"
        )
        launcher = psutil.Popen([sys.executable, "-c", code], start_new_session=True)
        wait_for((tmp_path / "ready-0").exists, "the worker", 30)
        launcher.send_signal(number)
        wait_for((tmp_path / "saved-0").exists, "its save", 30)
        launcher.wait(timeout=30)
        for name in ("ready-0", "saved-0"):
            (tmp_path / name).unlink()
        wait_for(lambda: not launched(), "nothing left", 30)


def test_hang_up_that_is_ignored_stays_ignored():
    """nohup kogpt2-launch run ..."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stopping.stop_signals() as received:
            os.kill(os.getpid(), signal.SIGHUP)
        assert received == [] and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        with stopping.stop_signals() as received:
            os.kill(os.getpid(), signal.SIGHUP)
        assert received == [signal.SIGHUP]
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(("arguments", "restarts"), [(["--restarts", "5"], 5), ([], 0)])
def test_options_reach_a_local_run(recipe, monkeypatch, arguments, restarts):
    seen = []
    monkeypatch.setattr(run, "run_job", lambda plan, options, policy, worker: seen.append((options, policy)) or 0)
    arguments = ["run", recipe, "--np", "2", "--hang-seconds", "20", "--port", "2222", *arguments]
    assert CliRunner().invoke(main, arguments, catch_exceptions=False).exit_code == 0
    ((options, policy),) = seen
    assert (options.hang, options.shell.port, policy.restarts) == (20.0, 2222, restarts)


@pytest.mark.parametrize(("arguments", "code"), [([], 75), (["--stopped-is-done"], 0)])
def test_exit_code_after_stop_for_what_would_retry(recipe, tmp_path, monkeypatch, arguments, code):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "stop").touch()
    monkeypatch.setattr(run, "run_local", lambda *_: 75)
    assert CliRunner().invoke(main, ["run", recipe, *arguments]).exit_code == code


def test_signal_handlers_are_put_back(recipe, tmp_path):
    before = run.signal.getsignal(run.signal.SIGTERM)
    start(recipe, tmp_path, "")
    assert run.signal.getsignal(run.signal.SIGTERM) is before


def test_other_hosts_are_refused(recipe):
    with pytest.raises(RecipeError, match="h2 is another host"):
        run_local(make_plan(recipe, [], parse_hosts("localhost:2,h2:2")))
    with pytest.raises(RecipeError, match="runs one host"):
        run_local(make_plan(recipe, [], parse_hosts("localhost:2,127.0.0.1:2")))


def test_command_line_refuses_other_hosts_and_mixed_arguments(recipe, tmp_path):
    path = tmp_path / "plan.json"
    path.write_text(make_plan(recipe, [], [Host("h1", 2)]).to_json(), encoding="utf-8")
    local = ["--backend", "local"]
    for arguments, told in ([local, "h1 is another host"], [["--np", "2"], "run as it is"], [["a=1"], "run as it is"]):
        result = CliRunner().invoke(main, ["run", str(path), *arguments])
        assert result.exit_code == 2 and told in result.stderr and len(result.stderr.splitlines()) == 1


def test_a_code_that_says_why_goes_before_an_earlier_one_that_does_not():
    echo, cause, late = Rank(0, "h", code=1, ended=1), Rank(1, "h", code=3, ended=2), Rank(2, "h", code=4, ended=3)
    assert min([late, echo, cause], key=explains) == cause
    killed, lost = Rank(1, "h", code=137, ended=2), Rank(2, "h", lost="gone", ended=1.5)
    assert min([echo, killed], key=explains) == killed
    assert min([echo, killed, lost], key=explains) == lost


def test_programs_are_found_beside_python_first(tmp_path, monkeypatch):
    beside, elsewhere = tmp_path / "bin", tmp_path / "path"
    for folder in (beside, elsewhere):
        folder.mkdir()
        (folder / "tool").write_text("#!/bin/sh\n")
        (folder / "tool").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(beside / "python"))
    monkeypatch.setenv("PATH", str(elsewhere))
    assert find_program("tool") == str(beside / "tool")
    (beside / "tool").unlink()
    assert find_program("tool") == str(elsewhere / "tool")
    (elsewhere / "tool").unlink()
    with pytest.raises(KoGPT2Error, match="tool: not in the folder of"):
        find_program("tool")
