"""Measure how fast a training step is: ours against PyTorch and transformers, torch.compile, and stock operators.

    python benchmarks/training_speed.py --shape 2x256 --precision bfloat16 --rounds 3 --json
    python benchmarks/training_speed.py --shape 1x1024 --peers hf,hf-huge model.num_layers=6
    python benchmarks/training_speed.py --shape 16x128 --model small_cpu --peers before --before ../old

A step is forward, backward, the global gradient norm, clipping at 1.0 and AdamW, dropout 0.1, for KoGPT-2 base with
its 124,242,432 parameters (or the model of another recipe, by --model, or other sizes, by `section.key=value`). Ours
is the training loop's own `run_step` after its own `set_up`, on token shards of random tokens; training_peers.py says
what the others do. In every round each contestant runs in turn, a process of its own: warm-up steps, then timed ones.
A round's figure is that of the median step, a ratio is made within a round, and the median of the rounds counts. With
--turns all contestants are alive at the same time and make their steps in turn, and a ratio is the median of those of
the steps: on a machine whose speed changes within seconds that is far steadier.

Contestants: `ours` (fused operators); `stock` (ours by MXNet's own operators, which compute in float32 whatever the
precision); `hf` (transformers); `hf-huge`, the same with GLIBC_TUNABLES=glibc.malloc.hugetlb=1, `ours-huge` is ours
with it; `hf-no-dropout`; `compile` (torch.compile of the same model); `ours-float32`; `before`, ours as another
checkout of this repository has it, which --before names; `recompute`, ours with training.recompute=layer; `product`,
the step's operations at the rate of a plain float32 product of 4096 x 4096 (limits.py). One that cannot run is reported
and left out. Of the JSON object, `ratio` is ours / hf in tokens/s, `ratio_huge_pages` ours / hf-huge, `ratio_memory`
ours / hf in peak memory of the process. ONEDNN_MAX_CPU_ISA holds for all contestants; `matrix_kernels` are oneDNN's in
`ours` and `hf`, and `amx` is true if these use AMX: a processor with AMX gives very different figures than one with
AVX-512 BF16.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from contestants import (
    HUGE_PAGES,
    Contestant,
    ContestantError,
    Result,
    figures,
    names_of,
    peak_memory_mb,
    product_kernels,
    ratio,
    run_rounds,
    speed_conditions,
    wait_for_turn,
)
from reader_sets import SPECIAL, make_tokenizer

from kogpt2_gluon.errors import KoGPT2Error
from kogpt2_gluon.estimate import flops_per_token
from kogpt2_gluon.machine import limits, runtime
from kogpt2_gluon.recipe import Recipe, load_recipe
from kogpt2_gluon.recipe_sections import ModelRecipe
from kogpt2_gluon.shards.format import TOKENIZER, Manifest, ShardWriter, token_dtype

HERE = Path(__file__).resolve().parent
DEFAULT_PEERS = ("stock", "hf", "hf-huge", "ours-huge", "hf-no-dropout", "compile")
PEERS = (*DEFAULT_PEERS, "ours-float32", "before", "product", "recompute")
RATE, MEMORY = "tokens_per_second", "peak_memory_mb"
NUM_TOKENS = 1 << 20  # of the shards; a run that has read them all begins again


# Our step. scaling_speed.py measures it too.


def write_tokens(work: Path, vocab_size: int) -> Path:
    """Returns a folder of shards of random tokens, ids below `vocab_size`."""
    tokenizer, folder = make_tokenizer(work), work / "shards"
    folder.mkdir()
    shutil.copy(tokenizer.path, folder / TOKENIZER)
    dtype = token_dtype(vocab_size)
    manifest = Manifest("train", dtype, 1 << 16, vocab_size, tokenizer.sha256, SPECIAL, "random tokens")
    tokens = np.random.default_rng(0).integers(len(SPECIAL), vocab_size, NUM_TOKENS).astype(dtype)
    tokens[0], tokens[-1] = SPECIAL["bos"], SPECIAL["eos"]
    with ShardWriter(folder, manifest) as writer:
        writer.add(tokens, [len(tokens)])
        writer.finish()
    return folder


def recipe_of(shape: tuple[int, int], total_batch_size: int, overrides: Sequence[str], work: Path) -> Recipe:
    """kogpt2_base for a benchmark: micro steps of `shape`, AdamW, nothing but training."""
    batch_size, seq_length = shape
    plain = {
        "data.train": work / "shards",
        "data.test": "",
        "data.seq_length": seq_length,
        "training.batch_size": batch_size,
        "training.total_batch_size": total_batch_size,
        "training.optimizer": "adamw",
        "training.learning_rate": 1e-4,
        "training.clip_norm": 1.0,
        "training.device": "cpu",
        "evaluation.stop_improvement": 0,
        "tracking.run_dir": work / "run",
        "tracking.sample_prompts": "[]",
    }
    return load_recipe("kogpt2_base", [*(f"{key}={value}" for key, value in plain.items()), *overrides])


def measure_steps(recipe: Recipe, run: Any, warmup: int, steps: int) -> Result:
    """Updates by the training loop's own step, each to its end; the first `warmup` are not in the figures."""
    from kogpt2_gluon.training.loop import run_step
    from kogpt2_gluon.training.signals import StopRequest

    stop, seconds = StopRequest(), []
    for _ in range(warmup + steps):
        wait_for_turn()
        began = time.perf_counter()
        result = run_step(recipe, run, stop)
        runtime.mx.nd.waitall()  # the optimizer's work may still be going on
        seconds.append(time.perf_counter() - began)
    return {
        RATE: recipe.tokens_per_step / statistics.median(seconds[warmup:]),
        MEMORY: peak_memory_mb(),
        "precision": recipe.training.precision,
        "ops": run.net.ops.name,
        "parameters": sum(int(np.prod(parameter.shape)) for parameter in run.update.parameters.values()),
        "loss": result.loss,
        "grad_norm": result.grad_norm,
        "step_seconds": seconds[warmup:],
    }


def run_as_child(arguments: argparse.Namespace) -> Result:
    """`ours`, `stock` or `ours-huge`, in its own process."""
    recipe = recipe_of(arguments.shape, arguments.shape[0], arguments.overrides, arguments.child)
    runtime.prepare(recipe.training.threads)
    began = time.perf_counter()
    from kogpt2_gluon.training.setup import set_up

    with set_up(recipe, "never") as run:
        start_seconds = time.perf_counter() - began
        return {**measure_steps(recipe, run, arguments.warmup, arguments.steps), "start_seconds": start_seconds}


# The contestants and their rounds.


def contestants(arguments: argparse.Namespace, work: Path, sizes: dict[str, Any]) -> dict[str, Contestant]:
    """Returns all contestants by name."""
    batch_size, seq_length = arguments.shape
    shape = ["--shape", f"{batch_size}x{seq_length}", "--warmup", arguments.warmup, "--steps", arguments.steps]
    threads = ["--threads", arguments.threads]
    overrides = [*arguments.overrides, f"training.threads={arguments.threads}"]
    ours = [sys.executable, HERE / "training_speed.py", *shape, "--child", work, *overrides]
    fused = [*ours, "training.ops=fused", f"training.precision={arguments.precision}"]
    stock = [*ours, "training.ops=stock", "training.precision=float32"]  # all it has
    precision = ["--precision", arguments.precision]
    peer = [sys.executable, HERE / "training_peers.py", *shape, *threads, *precision, "--model", json.dumps(sizes)]
    variables = {"OMP_NUM_THREADS": str(arguments.threads), "TORCHINDUCTOR_CACHE_DIR": str(work / "inductor")}
    tokens = batch_size * seq_length
    flops = flops_of_step(ModelRecipe(**sizes), batch_size, seq_length)
    product = [sys.executable, HERE / "limits.py", *threads, "--step-flops", flops, "--tokens", tokens]
    product += ["--steps", arguments.warmup, arguments.steps]
    everyone = [
        Contestant("ours", fused, variables),
        Contestant("stock", stock, variables),
        Contestant("hf", peer, variables),
        Contestant("hf-huge", peer, {**variables, **HUGE_PAGES}),
        Contestant("ours-huge", fused, {**variables, **HUGE_PAGES}),
        Contestant("hf-no-dropout", [*peer, "--dropout", 0], variables),
        Contestant("compile", [*peer, "--compile"], variables),
        Contestant("product", product, variables),
        Contestant("ours-float32", [*fused, "training.precision=float32"], variables),
        Contestant("recompute", [*fused, "training.recompute=layer"], variables),
    ]
    if arguments.before:
        old = {**variables, "PYTHONPATH": str(arguments.before)}  # it comes before the installed package
        everyone.append(Contestant("before", fused, old))
    return {contestant.name: contestant for contestant in everyone}


def flops_of_step(model: ModelRecipe, batch_size: int, seq_length: int) -> float:
    """Operations of a step's products, forward and backward; attention computes half of its square."""
    whole_square = flops_per_token(model, seq_length)
    return (whole_square - 6.0 * model.num_layers * model.units * seq_length) * batch_size * seq_length


def probe(contestant: Contestant, sizes: dict[str, Any]) -> list[str]:
    """Returns the kernels of one step of `contestant` with a single layer."""
    small = {**sizes, "num_layers": 1}
    command = [json.dumps(small) if part == json.dumps(sizes) else part for part in contestant.command]
    is_ours = "--model" not in command
    once = ["model.num_layers=1"] if is_ours else []
    return product_kernels(replace(contestant, command=[*command, "--warmup", 0, "--steps", 1, *once]))


def benchmark(arguments: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Runs everything, in interleaved rounds."""
    if arguments.model:
        base, other = (asdict(load_recipe(name, []).model) for name in ("kogpt2_base", arguments.model))
        # Only what differs: an older checkout (`before`) may not know all keys.
        changes = [f"model.{key}={value}" for key, value in other.items() if value != base[key]]
        arguments.overrides = [*changes, *arguments.overrides]
    overrides = [*arguments.overrides, f"training.precision={arguments.precision}"]
    recipe = recipe_of(arguments.shape, arguments.shape[0], overrides, work)  # its faults show before a round is spent
    sizes = asdict(recipe.model)
    write_tokens(work, recipe.model.vocab_size)
    all_of_them = contestants(arguments, work, sizes)
    chosen = [contestant for name, contestant in all_of_them.items() if name == "ours" or name in arguments.peers]
    state = speed_conditions(arguments.threads)
    kernels = {each.name: probe(each, sizes) for each in chosen if each.name in ("ours", "hf")}
    state["matrix_kernels"] = kernels
    state["amx"] = {name: any("amx" in kernel for kernel in used) for name, used in kernels.items()}
    needed = ("ours", "hf", "ours-float32", "before")
    rounds = run_rounds(chosen, arguments.rounds, needed=needed, show=(RATE, MEMORY), in_turns=arguments.turns)
    return summary(arguments, rounds, state)


def summary(arguments: argparse.Namespace, rounds: list[dict[str, Result]], state: dict[str, Any]) -> dict[str, Any]:
    """Returns the object that is printed."""
    names = list(rounds[0])
    return {
        "ratio": ratio(rounds, "ours", "hf", RATE),
        "ratio_huge_pages": ratio(rounds, "ours", "hf-huge", RATE),
        "ratio_memory": ratio(rounds, "ours", "hf", MEMORY),
        "shape": f"{arguments.shape[0]}x{arguments.shape[1]}",
        "precision": arguments.precision,
        "parameters": rounds[0]["ours"]["parameters"],
        "contestants": {
            name: {
                RATE: statistics.median(figures(rounds, name, RATE)),
                MEMORY: statistics.median(figures(rounds, name, MEMORY)),
                "ours_is": ratio(rounds, "ours", name, RATE),
                "memory_of_ours_is": ratio(rounds, "ours", name, MEMORY),
                "precision": rounds[0][name]["precision"],
            }
            for name in names
        },
        "left_out": [name for name in arguments.peers if name not in names],
        "conditions": {
            **state,
            "overrides": arguments.overrides,
            "warmup": arguments.warmup,
            "steps": arguments.steps,
        },
        "rounds": rounds,
    }


def table(result: dict[str, Any]) -> str:
    """Prints the figures as text."""
    lines = [
        f"{result['shape']}, {result['precision']}, {result['parameters']:,} parameters, "
        f"{result['conditions']['threads']} threads",
        f"{'':<14} {'tokens/s':>9} {'ours is':>9} {'peak, MB':>9} {'ours is':>9}",
    ]
    for name, row in result["contestants"].items():
        lines.append(
            f"{name:<14} {row[RATE]:>9,.0f} {row['ours_is']:>7.2f} x {row[MEMORY]:>9,.0f} "
            f"{row['memory_of_ours_is']:>7.2f} x"
        )
    lines += [f"{name:<14} could not run; stderr says why" for name in result["left_out"]]
    return "\n".join(lines)


def shape_of(text: str) -> tuple[int, int]:
    """Returns `2x256` as (batch_size, seq_length)."""
    batch_size, seq_length = (int(part) for part in text.split("x"))
    return batch_size, seq_length


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line that the module's docstring describes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=shape_of, default=(2, 256), help="batch_size x seq_length; default 2x256")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument(
        "--peers",
        type=lambda text: names_of(PEERS, text),
        default=list(DEFAULT_PEERS),
        help=f"of {','.join(PEERS)}; default: the first six",
    )
    parser.add_argument("--model", metavar="RECIPE", help="a recipe whose model is trained, instead of kogpt2_base")
    parser.add_argument("--before", type=Path, metavar="DIR", help="a checkout of this repository, for peer `before`")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--warmup", type=int, default=2, help="steps before those that are timed")
    parser.add_argument("--steps", type=int, default=4, help="timed steps of a contestant in a round")
    parser.add_argument("--threads", type=int, default=limits.available_cores())
    parser.add_argument("--turns", action="store_true", help="all contestants at once, which take turns step by step")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--work", type=Path, help="folder for the data; default: a temporary one")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("overrides", nargs="*", help="section.key=value, changes to the recipe kogpt2_base")
    arguments = parser.parse_intermixed_args(argv)
    if ("before" in arguments.peers) != bool(arguments.before):
        parser.error("the peer `before` and --before DIR go together")
    if arguments.child:
        print(json.dumps(run_as_child(arguments)))
        return
    with tempfile.TemporaryDirectory(dir=arguments.work) as work:
        try:
            result = benchmark(arguments, Path(work))
        except (ContestantError, KoGPT2Error) as error:
            raise SystemExit(f"error: {error}") from None
    print(json.dumps(result, indent=1) if arguments.json else table(result))


if __name__ == "__main__":
    main()
