"""Recomputed layers: the same bits as without, whatever happens between the passes, and only the inputs are kept."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest

from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.model.gpt2 import structural_parameters
from kogpt2_gluon.model.loss import LanguageModelLoss
from kogpt2_gluon.model.recompute import RecomputedLoss
from kogpt2_gluon.ops.fused_cpu import FusedCpuOps
from kogpt2_gluon.ops.operator_set import OperatorSet
from kogpt2_gluon.ops.stock import StockOps
from kogpt2_gluon.recipe import load_recipe
from kogpt2_gluon.runs.checkpoint import open_checkpoint
from kogpt2_gluon.training import loop
from tests.helpers import run
from tests.model.model_helpers import gradients_of, make_net, tokens_of
from tests.ops.ops_helpers import needs_bfloat16
from tests.training.run_helpers import HORUN

DROPOUT = 0.3
SETS: dict[str, Callable[[], OperatorSet]] = {
    "fused": lambda: FusedCpuOps("float32", DROPOUT),
    "bfloat16": lambda: FusedCpuOps("bfloat16", DROPOUT),
    "stock": lambda: StockOps("float32", DROPOUT),
    "stock, most dropped": lambda: StockOps("float32", 0.99),
    "stock, no dropout": lambda: StockOps("float32", 0.0),
    "float16": lambda: StockOps("float16_emulated", DROPOUT),
    "tanh": lambda: FusedCpuOps("float32", DROPOUT, "gelu_tanh"),
    "tanh, stock": lambda: StockOps("float32", DROPOUT, "gelu_tanh"),
}
EACH_SET = pytest.mark.parametrize(
    "ops",
    [pytest.param(ops, id=name, marks=needs_bfloat16 if name == "bfloat16" else ()) for name, ops in SETS.items()],
)
KINDS = (LanguageModelLoss, RecomputedLoss)


def loss_of(
    kind: type[LanguageModelLoss], ops: OperatorSet, grad_req: str = "write", **sizes: int
) -> LanguageModelLoss:
    """A loss over a new network, hybridized as training does it."""
    net = make_net(ops, dropout=ops.dropout, **sizes)
    loss_block = kind(net, rows_apart=True)
    loss_block.hybridize(static_alloc=True, static_shape=True)
    request(net, grad_req)
    return loss_block


def request(net: Any, grad_req: str, without: str = "-") -> None:
    for name, parameter in structural_parameters(net).items():
        parameter.grad_req = "null" if without in name else grad_req


def micro_step(loss_block: LanguageModelLoss, seed: int, shape: tuple[int, int] = (2, 18)) -> Any:
    """A forward and a backward pass as the training loop makes them; returns the losses."""
    mx.random.seed(seed)
    with mx.autograd.record():
        losses = loss_block(tokens_of(shape, seed))
        loss = losses.mean() * 3.0 / 2
    loss.backward()
    loss_block.complete_gradients()
    return losses


def assert_same_bits(
    story: Callable[[LanguageModelLoss], list], ops: Callable[[], OperatorSet], **options: Any
) -> None:
    """`story` returns the same for a loss with and without recomputation."""
    plain, recomputed = (story(loss_of(kind, ops(), **options)) for kind in KINDS)
    assert len(plain) == len(recomputed) > 1
    for number, (one, other) in enumerate(zip(plain, recomputed)):
        np.testing.assert_array_equal(one, other, err_msg=f"array {number}")


@EACH_SET
@pytest.mark.parametrize("grad_req", ["write", "add"])
def test_the_same_bits(ops: Callable[[], OperatorSet], grad_req: str) -> None:
    """Losses and gradients of micro steps of several shapes, evaluation between them, and the random numbers after."""

    def story(loss_block: LanguageModelLoss) -> list:
        losses, arrays = [], []
        for step, shape in enumerate([(2, 18), (3, 9), (2, 18)]):
            losses += [micro_step(loss_block, 2 * step + each, shape) for each in range(2)]
            arrays += [*gradients_of(loss_block.net).values(), loss_block(tokens_of((4, 8))).asnumpy()]
            arrays.append(mx.nd.random.uniform(shape=4).asnumpy())
        return arrays + [
            each.asnumpy() for each in losses
        ]  # now, as the loop reads those of all micro steps at the end

    assert_same_bits(story, ops, grad_req=grad_req)


@EACH_SET
def test_requests_that_change_between_passes(ops: Callable[[], OperatorSet]) -> None:
    """Frozen parameters among them; each change brings new arrays of gradients."""

    def story(loss_block: LanguageModelLoss) -> list:
        arrays: list = []
        for seed, (grad_req, frozen) in enumerate(
            [
                ("write", "_ffn_layers.0"),
                ("write", "-"),
                ("add", "-"),
                ("write", "_embed"),
                ("add", "bias"),
                ("add", "-"),
            ]
        ):
            request(loss_block.net, grad_req, frozen)
            micro_step(loss_block, seed)
            arrays += gradients_of(loss_block.net).values()
        return arrays

    assert_same_bits(story, ops)


def test_new_arrays_under_the_same_requests() -> None:
    """A hybridized graph of MXNet would leave the new gradients at 0."""
    for ops in (SETS["fused"], SETS["stock"]):
        loss_block = loss_of(RecomputedLoss, ops())
        micro_step(loss_block, 0)
        expected = gradients_of(loss_block.net)
        request(loss_block.net, "null")
        request(loss_block.net, "write")
        micro_step(loss_block, 0)
        for name, gradient in gradients_of(loss_block.net).items():
            np.testing.assert_array_equal(gradient, expected[name], err_msg=name)


def test_a_pass_between_forward_and_backward_changes_nothing() -> None:
    def story(loss_block: LanguageModelLoss) -> list:
        mx.random.seed(1)
        with mx.autograd.record():
            loss = loss_block(tokens_of((2, 18)))
        between = loss_block(tokens_of((3, 18), seed=1))
        loss.backward()
        loss_block.complete_gradients()
        return [between.asnumpy(), loss.asnumpy(), *gradients_of(loss_block.net).values()]

    for ops in (SETS["fused"], SETS["stock"]):
        assert_same_bits(story, ops)


@pytest.mark.parametrize("sizes", [{"num_layers": 1}, {"num_layers": 5, "units": 21, "num_heads": 3}], ids=str)
def test_other_networks_and_the_shortest_text(sizes: dict[str, int]) -> None:
    for ops in (SETS["fused"], SETS["stock"]):
        assert_same_bits(
            lambda block: [micro_step(block, 1, (1, 2)).asnumpy(), *gradients_of(block.net).values()], ops, **sizes
        )


def test_an_overflow_is_the_same_overflow() -> None:
    """An update is skipped by what float16 makes of too large a loss scale."""

    def story(loss_block: LanguageModelLoss) -> list:
        mx.random.seed(0)
        with mx.autograd.record():
            loss = loss_block(tokens_of((2, 18))).mean() * 2.0**24
        loss.backward()
        loss_block.complete_gradients()
        gradients = list(gradients_of(loss_block.net).values())
        assert not all(np.isfinite(gradient).all() for gradient in gradients)
        return gradients

    assert_same_bits(story, SETS["float16"])


def test_misuse_is_refused() -> None:
    for ops in (SETS["fused"], SETS["stock"]):
        loss_block = loss_of(RecomputedLoss, ops())
        with pytest.raises(AssertionError, match="comes once after each recorded pass"):
            loss_block.complete_gradients()
        with mx.autograd.record():
            loss_block(tokens_of((2, 18)))
            with pytest.raises(AssertionError, match="still lacks its call"):
                loss_block(tokens_of((2, 18)))
    loss_block = loss_of(RecomputedLoss, StockOps())
    with pytest.raises(AssertionError, match="not one of training"), mx.autograd.record(train_mode=False):
        loss_block(tokens_of((2, 18)))


@pytest.mark.parametrize("name", ["fused", "stock"])
def test_a_layer_keeps_its_input_alone(name: str) -> None:
    """1 MiB with these sizes, by MXNet's own plan; masks of MXNet's dropout have a byte for each decision."""
    batch_size, length, units, heads = 2, 512, 256, 2

    def planned(num_layers: int) -> tuple[int, int]:
        sizes = {"units": units, "num_heads": heads, "vocab_size": 64, "max_length": length, "num_layers": num_layers}
        loss_block: Any = loss_of(RecomputedLoss, SETS[name](), **sizes)
        tokens = mx.nd.zeros((batch_size, length), dtype="int32")
        with mx.autograd.record():
            graph = loss_block._graph_for(tokens, tokens)
        plan = graph._executor.debug_str()
        (total,) = [line for line in plan.splitlines() if line.startswith("Total ") and line.endswith(" MB allocated")]
        return int(total.split()[1]), sum(mask.size for mask in graph._masks)

    (few, few_masks), (many, many_masks) = planned(2), planned(5)
    assert many - few == 3 * batch_size * length * units * 4 / 2**20
    decisions = batch_size * (heads * length * length + 2 * length * units)
    assert many_masks - few_masks == (3 * decisions if name == "stock" else 0)


# ---- whole runs


def assert_same_run(one: Path, other: Path) -> None:
    """Parameters, moments and the state of the run are the same bits."""
    first, second = (open_checkpoint(folder / "checkpoints") for folder in (one, other))
    ours, theirs = first.state(), second.state()
    assert ours.pop("begun_as") and theirs.pop("begun_as")  # with other num_steps, it may be
    assert ours == theirs
    for mine, theirs in (
        (first.model_arrays(), second.model_arrays()),
        (first.optimizer_arrays(), second.optimizer_arrays()),
    ):
        assert mine.keys() == theirs.keys()
        for name, array in mine.items():
            np.testing.assert_array_equal(array, theirs[name], err_msg=name)


@pytest.mark.parametrize("ops", ["fused", "stock"])
def test_a_run_may_change_it_when_it_resumes(
    tiny: list[str], tmp_path: Path, ops: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Two micro steps each, and evaluations between the steps; MXNet says nothing of its own."""
    settings = [*tiny, f"training.ops={ops}", "evaluation.interval=2"]
    settings += ["training.warmup_ratio=0", "training.final_learning_rate=1e-3"]  # so that num_steps changes nothing
    loop.train(load_recipe("debug_cpu", [*settings, f"tracking.run_dir={tmp_path / 'plain'}"]))
    capfd.readouterr()
    for steps, recompute in ((3, "layer"), (5, "none"), (8, "layer")):
        changes = [f"training.recompute={recompute}", f"training.num_steps={steps}"]
        loop.train(load_recipe("debug_cpu", [*settings, *changes]))
    out, err = capfd.readouterr()
    assert "changed since then: training.recompute: layer -> none" in out and err == ""
    assert_same_run(tmp_path / "plain", tmp_path / "run")


BOTH = """
import sys
from kogpt2_gluon.recipe import load_recipe
from kogpt2_gluon.training.loop import train

for recompute in ("none", "layer"):
    folder = f"tracking.run_dir={sys.argv[1]}/{recompute}"
    train(load_recipe("debug_cpu", [*sys.argv[2:], f"training.recompute={recompute}", folder]))
"""


def test_whole_runs_of_two_workers(tiny: list[str], tmp_path: Path) -> None:
    settings = [*tiny, "training.ops=fused", "training.num_steps=3"]
    run(*HORUN, "--gloo", "-np", 2, sys.executable, "-c", BOTH, tmp_path, *settings)
    assert_same_run(tmp_path / "none", tmp_path / "layer")
