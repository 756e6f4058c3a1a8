"""The workers that Horovod connects: their operations, and how an error of one of them ends all."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.helpers import run
from tests.training.run_helpers import HORUN

# Two workers do the same things over and over; each time one of them, in turn, meets an error at another place.
MEETING = """
import sys
import numpy as np
from kogpt2_gluon.errors import DataError, KoGPT2Error, PreemptedError
from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.training.worker import start_worker

def work(worker, fail_at, as_float16):
    def place(name):
        if name == fail_at:
            raise DataError(f"met before {name}")
    place("the first sum")
    assert worker.sum(np.arange(6.0).reshape(2, 3)).tolist() == [[0, 2, 4], [6, 8, 10]]
    place("the barrier")
    worker.barrier()
    place("the broadcast of data")
    data = worker.broadcast({"text": "가" * 100} if worker.rank == 0 else None)
    assert data == {"text": "가" * 100} and worker.all_equal(7) and not worker.all_equal(worker.rank)
    place("the broadcast of parameters")
    parameters = {f"p{i}": mx.gluon.Parameter(f"p{i}", shape=(50, i + 1)) for i in range(20)}
    for parameter in parameters.values():
        parameter.initialize(mx.init.Constant(worker.rank + 1.0))
    worker.broadcast_parameters(parameters)
    assert all((parameter.data().asnumpy() == 1).all() for parameter in parameters.values())
    for step in range(1, 3):
        place(f"the gradients of step {step}")
        for parameter in parameters.values():
            parameter.grad()[:] = worker.rank
        gradients = {name: parameter.grad() for name, parameter in parameters.items()}
        worker.mean_gradients(gradients, as_float16)
        place(f"the sum of step {step}")
        assert worker.sum(np.full(100, 1.5)).tolist() == [3.0] * 100
        assert all((gradient.asnumpy() == 0.5).all() for gradient in gradients.values())
    place("the broadcast between steps")
    assert worker.broadcast([worker.rank]) == [0]
    place("the barrier between steps")
    worker.barrier()
    raise PreemptedError("saved")

for number, fail_at in enumerate(sys.argv[1:]):
    worker = start_worker()
    try:
        with worker:
            work(worker, fail_at if worker.rank == number % 2 else None, number > 2)
    except KoGPT2Error as error:
        print(f"({number}, {worker.rank}) {error}", flush=True)
sys.exit(75)
"""


PLACES = ["the first sum", "the barrier", "the broadcast of data", "the broadcast of parameters"]
PLACES += ["the gradients of step 1", "the sum of step 1", "the gradients of step 2", "the sum of step 2", "nowhere"]


@pytest.mark.parametrize("last", ["the broadcast between steps", "the barrier between steps"])
def test_a_worker_that_meets_an_error_informs_the_others_wherever_they_are(last):
    """No operation of the others fails: all continue with the same Horovod, and leave in the end as they please."""
    places = [*PLACES, last] if last == "the barrier between steps" else ["the sum of step 2", "nowhere", last]
    done = run(*HORUN, "--gloo", "-np", 2, sys.executable, "-c", MEETING, *places, code=1, timeout=90)
    for number, place in enumerate(places):
        ours, theirs = f"met before {place}", "another worker has ended"
        ours, theirs = ("saved", "saved") if place == "nowhere" else (ours, theirs)
        assert f"({number}, {number % 2}) {ours}" in done.stdout
        assert f"({number}, {1 - number % 2}) {theirs}" in done.stdout
    assert done.stdout.count(") ") == 2 * len(places), done.stdout


@pytest.mark.parametrize(("given", "used"), [(None, "10"), ("2.5", "2.5")])
def test_horovods_thread_leaves_the_core_to_its_worker(given, used):
    """On CPUs it talks to the others every 10 ms, not every millisecond, unless the environment says otherwise."""
    program = """
import os
from kogpt2_gluon.training.worker import HorovodWorker
HorovodWorker()
print(os.environ["HOROVOD_CYCLE_TIME"])
"""
    environment = {name: value for name, value in os.environ.items() if name != "HOROVOD_CYCLE_TIME"}
    environment.update({"HOROVOD_CYCLE_TIME": given} if given else {})
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == used
