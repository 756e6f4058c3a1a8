"""Memory as a dry run predicts it: by operators, with and without recomputed layers. benchmarks/memory.py measures."""

from __future__ import annotations

import json
import re
import sys

import pytest

from kogpt2_gluon.estimate import (
    FUSED_CPU,
    FUSED_CUDA,
    STOCK,
    WORKSPACE,
    Operators,
    estimates,
    possible_operators,
    recomputed_share,
    size_of,
)
from kogpt2_gluon.recipe import Recipe, load_recipe
from kogpt2_gluon.training.dry_run import describe
from tests.helpers import ROOT, run

AGAIN = "training.recompute=layer"
NO_DATA = ("data.train=", "data.test=", "evaluation.stop_improvement=0")


def base(*overrides: str) -> Recipe:
    return load_recipe("kogpt2_base", [*NO_DATA, *overrides])


@pytest.mark.parametrize("precision", ["float32", "float16", "auto"])
def test_kogpt2_base_at_8_x_1024_fits_16_gb(precision: str) -> None:
    """V100 and T4 of 16 GB, with more than 2 GiB left for CUDA and MXNet."""
    recipe = base(AGAIN, "training.device=gpu", f"training.precision={precision}")
    assert (recipe.training.batch_size, recipe.data.seq_length) == (8, 1024)
    assert possible_operators(recipe) == [FUSED_CUDA, STOCK]
    for operators in possible_operators(recipe):
        assert size_of(recipe, operators).memory < 13 * 2**30
        assert size_of(base(f"training.precision={precision}"), operators).memory > 14 * 2**30


def test_the_arrays_are_counted() -> None:
    """By hand, for sizes whose products are easy to see: 1,000 tokens, 100 units, 10 heads, 6 layers."""
    sizes = ["model.units=100", "model.num_heads=10", "model.num_layers=6", "model.vocab_size=100000"]
    shape = ["data.seq_length=500", "training.batch_size=2", "training.total_batch_size=2"]
    units, scores, logits, matrix = 4 * 100_000, 4 * 5_000_000, 4 * 100_000_000, 4 * 10_000_000
    working = 28 * units + WORKSPACE
    masks = 6 * (5_000_000 + 2 * 100_000)

    def activations(operators: Operators, *overrides: str, accumulate: int = 1) -> int:
        return size_of(base(*sizes, *shape, *overrides), operators, accumulate).activations

    assert activations(FUSED_CPU) == 60 * units + working + logits - matrix
    assert activations(FUSED_CPU, accumulate=2) == 60 * units + working + logits
    assert activations(FUSED_CPU, AGAIN) == 16 * units + working + logits - matrix
    assert activations(STOCK) == 108 * units + 18 * scores + working + 3 * logits + 1.5 * matrix
    one_layer = 18 * units + 3 * scores
    again = 6 * units + one_layer + working + 2 * logits + 1.5 * matrix
    assert activations(STOCK, AGAIN) == again + 2 * scores + masks
    assert activations(STOCK, AGAIN, "model.dropout=0") == again
    assert activations(FUSED_CUDA, AGAIN) == again + 2 * units - scores
    assert activations(FUSED_CPU, "training.batch_size=1", "model.vocab_size=1000") > 0  # logits that fit count 0


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], [FUSED_CPU, FUSED_CUDA, STOCK]),
        (["training.device=cpu"], [FUSED_CPU, STOCK]),
        (["training.ops=fused"], [FUSED_CPU, FUSED_CUDA]),
        (["training.ops=stock", "training.precision=auto"], [STOCK]),
        (["training.precision=bfloat16"], [FUSED_CPU]),
        (["training.precision=float16", "training.device=cpu"], [STOCK]),
        (["training.precision=bfloat16", "training.device=gpu"], []),  # the run refuses it
    ],
)
def test_the_sets_that_may_compute_a_recipe(overrides: list[str], expected: list[Operators]) -> None:
    recipe = base(*overrides)
    assert possible_operators(recipe) == expected
    lines = describe(recipe).splitlines()
    assert [each.name for each in expected] == [
        match[1] for line in lines if (match := re.match(r"  (\S.*\S) +\S+ [GM]iB, activations about", line))
    ]


def test_a_dry_run_says_what_recomputing_saves_and_takes() -> None:
    plain, again = describe(base()), describe(base(AGAIN))
    assert "recompute          none; layer would take 24% more operations a step" in plain
    assert "recompute          layer: 24% more operations a step" in again
    for text, other in ((plain, "layer"), (again, "none")):
        found = dict(
            re.findall(rf"^  (\S.*\S) +([\d.]+ GiB), .*; with training\.recompute={other} ", text, re.MULTILINE)
        )
        swapped = again if other == "layer" else plain
        for name, size in found.items():
            assert re.search(rf"^  {re.escape(name)} .* {re.escape(size)}$", swapped, re.MULTILINE)


def test_the_time_of_recomputed_layers_is_in_the_estimate() -> None:
    """A third of the layers' operations: all but those of the output projection, forward alone."""
    recipe = base()
    layers, length = 12 * (12 * 768**2 + 13 * 768), 1024  # 4 + 8 squares of the units; biases and LayerNorms
    forward = 2 * (layers + 2 * 768) + 4 * 12 * 768 * length
    whole = 3 * (forward + 2 * 50_000 * 768)
    assert recomputed_share(recipe) == pytest.approx(forward / whole, rel=1e-3)
    for before, after in zip(estimates(recipe, 1), estimates(base(AGAIN), 1)):
        assert after.seconds == pytest.approx(before.seconds * (1 + recomputed_share(recipe)), rel=1e-4)


@pytest.mark.slow
def test_the_benchmark_measures_it() -> None:
    """A network of 10 million parameters; its processes hold 150 to 500 MiB more than before set_up."""
    sizes = ["model.units=320", "model.num_layers=6", "model.num_heads=5", "model.vocab_size=8000"]
    command = [sys.executable, ROOT / "benchmarks" / "memory.py", "--json", "--shapes", "4x256", "--threads", 1, *sizes]
    result = json.loads(run(*command, "--within", 0.15).stdout)
    assert [(row["ops"], row["recompute"]) for row in result["rows"]] == [
        ("fused", "none"),
        ("fused", "layer"),
        ("stock", "none"),
        ("stock", "layer"),
    ]
    for plain, again in (result["rows"][:2], result["rows"][2:]):
        assert again["loss"] == plain["loss"]
        assert again["measured_mb"] < plain["measured_mb"]
    assert result["largest_error"] == max(abs(row["ratio"] - 1) for row in result["rows"])
    run(*command, "--ops", "fused", "--recompute", "none", "--within", 0, code=1)
