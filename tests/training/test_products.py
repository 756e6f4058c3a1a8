"""Which precision and kernels a run takes, what its workers agree on, and what its checkpoints keep."""

from __future__ import annotations

import json

import numpy as np
import pytest

from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.machine.worker import Worker
from kogpt2_gluon.ops import kernels
from kogpt2_gluon.ops.kernel_times import SHARED_LEFT
from kogpt2_gluon.ops.kernels import Choice
from kogpt2_gluon.recipe import load_recipe
from kogpt2_gluon.training import products
from kogpt2_gluon.training.dry_run import describe
from kogpt2_gluon.training.products import settle_products
from tests.helpers import kogpt2


@pytest.fixture(autouse=True)
def kernels_by_rule():
    yield
    kernels.use_default_kernels()


@pytest.fixture
def faster(monkeypatch):
    """Plays a machine: its faster precision, and the number of the kernels it measures."""
    machine = {"precision": "bfloat16", "gflops": 100.0}
    monkeypatch.setattr(products, "resolve_precision", lambda *_: (machine["precision"], "it was measured"))
    monkeypatch.setattr(
        products,
        "choose_kernels",
        lambda network, precision: Choice(
            kernels.processor_name(),
            kernels.num_threads(),
            precision,
            machine["gflops"],
            False,
            [[*product, SHARED_LEFT] for product, _ in network.products((3072, 1536), network.tokens)],
        ),
    )
    return machine


class Second(Worker):
    """Rank 1 of 2: it gets what rank 0 has sent, and adds another processor's name."""

    rank, size = 1, 2

    def __init__(self, sent, others_name):
        self.sent, self.others_name = list(sent), others_name

    def broadcast(self, data=None):
        return self.sent.pop(0)

    def gather(self, values):
        return np.array([list(self.others_name.encode().ljust(128)), values], float)


def settle(saved=None, worker=None, **changes):
    recipe = load_recipe("debug_cpu", [f"{key}={value}" for key, value in changes.items()])
    return settle_products(recipe, mx.cpu(), worker or Worker(), saved)


def test_auto_takes_what_is_faster_and_says_why(faster):
    settled = settle(**{"training.precision": "auto"})
    assert (settled.precision, settled.ops.precision, settled.kernels.precision) == ("bfloat16",) * 3
    assert "training.precision=auto: bfloat16, because it was measured" in settled.notes
    assert any("100 GFLOP/s measured" in note for note in settled.notes)


def test_all_ranks_take_what_rank_0_has_measured(faster):
    theirs = settle().kernels
    sent = [["bfloat16", "it was measured"], {**vars(theirs), "precision": "bfloat16", "gflops": 7.0}]
    worker = Second(sent, "Another CPU (1-2-3, avx2)")
    settled = settle(worker=worker, **{"training.precision": "auto"})
    assert (settled.precision, settled.kernels.gflops) == ("bfloat16", 7.0)
    assert any("rank(s) 1 have another processor" in note and "Another CPU" in note for note in settled.notes)


def test_a_resumed_run_keeps_its_kernels_and_says_what_changes(faster, monkeypatch):
    before = settle(**{"training.precision": "float32"})
    saved = json.loads(json.dumps({"products": before.state()}))
    faster["gflops"] = 50.0  # another measurement would choose otherwise
    again = settle(saved)
    assert again.kernels == before.kernels and len(again.notes) == 1
    with monkeypatch.context() as patch:
        patch.setattr(products, "note_of_faster", lambda choice, network: "note: others are faster")
        again = settle(saved)
        assert again.kernels == before.kernels and again.notes[0] == "note: others are faster"

    other = {"products": {"precision": "float32", "kernels": {**vars(before.kernels), "processor": "another"}}}
    moved = settle(other)
    assert moved.kernels.gflops == 50.0 and any("last digits" in note for note in moved.notes)

    larger = settle(saved, **{"training.batch_size": 16, "training.total_batch_size": 16})
    assert larger.kernels.gflops == 50.0, "a choice for the products of another batch"

    forced = {"products": {"precision": "float32", "kernels": {**vars(before.kernels), "gflops": 0.0, "kernels": []}}}
    assert settle(forced).kernels.gflops == 50.0, "a choice that was not measured, such as a forced one"

    changed = settle(saved, **{"training.precision": "auto"})
    assert "products were in float32 before the checkpoint, and are in bfloat16 from here" in changed.notes
    assert settle({"products": {"kernels": {"a": 1}}}).kernels.gflops == 50.0, "a damaged state"
    assert settle({"step": 3}).precision == "float32", "a checkpoint older than this"


def test_stock_operators_have_no_kernels():
    settled = settle(**{"training.ops": "stock", "training.precision": "auto"})
    assert (settled.precision, settled.kernels, settled.ops.name) == ("float32", None, "stock")
    assert settled.state() == {"precision": "float32", "kernels": None}


def test_the_dry_run_names_what_was_measured(monkeypatch):
    recipe = load_recipe("kogpt2_base", ["training.precision=auto"])
    monkeypatch.setattr("kogpt2_gluon.training.dry_run.known_precision", lambda network: "bfloat16, because so")
    assert "precision          auto; on this CPU bfloat16, because so" in describe(recipe, 1)
    monkeypatch.setattr("kogpt2_gluon.training.dry_run.known_precision", lambda network: "")
    assert "precision          auto; on this CPU a run measures it when it starts" in describe(recipe, 1)


def test_a_run_with_auto_logs_its_choice_and_keeps_it(tiny, tmp_path):
    settings = [*tiny, "training.precision=auto", "training.num_steps=4", "checkpoint.interval=2"]
    kogpt2("train", "debug_cpu", *settings)
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "training.precision=auto: " in log and "matrix products in " in log
    (state,) = (tmp_path / "run" / "checkpoints").glob("step-*4/state.json")
    kept = json.loads(state.read_text())["products"]
    assert kept["precision"] in ("float32", "bfloat16") and kept["kernels"]["precision"] == kept["precision"]
