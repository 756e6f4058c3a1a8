"""Mixed precision: float32 masters, skipped updates, their resume, and float16 between workers.

float16 is emulated here (ops/stock.py): its rounding and its overflow are real, in float32 arrays.
"""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest

from kogpt2_gluon.errors import DivergedError, PreemptedError
from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.machine.worker import Worker
from kogpt2_gluon.model import precision as model_precision
from kogpt2_gluon.model.gpt2 import GPT2Model, build_model, structural_parameters
from kogpt2_gluon.model.loss import LanguageModelLoss
from kogpt2_gluon.model.precision import cast_network
from kogpt2_gluon.ops.stock import StockOps
from kogpt2_gluon.reading.open_sets import training_mix
from kogpt2_gluon.recipe import load_recipe
from kogpt2_gluon.recipe_sections import TrainingRecipe
from kogpt2_gluon.runs.checkpoint import open_checkpoint
from kogpt2_gluon.runs.metrics import read_metrics
from kogpt2_gluon.shards.shard_set import ShardSet
from kogpt2_gluon.training import loop, loss_scale
from kogpt2_gluon.training.optimizers import OPTIMIZERS
from kogpt2_gluon.training.resume import restore_state
from kogpt2_gluon.training.schedule import learning_rate
from kogpt2_gluon.training.update import Update
from tests.helpers import ROOT, kogpt2, run
from tests.training.run_helpers import HORUN

SHIPPED = sorted(file.stem for file in (ROOT / "recipes").glob("*.yaml"))
HALF = "training.precision=float16"


# ---- what the scale and the masters are for


def gradients_of(ops, scale, accumulate, seed=0):
    """The gradients of a small network for one micro step of 512 tokens, divided by the loss scale again."""
    mx.random.seed(seed)
    net = GPT2Model(units=32, vocab_size=1200, max_length=32, num_layers=2, num_heads=2, ops=ops)
    net.initialize(mx.init.Normal(0.02))
    loss_block = LanguageModelLoss(net)
    tokens = mx.nd.array(np.random.RandomState(0).randint(0, 1200, (16, 33)), dtype="int32")
    with mx.autograd.record():
        loss = loss_block(tokens).mean() * scale / accumulate
    loss.backward()
    gradients = {name: p.grad().asnumpy() / scale for name, p in structural_parameters(net).items()}
    return {
        name: without_keys(gradient) if name.endswith("qkv_proj.bias") else gradient
        for name, gradient in gradients.items()
    }


def without_keys(bias):
    """A key's bias moves all scores of a query alike: its gradient is 0, but for rounding, which may make it so."""
    query, _, value = np.split(bias, 3)
    return np.concatenate([query, value])


def test_gradients_that_float16_would_lose_survive_with_a_scale():
    """One micro step of 64: without a scale float16 gets 6 to 76% of each gradient wrong, with it 0.1%."""
    exact = gradients_of(StockOps(), 1.0, accumulate=64)
    half = StockOps("float16_emulated")
    unscaled, scaled = (gradients_of(half, scale, accumulate=64) for scale in (1.0, loss_scale.INITIAL_SCALE))
    for name, gradient in exact.items():
        errors = [np.linalg.norm(each[name] - gradient) / np.linalg.norm(gradient) for each in (scaled, unscaled)]
        assert errors[0] < 0.002 and errors[1] > 0.05, (name, errors)
    parts = [name for name, gradient in unscaled.items() if (gradient == 0).mean() > 0.05]
    assert len(parts) >= 3 and all(exact[name].all() and scaled[name].all() for name in parts)  # nothing left of these


def test_emulated_overflow_is_real():
    gradients = gradients_of(StockOps("float16_emulated"), 2.0**24, accumulate=1)
    assert not all(np.isfinite(gradient).all() for gradient in gradients.values())


@pytest.fixture
def half_arrays(monkeypatch):
    """float16 parameter and gradient arrays, as on a GPU. A CPU has no products of them, but all an update needs."""
    monkeypatch.setattr(model_precision, "working_dtype", lambda name, ctx: name)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_masters_keep_what_float16_weights_would_lose(half_arrays, optimizer):
    """40 updates of 1e-4 on weights of 1: float16 has nothing between 1 and 1 - 4.9e-4, so it would stay at 1."""
    assert np.float16(1) - np.float16(1e-4) == 1
    settings = {"optimizer": optimizer, "weight_decay": 0.0, "beta1": 0.0, "beta2": 0.0, "clip_norm": 0.0}
    results = []
    for name in ("float32", "float16"):
        net = GPT2Model(units=8, vocab_size=20, max_length=8, num_layers=1, num_heads=2)
        net.initialize()
        for parameter in structural_parameters(net).values():
            parameter.set_data(mx.nd.ones(parameter.shape))
        update = Update(net, TrainingRecipe(precision=name, **settings), Worker(), accumulate=1)
        weight = update.parameters["_embed.weight"]
        assert weight.data().dtype == weight.grad().dtype == np.dtype(name)
        assert all(master.dtype == np.float32 for master in update.masters.values())
        for _ in range(40):
            for parameter in update.parameters.values():
                parameter.grad()[:] = 1024 * 0.25  # a loss scale of 1024
            norm = math.sqrt(update.reduce()) / 1024
            assert norm == pytest.approx(0.25 * math.sqrt(sum(p.data().size for p in update.parameters.values())))
            update.apply(1e-4, norm, loss_scale=1024)
        results.append(update.masters["_embed.weight"].asnumpy())
        np.testing.assert_array_equal(weight.data().asnumpy(), results[-1].astype(name))  # the copy keeps up
    np.testing.assert_allclose(results[1], results[0], rtol=1e-6)
    np.testing.assert_allclose(results[0], 0.996, atol=1e-4)
    assert {np.dtype(array.dtype) for array in update.moments().values()} == {np.dtype("float32")}


def test_norm_of_float16_gradients_does_not_overflow(half_arrays):
    net = GPT2Model(units=8, vocab_size=20, max_length=8, num_layers=1, num_heads=2)
    net.initialize()
    update = Update(net, TrainingRecipe(precision="float16"), Worker(), accumulate=1)
    for parameter in update.parameters.values():
        parameter.grad()[:] = 60_000  # its square is far above 65,504
    count = sum(parameter.data().size for parameter in update.parameters.values())
    assert update.reduce() == pytest.approx(count * float(np.float16(60_000)) ** 2, rel=1e-5)


@pytest.mark.parametrize("name", SHIPPED)
def test_types_of_the_float16_graph(half_arrays, name):
    """The types of a GPU, without one: the parameters of a recipe are float16, tokens int32, the loss float32."""
    recipe = load_recipe(name).model
    recipe.vocab_size, recipe.units, recipe.max_length = 50, 4 * recipe.num_heads, 16  # types do not depend on it
    net = build_model(recipe, StockOps("float16", recipe.dropout))
    net.initialize()
    cast_network(net, "float16")
    loss = LanguageModelLoss(net)(mx.sym.var("tokens"))
    given = {p.name: np.float16 for p in structural_parameters(net).values()}
    arguments, outputs, _ = loss.infer_type(tokens=np.int32, **given)
    assert outputs == [np.float32]
    wanted = {**given, "tokens": np.int32}
    assert dict(zip(loss.list_arguments(), arguments)) == wanted
    inside = loss.get_internals()
    types = dict(zip(inside.list_outputs(), inside.infer_type(tokens=np.int32, **given)[1]))
    products = {key: value for key, value in types.items() if "fullyconnected" in key or "batch_dot" in key}
    assert len(products) >= 6 * recipe.num_layers + 1 and set(products.values()) == {np.float16}


# ---- skipped updates in a run


def train(tiny, *options):
    """A run in this process; later options win."""
    return loop.train(load_recipe("debug_cpu", [*tiny, HALF, *options]))


def lines(run_dir, kind="train"):
    """The lines of the record, without the figures that depend on a clock."""
    clocks = ("time", "seconds", "tokens_per_second", "memory_mb", "data_wait")
    found = [line for line in read_metrics(run_dir) if line["kind"] == kind]
    return [{key: value for key, value in line.items() if key not in clocks} for line in found]


def files(run_dir):
    folder = open_checkpoint(run_dir).path
    return [(folder / name).read_bytes() for name in ("model.params", "optimizer.params", "state.json")]


def test_a_skipped_update_is_no_step(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(loss_scale, "INITIAL_SCALE", 2.0**24)
    seeds, derive_seed = [], loop.derive_seed
    monkeypatch.setattr(
        loop, "derive_seed", lambda seed, *purpose: seeds.append(purpose) or derive_seed(seed, *purpose)
    )
    state = train(tiny, "training.total_batch_size=16")
    assert state.step == 8 and state.skipped >= 3
    saved = open_checkpoint(tmp_path / "run").state()
    assert (saved["step"], saved["skipped"]) == (8, state.skipped)
    assert saved["loss_scale"]["scale"] == 2.0 ** (24 - state.skipped) and saved["loss_scale"]["clean_updates"] == 8
    assert saved["reader"]["consumed"] == (8 + state.skipped) * 16  # its data is used up all the same
    micro_steps = [(attempt, micro_step) for attempt in range(1, state.attempt + 1) for micro_step in range(4)]
    assert seeds == [("dropout", 0, *place) for place in micro_steps]  # every attempt has masks of its own
    record = lines(tmp_path / "run")
    assert [line["step"] for line in record] == list(range(1, 9))
    recipe = load_recipe("debug_cpu", tiny).training
    assert [line["learning_rate"] for line in record] == [learning_rate(recipe, step) for step in range(1, 9)]
    assert {(line["loss_scale"], line["skipped"]) for line in record} == {(saved["loss_scale"]["scale"], state.skipped)}
    assert [line["step"] for line in lines(tmp_path / "run", "evaluation")] == [0, 8]
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "update 1 skipped, 1 so far" in log and "loss scale 16777216 -> 8388608" in log
    assert log.count("skipped,") == state.skipped
    assert log.count(f"| scale {2 ** (24 - state.skipped)}, {state.skipped} skipped\n") == 8


def test_float16_learns_as_float32_does(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(loss_scale, "INITIAL_SCALE", 2.0**10)  # nothing is skipped, so both read the same
    options = ["training.num_steps=40", "training.learning_rate=1e-2", "training.warmup_ratio=0.1", "model.dropout=0"]
    assert train(tiny, *options).skipped == 0
    options += ["training.precision=float32", "training.ops=stock", f"tracking.run_dir={tmp_path / 'float32'}"]
    train(tiny, *options)
    half, single = ([line["loss"] for line in lines(tmp_path / name)] for name in ("run", "float32"))
    np.testing.assert_allclose(half, single, rtol=0.01)
    assert half[-1] < half[0] - 0.5 and half != single


@pytest.mark.parametrize(
    "attempt", [pytest.param(2, marks=pytest.mark.slow), 5, 9, pytest.param(14, marks=pytest.mark.slow)]
)
def test_resume_in_the_middle_of_skips_is_bit_exact(tiny, tmp_path, monkeypatch, attempt):
    """Stopped after an attempt, made or skipped, before and after the first step, and gone on with: equal bits."""
    monkeypatch.setattr(loss_scale, "INITIAL_SCALE", 2.0**24)
    monkeypatch.setattr(loss_scale, "WINDOW", 3)  # up again soon, into the next overflow
    options = ["training.num_steps=12", "training.total_batch_size=16"]
    straight = train(tiny, *options, f"tracking.run_dir={tmp_path / 'straight'}")
    assert straight.skipped > 4

    run_step, outcome = loop.run_step, {}

    def stop_after_it(recipe, training_run, stop, *more):
        if training_run.state.attempt + 1 == attempt:
            stop.ask()
        result = run_step(recipe, training_run, stop, *more)
        outcome[training_run.state.attempt] = result.made
        return result

    with monkeypatch.context() as patch:
        patch.setattr(loop, "run_step", stop_after_it)
        with pytest.raises(PreemptedError):
            train(tiny, *options)
    assert max(outcome) == attempt
    saved = open_checkpoint(tmp_path / "run").state()
    assert saved["step"] + saved["skipped"] == attempt
    if attempt in (2, 5):
        assert not outcome[attempt]
    resumed = train(tiny, *options)
    assert resumed == straight
    assert lines(tmp_path / "run") == lines(tmp_path / "straight")
    assert files(tmp_path / "run") == files(tmp_path / "straight")


def test_an_epoch_that_ends_in_a_skipped_update_is_scored(tiny, shards, tmp_path, monkeypatch):
    """And the stop rule sees it, though the step has had its evaluation."""
    recipe = load_recipe("debug_cpu", tiny)
    with ShardSet(shards / "train") as opened:
        per_epoch = training_mix([opened], recipe, 1).sequences_per_epoch
    last = math.ceil(per_epoch / 256)  # the update that completes the epoch
    reduce, count = Update.reduce, iter(range(1, 1000))
    monkeypatch.setattr(Update, "reduce", lambda self: math.inf if next(count) == last else reduce(self))
    rule = ["evaluation.stop_improvement=0.01", f"training.num_steps={last}", "evaluation.interval=1"]
    small = ["training.total_batch_size=256", "training.batch_size=64", "model.num_layers=1", "checkpoint.interval=0"]
    state = train(tiny, *rule, *small)
    assert (state.step, state.skipped) == (last, 1)
    assert state.epoch_perplexity is not None
    scored = [line["step"] for line in lines(tmp_path / "run", "evaluation")]
    assert scored == [*range(last), last - 1, last]


def test_endless_skipping_says_4_and_keeps_the_last_good_state(tiny, tmp_path, monkeypatch):
    train(tiny, "training.num_steps=4", "checkpoint.interval=0")
    good = files(tmp_path / "run")
    made = []
    monkeypatch.setattr(Update, "apply", lambda *_: made.append(1))
    monkeypatch.setattr(Update, "reduce", lambda self: math.nan)
    message = r"step 5: loss .*, gradient norm nan; .*training\.precision=float32"
    with pytest.raises(DivergedError, match=message) as caught:
        train(tiny, "checkpoint.interval=1")
    assert caught.value.exit_code == 4 and not made
    assert [folder.name for folder in (tmp_path / "run" / "checkpoints").glob("step-*")] == ["step-00000004"]
    assert files(tmp_path / "run") == good
    log = (tmp_path / "run" / "log.txt").read_text()
    assert log.count("skipped,") == 16 + 9  # down to 1, and there until the tenth


def test_a_loss_that_is_not_finite_is_not_skipped(tiny, tmp_path):
    """No loss scale helps against an overflow of the forward pass."""
    diverging = ["training.learning_rate=1e30", "training.clip_norm=0", "checkpoint.interval=1"]
    done = kogpt2("train", "debug_cpu", *tiny, HALF, *diverging, code=4)
    assert "training.precision=float32" in done.stderr and "skipped," not in done.stdout
    assert [line for line in done.stderr.splitlines() if line.startswith("kogpt2: step")]
    for folder in (tmp_path / "run" / "checkpoints").glob("step-*"):
        checkpoint = open_checkpoint(folder)
        for array in (*checkpoint.model_arrays().values(), *checkpoint.optimizer_arrays().values()):
            assert np.isfinite(array).all()
        state = (folder / "state.json").read_text()
        assert "NaN" not in state and "Infinity" not in state


def test_a_run_may_change_its_precision(tiny, tmp_path, capsys):
    single = ["training.precision=float32", "training.ops=stock"]
    train(tiny, *single)
    assert open_checkpoint(tmp_path / "run").state()["loss_scale"] is None
    capsys.readouterr()
    train(tiny, "training.num_steps=10")
    out = capsys.readouterr().out
    assert "changed since then: training.precision: float32 -> float16" in out
    assert "changed since then: training.ops: stock -> auto" in out
    assert open_checkpoint(tmp_path / "run").state()["loss_scale"]["clean_updates"] == 2
    train(tiny, *single, "training.num_steps=12")
    assert open_checkpoint(tmp_path / "run").state()["loss_scale"] is None


def test_checkpoints_from_before_mixed_precision_are_taken_up():
    saved = {"step": 7, "evaluation": {"step": 6, "loss": 2.5}, "epoch_perplexity": None, "stop_rule_met": False}
    state = restore_state({**saved, "reader": {"consumed": 56}})
    assert (state.step, state.skipped, state.attempt) == (7, 0, 7)
    assert state.evaluation == {"step": 6, "attempt": 6, "loss": 2.5}


# ---- two workers

MEAN = """
import numpy as np
from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.training.worker import start_worker
import horovod.mxnet as hvd

worker = start_worker()
naive = mx.nd.full((4,), 40000, dtype="float16")
hvd.allreduce_(naive, op=hvd.Average, name="naive")
assert np.isinf(naive.asnumpy()).all(), naive  # what predivision is for
for dtype in ("float32", "float16"):
    values = [np.random.RandomState(rank).randn(3, 50).astype(dtype) * 100 for rank in range(2)]
    mean = (values[0].astype("float64") + values[1]) / 2
    arrays = {
        "large": mx.nd.full((4,), 40000, dtype=dtype),
        "spread": mx.nd.array(values[worker.rank], dtype=dtype),
        "overflowed": mx.nd.array([1.0, 7e4 if worker.rank else 1.0, np.nan if worker.rank else 1.0], dtype=dtype),
    }
    worker.mean_gradients(arrays, as_float16=True)
    assert all(array.dtype == np.dtype(dtype) for array in arrays.values())
    assert (arrays["large"].asnumpy() == 40000).all(), arrays["large"]
    np.testing.assert_allclose(arrays["spread"].asnumpy(), mean, rtol=3e-3, atol=0.1)
    overflowed = arrays["overflowed"].asnumpy()
    assert overflowed[0] == 1 and np.isposinf(overflowed[1]) and np.isnan(overflowed[2]), overflowed
print("fine", worker.rank)
"""

ONE_OVERFLOWS = """
import hashlib, sys
from kogpt2_gluon.recipe import load_recipe
from kogpt2_gluon.training import loop, loss_scale
from kogpt2_gluon.training.update import Update

loss_scale.INITIAL_SCALE = 4.0
rank, attempts, start = [], [], Update.start

def reduce(self, reduce=Update.reduce):
    attempts.append(self._worker.rank)
    if len(attempts) in (2, 3) and self._worker.rank == 1:
        self.parameters["_embed.weight"].grad()[5, 3] = 1e6
    return reduce(self)

Update.reduce = reduce
runs = []
set_up = loop.set_up
loop.set_up = lambda *arguments: runs.append(set_up(*arguments)) or runs[0]
state = loop.train(load_recipe("debug_cpu", sys.argv[1:]))
digest = hashlib.sha256(b"".join(a.asnumpy().tobytes() for a in runs[0].update.masters.values())).hexdigest()
print("ended", state.step, state.skipped, runs[0].loss_scale.state(), digest)
"""


def two_workers(script, tmp_path, *arguments):
    path = tmp_path / "script.py"
    path.write_text(script)
    done = run(*HORUN, "--gloo", "-np", 2, sys.executable, path, *arguments)
    return sorted(line.partition(":")[2] for line in done.stdout.splitlines() if "<stdout>" in line)


def test_gradients_travel_as_float16_without_overflow(tmp_path):
    assert [line for line in two_workers(MEAN, tmp_path) if "fine" in line] == ["fine 0", "fine 1"]


def test_two_workers_agree_to_skip_when_one_overflows(tiny, tmp_path):
    out = [line for line in two_workers(ONE_OVERFLOWS, tmp_path, *tiny, HALF, "model.dropout=0") if "ended" in line]
    assert len(out) == 2 and out[0] == out[1]
    assert "ended 8 2 {'scale': 1.0, 'clean_updates': 7, 'skipped_at_smallest': 0}" in out[0]
    assert [line["step"] for line in lines(tmp_path / "run")] == list(range(1, 9))
