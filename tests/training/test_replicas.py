"""Silent corruption: one bit that flips on one of two real Horovod workers is found, and nothing is saved from it."""

from __future__ import annotations

import json
import random
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import xxhash

from kogpt2_gluon.errors import CorruptionError, DivergedError
from kogpt2_gluon.machine.job import rank_that_differs
from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.machine.worker import Worker
from kogpt2_gluon.recipe_sections import OPTIMIZERS
from kogpt2_gluon.runs.checkpoint import newest_checkpoint, open_checkpoint
from kogpt2_gluon.training.replicas import Replicas, describe_difference, hashes_of
from tests.helpers import run
from tests.training.run_helpers import HORUN

# Trains the cases one after the other on two workers. After a step, one bit flips on one of them.
FLIPPING = """
import json, sys
import numpy as np
from kogpt2_gluon.errors import KoGPT2Error
from kogpt2_gluon.recipe import load_recipe
from kogpt2_gluon.training import loop

run_step = loop.run_step
for number, case in enumerate(json.loads(sys.argv[1])):
    def step_and_flip(recipe, run, *more):
        result = run_step(recipe, run, *more)
        arrays = {**run.update.masters, **run.update.moments()}
        if run.state.step == case["after"] and run.worker.rank == case["rank"]:
            array = arrays[case["array"] or sorted(arrays)[case["number"] % len(arrays)]]
            values = array.asnumpy()
            bits = values.reshape(-1).view(np.uint32)
            bits[case["place"] % bits.size] ^= np.uint32(1 << case["bit"])
            array[:] = values
        return result

    loop.run_step = step_and_flip
    recipe = load_recipe("debug_cpu", [*sys.argv[2:], *case["options"], f"tracking.run_dir={case['run_dir']}"])
    try:
        code, text = 0, f"done at step {loop.train(recipe).step}"
    except KoGPT2Error as error:
        code, text = error.exit_code, str(error)
    print("RESULT", json.dumps([number, code, text]), flush=True)
"""


def test_one_flipped_bit_of_one_worker_is_found(tiny, tmp_path):
    """Anywhere in parameters or moments; by the interval, before a save, or when it makes the loss explode."""
    draw = random.Random()
    seed = draw.randrange(10**9)
    draw.seed(seed)
    flip = {"array": "", "number": draw.randrange(1000), "place": draw.randrange(10**9), "bit": draw.randrange(32)}
    moment = {"array": "_embed.weight:1", "place": draw.randrange(10**9), "bit": 0, "rank": 0, "after": 6}
    exponent = {"array": "_final_ln.gamma", "place": 3, "bit": 30, "rank": 1, "after": 5}  # 1.0 becomes infinite
    quiet = ["checkpoint.interval=0", "data.test="]
    cases = [
        {**flip, "rank": 1, "after": 6, "options": [*quiet, "training.compare_interval=2"]},
        {**moment, "options": ["training.compare_interval=1000"]},  # found before the save of step 6
        {**exponent, "options": [*quiet, "training.compare_interval=1000"]},  # not blamed on the learning rate
        {**flip, "rank": 1, "after": 2, "options": [*quiet, "training.compare_interval=0", "training.num_steps=3"]},
        {**exponent, "options": [*quiet, "training.compare_interval=0"]},
    ]
    cases = [{**case, "run_dir": str(tmp_path / str(number))} for number, case in enumerate(cases)]
    done = run(*HORUN, "--gloo", "-np", 2, sys.executable, "-c", FLIPPING, json.dumps(cases), *tiny)
    results = [json.loads(line.partition("RESULT ")[2]) for line in done.stdout.splitlines() if "RESULT" in line]
    said = {number: [(code, text) for each, code, text in results if each == number] for number in range(5)}
    assert all(len(both) == 2 and both[0] == both[1] for both in said.values()), (seed, results)
    for number, step, first in ((0, 6, ""), (1, 6, "_embed.weight:1; "), (2, 5, "_final_ln.gamma; ")):
        code, text = said[number][0]
        assert code == CorruptionError.exit_code and "\n" not in text
        assert text.startswith(f"step {step}: rank 0 (") and "rank 1 (" in text, text
        assert f"cpu(0)) differ in 1 of 84 arrays, first {first}" in text, text
        assert "; with two workers nobody can say which one is wrong. " in text
    way_out = "and nothing was saved since; test these hosts, then run again to go on from"
    assert said[0][0][1].endswith(f"All agreed at step 4, {way_out} the start")
    assert newest_checkpoint(tmp_path / "0" / "checkpoints") is None
    assert said[1][0][1].endswith(f"All agreed at step 3, {way_out} step 3, which was saved when all agreed")
    assert open_checkpoint(tmp_path / "1").state()["step"] == 3
    assert said[2][0][1].endswith(f"All agreed at step 0, {way_out} the start")
    assert said[3][0] == (0, "done at step 3")  # the recipe asked for no comparisons
    code, text = said[4][0]
    assert code == DivergedError.exit_code and "gradient norm nan (the loss is not finite on rank 1 (" in text, text
    assert "cpu(0)) alone)" in text.replace("cpu(1)", "cpu(0)") and "rank 0" not in text


@pytest.mark.slow
def test_of_four_workers_the_wrong_one_is_named(tiny, tmp_path):
    flip = {"array": "_ffn_layers.1._hidden_map.weight", "place": 77, "bit": 4, "rank": 2, "after": 4}
    case = {**flip, "options": ["training.compare_interval=4", "data.test="], "run_dir": str(tmp_path / "run")}
    options = [*tiny, "training.batch_size=2"]
    done = run(*HORUN, "--gloo", "-np", 4, sys.executable, "-c", FLIPPING, json.dumps([case]), *options)
    results = [json.loads(line.partition("RESULT ")[2]) for line in done.stdout.splitlines() if "RESULT" in line]
    assert len(results) == 4 and all(each == results[0] for each in results), results
    _, code, text = results[0]
    assert code == CorruptionError.exit_code and text.startswith("step 4: rank 2 ("), text
    differs = "differs from the 3 other workers, which agree, in 1 of 84 arrays, first _ffn_layers.1._hidden_map.weight"
    assert f"cpu(0)) {differs}. " in text.replace("cpu(2)", "cpu(0)"), text


# Two workers that compute in each way in turn, and compare after each step: there is no false alarm.
AGREEING = """
import json, sys
from kogpt2_gluon.recipe import load_recipe
from kogpt2_gluon.training import loop, replicas

compare, compared = replicas.Replicas.compare, []
replicas.Replicas.compare = lambda self, *arguments: compared.append(compare(self, *arguments))
for number, options in enumerate(json.loads(sys.argv[2])):
    run_dir = f"tracking.run_dir={sys.argv[1]}/{number}"
    state = loop.train(load_recipe("debug_cpu", [*sys.argv[3:], *options, run_dir]))
    print("AGREED", number, state.step, len(compared), flush=True)
    compared.clear()
"""


@pytest.mark.slow
def test_workers_agree_whatever_computes(tiny, tmp_path):
    cases = [[f"training.optimizer={name}", f"training.ops={ops}"] for name in OPTIMIZERS for ops in ("stock", "fused")]
    cases += [["training.precision=float16", "training.ops=stock"], ["training.precision=bfloat16"]]
    cases += [["training.recompute=layer"], ["training.batch_size=2", "training.total_batch_size=16"]]
    options = [*tiny, "data.test=", "checkpoint.interval=0", "training.compare_interval=1"]
    command = [*HORUN, "--gloo", "-np", 2, sys.executable, "-c", AGREEING]
    done = run(*command, tmp_path, json.dumps(cases), *options)
    for number in range(len(cases)):
        assert done.stdout.count(f"AGREED {number} 8 9") == 2, (cases[number], done.stdout)


@pytest.mark.parametrize("memory", [7, 1 << 20])
def test_every_single_bit_counts(memory):
    """Each bit of a small array, and random ones of one that does not fit the memory it passes through."""
    values = np.random.RandomState(0).standard_normal((5, 13)).astype(np.float32)
    bits, array, seen = values.reshape(-1).view(np.uint32), mx.nd.array(values), set()
    room = np.empty(memory, np.float32)
    before = hashes_of({"a": array}, room)
    assert before == {"a": xxhash.xxh3_64_intdigest(values.tobytes())}
    for place in range(bits.size):
        for bit in range(32):
            bits[place] ^= np.uint32(1 << bit)
            seen.add(hashes_of({"a": from_bits(bits)}, room)["a"])
            bits[place] ^= np.uint32(1 << bit)
    assert len(seen | {before["a"]}) == 32 * bits.size + 1
    assert hashes_of({"a": array}, room) == before


def from_bits(bits):
    """An NDArray with these bits. `mx.nd.array` would do, but for signalling NaNs."""
    array = mx.nd.zeros(bits.shape)
    array[:] = mx.nd.from_numpy(bits.view(np.float32).copy(), zero_copy=False)
    return array


def test_all_of_a_large_array_counts():
    array = mx.nd.random.normal(shape=(3, 700_001))
    room = np.empty(1 << 20, np.float32)
    before = hashes_of({"a": array}, room)
    values = array.asnumpy()
    for place in (0, (1 << 20) - 1, 1 << 20, values.size - 1):
        flipped = values.copy()
        flipped.reshape(-1).view(np.uint32)[place] ^= 1
        assert hashes_of({"a": mx.nd.array(flipped)}, room) != before


def test_the_minority_is_named_and_a_draw_says_so():
    def said(*groups):
        everyones = np.zeros((len(groups), 3, 2))
        everyones[:, 1, 0] = groups
        return describe_difference(everyones, [f"rank {k}" for k in range(len(groups))], ["a", "b", "c"])

    assert said(7, 7, 5) == "rank 2 differs from the 2 other workers, which agree, in 1 of 3 arrays, first b"
    assert said(1, 7, 7, 2) == "rank 0, rank 3 differ from the 2 other workers, which agree, in 1 of 3 arrays, first b"
    assert said(1, 2).startswith("rank 0 and rank 1 differ in 1 of 3 arrays, first b; with two workers nobody can say")
    assert said(1, 2, 2, 1).endswith("no group of them is the largest: rank 0, rank 3; rank 1, rank 2")
    assert said(1, 2, 3).endswith("no group of them is the largest: rank 0; rank 1; rank 2")
    assert "rank 7 and 1 more differ from the 11 other" in said(*range(1, 10), *[99] * 11)
    everyones = np.array([[[k == 1, 0]] for k in range(3)], float)
    line = describe_difference(everyones, [f"rank {k} (host-{k}, gpu({k}))" for k in range(3)], ["a"])
    assert rank_that_differs(f"kogpt2: step 8: {line}. Memory or ...") == 1  # the launcher leaves its host out
    assert rank_that_differs(f"kogpt2: step 8: {said(1, 7, 7, 2)}") is rank_that_differs(f": {said(1, 2)}") is None


class Counting(Worker):
    """One of two workers, the other of which has the same arrays."""

    size = 2

    def __init__(self):
        self.gathered = 0

    def gather(self, values):
        self.gathered += 1
        return np.stack([np.asarray(values, np.float64)] * 2)


def test_when_the_workers_are_compared():
    arrays = {"a": mx.nd.ones(3)}
    update = SimpleNamespace(masters=arrays, moments=lambda: {"a:0": mx.nd.zeros(3)})

    def compared(worker, interval, *steps, saving=()):
        replicas, found = Replicas(update, worker, interval, "cpu(0)", "the start"), []
        for step in steps:
            before = worker.gathered
            replicas.compare_if_due(step, step, step in saving)
            found += [step] * (worker.gathered > before)
        return found

    assert compared(Counting(), 4, *range(20, 30)) == [20, 24, 28]  # first what it begins with
    assert compared(Counting(), 100, 7, 8, 9, 9, 10, saving=(9,)) == [7, 9]
    assert compared(Counting(), 0, *range(10), saving=(3,)) == []
    alone = Counting()
    alone.size = 1
    assert compared(alone, 1, *range(10), saving=(3,)) == []  # nothing is hashed either
