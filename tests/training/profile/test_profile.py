"""Where a step goes: reading MXNet's record, attributing it, and the verb end to end, in processes of its own."""

from __future__ import annotations

import json
import math
import sys
import time
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

from kogpt2_gluon.recipe import load_recipe
from kogpt2_gluon.training.phases import PHASES
from kogpt2_gluon.training.profile.trace import IDLE, Span, covered, operator_times, read_spans, write_trace
from tests.helpers import run
from tests.training.run_helpers import HORUN

VERB = """
from kogpt2_gluon.cli import main as cli
from kogpt2_gluon.cli.profile import profile
cli.cli.add_command(profile)
cli.main()
"""
COMMAND = (sys.executable, "-c", VERB, "profile")


def mxnet_event(phase: str, name: str, time: int, thread: int = 7, process: int = 0) -> dict:
    return {"ph": phase, "name": name, "cat": "operator", "ts": time, "pid": process, "tid": thread}


def test_each_operator_is_read_once(tmp_path):
    large = 18169958878820607732  # as MXNet numbers its threads
    events = [
        {"ph": "M", "name": "process_name", "pid": 0, "args": {"name": "cpu/0"}},
        mxnet_event("B", "outer", 10),
        mxnet_event("B", "inner", 20),
        mxnet_event("B", "other", 22, large),
        mxnet_event("E", "inner", 30),
        mxnet_event("E", "outer", 40),
        mxnet_event("b", "inner", 20, process=99),
        mxnet_event("e", "inner", 30, process=99),
        mxnet_event("E", "other", 25, large),
        mxnet_event("B", "never ended", 50),
    ]
    path = tmp_path / "mxnet.json"
    path.write_text(json.dumps({"traceEvents": events}))
    assert read_spans(path) == [
        Span("outer", 10, 40, "cpu/0 thread 1"),
        Span("inner", 20, 30, "cpu/0 thread 1"),
        Span("other", 22, 25, "cpu/0 thread 2"),
    ]


def test_operators_belong_to_the_phase_they_begin_in():
    phases = [Span("forward", 0, 1000), Span("backward", 1000, 3000), Span("forward", 4000, 5000)]
    operators = [
        Span("dot", 0, 200),
        Span("dot", 1000, 2500),
        Span("add", 1500, 2700, "another thread"),
        Span("lost", 3500, 3600),  # between two steps
        Span("dot", 4500, 5000),
    ]
    found = {(each.operator, each.phase): each for each in operator_times(phases, operators, steps=2)}
    assert set(found) == {("dot", "forward"), ("dot", "backward"), ("add", "backward"), (IDLE, "forward")} | {
        (IDLE, "backward")
    }
    assert found["dot", "forward"].calls_a_step == 1 and found["dot", "forward"].ms_a_step == pytest.approx(0.35)
    assert found["dot", "backward"].share == pytest.approx(1500 / 4000)
    assert found[IDLE, "forward"].ms_a_step == pytest.approx((800 + 500) / 2e3)
    assert found[IDLE, "backward"].ms_a_step == pytest.approx(300 / 2e3)  # two at once count once


def test_covered_time_is_that_of_the_union():
    phase = Span("forward", 100, 200)
    assert covered([], phase) == 0
    spans = [Span("a", 90, 120), Span("b", 110, 115), Span("c", 118, 130), Span("d", 150, 300)]
    assert covered(spans, phase) == 30 + 50


def test_the_trace_has_phases_and_operators_on_one_clock(tmp_path):
    phases = [Span("forward", 1e15, 1e15 + 50), Span("backward", 1e15 + 50, 1e15 + 90)]
    operators = [Span("dot", 1e15 + 1, 1e15 + 9, "cpu/0 thread 2"), Span("dot", 1e15 + 2, 1e15 + 3, "cpu/0 thread 1")]
    write_trace(tmp_path / "trace.json", phases, operators)
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    shown = [(e["name"], e["cat"], e["pid"], e["tid"], e["ts"], e["dur"]) for e in events if e["ph"] == "X"]
    assert shown == [
        ("forward", "phase", 1, 1, 0, 50),
        ("backward", "phase", 1, 1, 50, 40),
        ("dot", "operator", 2, 2, 1, 8),
        ("dot", "operator", 2, 1, 2, 1),
    ]
    names = {(e["pid"], e.get("tid")): e["args"]["name"] for e in events if e["ph"] == "M"}
    assert names[2, 1] == "cpu/0 thread 1" and names[2, 2] == "cpu/0 thread 2" and names[1, 1] == "phases"


def check(found: dict, steps: int) -> None:
    """Checks what holds for any profile of a recipe with two micro steps."""
    assert [phase["phase"] for phase in found["phases"]] == list(PHASES)
    assert sum(phase["share"] for phase in found["phases"]) == pytest.approx(1)
    step = sum(phase["ms_a_step"] for phase in found["phases"]) / 1e3
    assert step == pytest.approx(found["tokens_per_step"] / found["tokens_per_second_apart"], rel=0.1)
    assert min(found[f"tokens_per_second{which}"] for which in ("", "_profiled")) > 0
    assert found["peak_memory"] > 16 * found["parameters"]
    times = {(each["operator"], each["phase"]): each for each in found["operators"]}
    assert not [name for name, _ in times if "," in name], "several operators as one: MXNet's segments"
    for phase in ("forward", "backward"):
        assert sum(where == phase for _, where in times) > 10
    # A step has two micro steps of a graph with 2 x 3 + 1 products at least, whatever they are called.
    assert max(each["calls_a_step"] for each in times.values()) >= 14
    assert all((each["calls_a_step"] * steps) % 1 == 0 for each in times.values())
    idle = sum(each["ms_a_step"] for (name, _), each in times.items() if name == IDLE)
    assert 0 < idle < 1e3 * found["tokens_per_step"] / found["tokens_per_second_profiled"]


def test_a_profile_of_random_tokens(tiny, tmp_path):
    missing = ["data.train=nowhere", "data.test=nowhere", "training.ops=stock"]
    done = run(*COMMAND, "debug_cpu", *tiny, *missing, "--synthetic", "--steps", 2, "--out", tmp_path / "out", "--json")
    found = json.loads(done.stdout)
    check(found, 2)
    assert found["synthetic"] and found["tokens_per_step"] == 8 * 32
    assert done.stderr.splitlines()[-1] == "operators: 2 steps done"
    assert not (tmp_path / "run").exists(), "the recipe's own run folder"
    events = [e for e in json.loads((tmp_path / "out" / "trace.json").read_text())["traceEvents"] if e["ph"] == "X"]
    phases = [(e["name"], e["ts"], e["ts"] + e["dur"]) for e in events if e["cat"] == "phase"]
    assert phases[0][:2] == ("read", 0) and sum(name == "update" for name, *_ in phases) == 2
    operators = [(e["ts"], e["ts"] + e["dur"]) for e in events if e["cat"] == "operator"]
    inside = [any(start <= begun and ended <= end for _, start, end in phases) for begun, ended in operators]
    assert sum(inside) > 0.95 * len(inside) > 100  # MXNet and we read one clock


def test_a_profile_of_real_tokens_by_two_workers(tiny, tmp_path):
    workers = (*HORUN, "--gloo", "-np", 2, *COMMAND)
    options = ["training.total_batch_size=16", "training.ops=stock", "--steps", 2, "--warmup", 1]
    done = run(*workers, "debug_cpu", *tiny, *options)
    assert done.stdout.count("RANDOM") == 0 and done.stdout.count("2 worker(s) on cpu(0)") == 1
    written = [file.relative_to(tmp_path / "run") for file in (tmp_path / "run").rglob("*") if file.is_file()]
    assert "horovod_allreduce" in done.stdout and written == [Path("profile/trace.json")]
    rows = [line.partition(":")[2].split() for line in done.stdout.splitlines()]  # after horovodrun's prefix
    assert [row[0] for row in rows if row and row[0] in PHASES] == list(PHASES), "the table, once"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["no_such_recipe"], "no_such_recipe"),
        (["debug_cpu", "training.batchsize=2"], "training.batch_size"),
        (["debug_cpu", "--synthetic", "--out", "file/below"], "file/below: cannot be written to"),
        (["debug_cpu", "--synthetic", "model.vocab_size=8"], "model.vocab_size=8: --synthetic needs 18 or more"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    stderr = run(*COMMAND, *arguments, code=2).stderr
    assert said in stderr and stderr.startswith("kogpt2: ") and stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"], "no folder is left"


def test_missing_data_is_bad_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stderr = run(*COMMAND, "debug_cpu", "data.train=nowhere", code=3).stderr
    assert "nowhere" in stderr and stderr.count("\n") == 1
    assert not list(tmp_path.iterdir()), "no folder is left"


@pytest.mark.parametrize("skipped", [False, True])
def test_the_phases_are_those_that_the_step_itself_marks(tiny, skipped, monkeypatch):
    """All work is inside of a phase, in the order of the table; a skipped update has no phase "update"."""
    from kogpt2_gluon.training import loop
    from kogpt2_gluon.training.setup import set_up
    from kogpt2_gluon.training.signals import StopRequest
    from kogpt2_gluon.training.update import Update

    recipe = load_recipe("debug_cpu", [*tiny, "training.precision=float16", "training.ops=stock"])
    marked, inside, outside = [], [], []

    @contextmanager
    def phase(name):
        marked.append(name)
        inside.append(name)
        yield
        inside.pop()

    def watched(owner, name, value=None):
        method = getattr(owner, name)

        def call(*arguments, **named):
            if not inside:
                outside.append(name)
            result = method(*arguments, **named)
            return result if value is None else value

        monkeypatch.setattr(owner, name, call)

    with set_up(recipe, "never") as training_run:
        for name in ("start", "apply"):
            watched(Update, name)
        watched(Update, "reduce", math.inf if skipped else None)
        watched(training_run.worker, "sum")
        watched(training_run.reader, "count_update")  # the batch is taken
        result = loop.run_step(recipe, training_run, StopRequest(), phase)
    assert result.made is not skipped and not outside
    # The step has two micro steps; the gradients are cleared in the first of the three forward phases.
    wanted = ["read", "forward", "forward", "backward", "forward", "backward", "reduce", "agree", "update"]
    assert marked == (wanted[:-1] if skipped else wanted)
    assert list(dict.fromkeys(wanted)) == list(PHASES)[:-1]


def test_the_clock_counts_work_to_the_phase_that_asked_for_it():
    """Python runs ahead of MXNet's engine: a phase lasts until its work is done, and gaps are not counted."""
    from kogpt2_gluon.machine.runtime import mx
    from kogpt2_gluon.training.profile.passes import PhaseClock

    clock = PhaseClock(nullcontext)
    matrix = mx.nd.ones((1200, 1200))
    mx.nd.waitall()
    with clock("forward"):
        for _ in range(8):
            mx.nd.dot(matrix, matrix)
    with clock("read"):
        pass
    time.sleep(0.2)
    with clock("update"):
        pass
    forward, read, update = clock.spans
    assert [span.name for span in clock.spans] == ["forward", "read", "update"]
    assert forward.end - forward.start > 5 * (read.end - read.start)
    assert update.start - read.end >= 0.2e6 and update.end - update.start < 0.1e6
