"""Compares the memory of training with the estimate of `kogpt2 train --dry-run`, with and without recomputed layers.

    python benchmarks/memory.py [--shapes 2x256,1x1024] [--ops fused,stock] [--json] [section.key=value ...]

KoGPT-2 base (or other sizes, by `section.key=value`) makes a few updates on random tokens, by the training loop's own
`run_step` after its own `set_up`, in a process of its own for each row. Measured is the most memory of that process,
less what it had before `set_up`: Python, MXNet, the fused operators. The shards are small: a lane of real ones may hold
some 40 MB more. The exit code is 1 if the measured memory of a row is not within 10% of the estimate.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from contestants import Contestant, ContestantError, Result, announce, speed_conditions
from training_speed import measure_steps, recipe_of, shape_of, write_tokens

from kogpt2_gluon.errors import KoGPT2Error
from kogpt2_gluon.estimate import FUSED_CPU, STOCK, size_of
from kogpt2_gluon.machine import limits, runtime
from kogpt2_gluon.recipe import Recipe

HERE = Path(__file__).resolve().parent
OPERATORS = {"fused": FUSED_CPU, "stock": STOCK}


def run_as_child(recipe: Recipe, steps: int) -> Result:
    """Trains in this process; returns the figures of a row."""
    runtime.prepare(recipe.training.threads)
    from kogpt2_gluon.ops.choose import choose_ops
    from kogpt2_gluon.training.setup import set_up

    training = recipe.training
    choose_ops(training.ops, training.precision, runtime.mx.cpu(), recipe.model.dropout)  # so that they are loaded
    runtime.mx.nd.zeros(1).wait_to_read()
    before = resident_mb()
    with set_up(recipe, "never") as run:
        measured = measure_steps(recipe, run, 0, steps)
    size = size_of(recipe, OPERATORS[training.ops], recipe.accumulate(1))
    memory = measured["peak_memory_mb"] - before
    estimated, others = size.memory / 2**20, (size.memory - size.activations) / 2**20
    return {
        "before_mb": before,
        "measured_mb": memory,
        "estimated_mb": estimated,
        "ratio": memory / estimated,
        "activations_mb": memory - others,
        "estimated_activations_mb": size.activations / 2**20,
        "ratio_activations": (memory - others) / (size.activations / 2**20),
        "loss": measured["loss"],
        "step_seconds": measured["step_seconds"],
    }


def resident_mb() -> float:
    """The memory of this process that is in RAM, in MiB."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def benchmark(arguments: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Runs every row, one after the other."""
    rows, state = [], speed_conditions(arguments.threads)
    cases = list(itertools.product(arguments.shapes, arguments.ops, arguments.recompute))
    for number, (shape, ops, recompute) in enumerate(cases, start=1):
        case = [f"training.ops={ops}", f"training.recompute={recompute}", f"training.threads={arguments.threads}"]
        overrides = [*arguments.overrides, *case]
        recipe = recipe_of(shape, shape[0] * arguments.accumulate, overrides, work)
        if number == 1:
            write_tokens(work, recipe.model.vocab_size)
        size = ["--shapes", f"{shape[0]}x{shape[1]}", "--accumulate", arguments.accumulate, "--steps", arguments.steps]
        command = [sys.executable, HERE / "memory.py", *size, "--child", work, *overrides]
        name = f"{shape[0]}x{shape[1]} {ops} {recompute}"
        rows.append({"shape": f"{shape[0]}x{shape[1]}", "ops": ops, "recompute": recompute})
        rows[-1].update(Contestant(name, command).run())
        announce(f"row {number} of {len(cases)}  {name:<22} {rows[-1]['ratio']:.3f} of the estimate")
    largest = max(abs(row["ratio"] - 1) for row in rows)
    return {
        "largest_error": largest,
        "is_within": largest <= arguments.within,
        "rows": rows,
        "accumulate": arguments.accumulate,
        "overrides": arguments.overrides,
        "conditions": state,
    }


def table(result: dict[str, Any]) -> str:
    """Returns the figures as text."""
    lines = [
        f"{'shape':<8} {'operators':<10} {'recompute':<10} {'MiB':>7} {'estimate':>9} {'ratio':>6} {'activations':>12} "
        f"{'estimate':>9} {'ratio':>6}"
    ]
    for row in result["rows"]:
        lines.append(
            f"{row['shape']:<8} {row['ops']:<10} {row['recompute']:<10} {row['measured_mb']:>7,.0f} "
            f"{row['estimated_mb']:>9,.0f} {row['ratio']:>6.3f} {row['activations_mb']:>12,.0f} "
            f"{row['estimated_activations_mb']:>9,.0f} {row['ratio_activations']:>6.3f}"
        )
    return "\n".join([*lines, f"the largest error is {result['largest_error']:.1%}"])


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line that the module's docstring describes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    listed: dict[str, Any] = {"metavar": "A,B", "type": lambda text: text.split(",")}
    parser.add_argument(
        "--shapes",
        type=lambda text: [shape_of(each) for each in text.split(",")],
        default=[(2, 256), (1, 1024)],
        help="batch_size x seq_length; default 2x256,1x1024",
    )
    parser.add_argument("--ops", **listed, default=["fused", "stock"], help="default: fused,stock")
    parser.add_argument("--recompute", **listed, default=["none", "layer"], help="default: none,layer")
    parser.add_argument("--accumulate", type=int, default=1, help="micro steps of an update")
    parser.add_argument("--steps", type=int, default=2, help="updates of a row")
    parser.add_argument("--within", type=float, default=0.1, help="the error that counts as right; default 0.1")
    parser.add_argument("--threads", type=int, default=limits.available_cores())
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--work", type=Path, help="folder for the data; default: a temporary one")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("overrides", nargs="*", help="section.key=value, changes to the recipe kogpt2_base")
    arguments = parser.parse_intermixed_args(argv)
    if arguments.child:
        (shape,) = arguments.shapes
        recipe = recipe_of(shape, shape[0] * arguments.accumulate, arguments.overrides, arguments.child)
        print(json.dumps(run_as_child(recipe, arguments.steps)))
        return
    with tempfile.TemporaryDirectory(dir=arguments.work) as work:
        try:
            result = benchmark(arguments, Path(work))
        except (ContestantError, KoGPT2Error) as error:
            raise SystemExit(f"error: {error}") from None
    print(json.dumps(result, indent=1) if arguments.json else table(result))
    if not result["is_within"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
