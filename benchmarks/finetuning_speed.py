"""Measure how fast a network is fine-tuned for NSMC: ours against transformers' Trainer.

    python benchmarks/finetuning_speed.py --data nsmc --tokenizer tokenizer.model --threads 2 --json
    python benchmarks/finetuning_speed.py --data nsmc --text reviews.txt --peers trainer,grouped model.num_layers=6
    python benchmarks/finetuning_speed.py --data nsmc --tokenizer tokenizer.model --whole --precisions bfloat16

KoGPT-2 base with random weights (or the model of another recipe, by --model, or of other sizes) is saved as a
checkpoint and converted to a transformers folder. Both sides train on the same rows with the same tokenizer, cut to
--length tokens, --batch-size rows a step, dropout 0.1, the same AdamW, clipping at 1.0.

Steps. Contestants are processes that are all alive and make their steps in turn. Ours is the training loop's own
`run_step` after its own `set_up`, with the recipe that `kogpt2 finetune` makes. A batch of ours has rows of similar
length, so steps take different times, and only whole windows of its order (50 steps) are fair: after warm-up steps
from the end of the first window, --windows of them are timed. Trainer shuffles the same rows itself; its first steps
are its warm-up. A turn lasts until the next one is asked for, so the making of batches counts. Examples a second are
all rows of the timed steps by the sum of their seconds; a ratio is made of those.

Whole. From the start of the command to the printed score: `kogpt2 finetune` on the first --train-rows rows, one epoch,
and --test-rows test rows, against a script that loads the folder, trains by Trainer on the rows that ours trains on,
predicts, and computes the accuracy. Ours alone holds rows out, scores them before and after the training, saves a
checkpoint with moments and reads it again, and compares all splits. The commands take turns of --slice seconds, the
others stopped meanwhile.

Contestants, each in each precision: `ours`, `trainer`, `grouped` (Trainer with train_sampling_strategy=
group_by_length, which it does not do by itself), `huge` (Trainer with GLIBC_TUNABLES=glibc.malloc.hugetlb=1).
Of the JSON object, `ratio_PRECISION` is ours / trainer in examples/s, `memory_PRECISION` that of peak memory of the
process, and `..._fastest` compares the faster precision of ours with the faster of trainer's. Tokens are compared by
their number and the sum of their ids.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from contestants import (
    HUGE_PAGES,
    Clock,
    Contestant,
    ContestantError,
    Result,
    Turns,
    announce,
    hand_over,
    names_of,
    peak_memory_mb,
    speed_conditions,
)
from time_slices import run_in_slices

from kogpt2_gluon.errors import KoGPT2Error
from kogpt2_gluon.machine import limits, runtime
from kogpt2_gluon.ops.kernels import choose_kernels, network_of

HERE = Path(__file__).resolve().parent
PRECISIONS, PEERS = ("float32", "bfloat16"), ("trainer", "grouped", "huge")
RATE, MEMORY = "examples_per_second", "peak_memory_mb"


# ---- processes of their own: a child's peak is at least what its parent had when it started it ---------------------


def prepare(arguments: argparse.Namespace) -> Result:
    """Makes the files; returns what is known of them."""
    import finetuning_files as files

    work = arguments.work
    tokenizer = arguments.tokenizer or files.make_tokenizer(work, arguments.text, arguments.pieces)
    sizes = [each for each in arguments.overrides if each.startswith("model.")]
    files.make_network(work, arguments.model, sizes, tokenizer)
    overrides = overrides_of(arguments, "float32")
    if arguments.whole:
        facts = files.make_whole(work, arguments.data, arguments.train_rows, arguments.test_rows, overrides)
    else:
        facts = files.make_rows(work, arguments.data, overrides, arguments.windows)
    recipe = files.recipe_of(work, arguments.data, overrides)
    runtime.prepare(arguments.threads)
    for precision in arguments.precisions:  # the choice is kept; at their start all contestants would disturb it
        choose_kernels(network_of(recipe), precision)
    training = recipe.training
    settings = ("learning_rate", "warmup_ratio", "weight_decay", "epsilon", "clip_norm")
    return {**facts, "settings": {name: getattr(training, name) for name in settings}}


def run_as_child(arguments: argparse.Namespace) -> Result:
    """Makes our steps."""
    import finetuning_files as files

    recipe = files.recipe_of(arguments.work, arguments.data, overrides_of(arguments, arguments.child))
    runtime.prepare(arguments.threads)
    from kogpt2_gluon.training.loop import run_step
    from kogpt2_gluon.training.setup import set_up
    from kogpt2_gluon.training.signals import StopRequest

    clock, stop = Clock(), StopRequest()
    with set_up(recipe, "never") as run:
        for _ in range(arguments.window - arguments.warmup):
            next(run.batches)
        for _ in range(arguments.warmup + arguments.steps):
            clock.next_turn()
            result = run_step(recipe, run, stop)
            runtime.mx.nd.waitall()  # the optimizer's work may still be going on
        clock.end()
        return {
            "step_seconds": clock.seconds,
            MEMORY: peak_memory_mb(),
            "precision": run.products.precision,
            "ops": run.net.ops.name,
            "kernels": run.products.kernels.describe() if run.products.kernels else "",
            "parameters": sum(parameter.data().size for parameter in run.update.parameters.values()),
            "loss": result.loss,
        }


def overrides_of(arguments: argparse.Namespace, precision: str) -> list[str]:
    """Settings of our runs; the model's sizes are the checkpoint's."""
    plain = {
        "data.seq_length": arguments.length,
        "task.epochs": 1,
        "training.batch_size": arguments.batch_size,
        "training.total_batch_size": arguments.batch_size,
        "training.precision": precision,
        "training.threads": arguments.threads,
        "training.device": "cpu",
        "training.ops": "fused",
    }
    given = [each for each in arguments.overrides if not each.startswith("model.")]
    return [*(f"{key}={value}" for key, value in plain.items()), *given]


# ---- the driver ----------------------------------------------------------------------------------------------------


def child(arguments: argparse.Namespace, *more: object) -> list[object]:
    """The command line of a process of this file."""
    plain = (
        "data",
        "length",
        "batch_size",
        "threads",
        "warmup",
        "windows",
        "train_rows",
        "test_rows",
        "model",
        "pieces",
    )
    values = [part for name in plain for part in (f"--{name.replace('_', '-')}", getattr(arguments, name))]
    files = [part for name in ("tokenizer", "text", "work") for part in (f"--{name}", getattr(arguments, name))]
    files = [part for name, part in zip(files[::2], files[1::2]) if part for part in (name, part)]
    lists = ["--precisions", ",".join(arguments.precisions), *["--whole"] * arguments.whole]
    return [sys.executable, HERE / "finetuning_speed.py", *values, *files, *lists, *more, *arguments.overrides]


def contestants_of(arguments: argparse.Namespace, facts: dict[str, Any]) -> list[Contestant]:
    """Ours and the chosen peers, in each precision."""
    work, found = arguments.work, []
    variables = {"OMP_NUM_THREADS": str(arguments.threads)}
    settings = [part for name, value in facts["settings"].items() for part in (f"--{name.replace('_', '-')}", value)]
    shape = ["--length", arguments.length, "--batch-size", arguments.batch_size, "--labels", 2]
    for precision in arguments.precisions:
        if arguments.whole:
            ours = [sys.executable, "-m", "kogpt2_gluon.cli.main", "finetune", work / "checkpoint", "--task", "nsmc"]
            ours += ["--data", work / "data", "--no-baselines", *overrides_of(arguments, precision)]
            ours += [f"tracking.run_dir={work / f'run-{precision}'}"]
            rows = ["--train", work / "train.jsonl", "--test", work / "test.jsonl"]
        else:
            ours = child(arguments, "--child", precision, "--window", facts["window"], "--steps", facts["steps"])
            rows = ["--train", work / "steps.jsonl", "--steps", arguments.warmup + facts["steps"]]
        found.append(Contestant(f"ours-{precision}", ours, variables))
        peer = [sys.executable, HERE / "finetuning_peers.py", work / "transformers", *rows, *shape, *settings]
        peer += ["--threads", arguments.threads, "--precision", precision]
        for name in arguments.peers:
            sampling = ["--sampling", "group_by_length" if name == "grouped" else "random"]
            own = {**variables, **(HUGE_PAGES if name == "huge" else {})}
            found.append(Contestant(f"{name}-{precision}", [*peer, *sampling], own))
    return found


def measure_steps(arguments: argparse.Namespace, chosen: list[Contestant], facts: dict[str, Any]) -> dict[str, Result]:
    """Lets all make their steps in turn; adds examples a second, over all timed steps and in each window."""
    results = Turns(chosen).run()
    for name, result in results.items():
        timed = result["step_seconds"][arguments.warmup :]
        if len(timed) != facts["steps"]:
            raise ContestantError(f"{name}: {len(timed)} steps, not {facts['steps']}")
        check_rows(name, result, facts)
        result[RATE] = arguments.batch_size * len(timed) / sum(timed)
        parts = [timed[begin : begin + facts["window"]] for begin in range(0, len(timed), facts["window"])]
        result["rate_of_windows"] = [arguments.batch_size * len(part) / sum(part) for part in parts]
        padded = result.pop("padded_tokens", None)
        rows = arguments.batch_size * facts["steps"]
        result["padded_tokens_per_row"] = (
            sum(padded[arguments.warmup :][: facts["steps"]]) / rows if padded else facts["padded_tokens_per_row"]
        )
        announce(f"{name:<18} {result[RATE]:6.1f} rows/s, {result[MEMORY]:,.0f} MB")
    return results


def measure_whole(arguments: argparse.Namespace, chosen: list[Contestant], facts: dict[str, Any]) -> dict[str, Result]:
    """Runs all commands to their ends, in slices."""
    results = run_in_slices(chosen, arguments.slice, arguments.work)
    for contestant in chosen:
        result = results[contestant.name]
        words, precision = result.pop("words"), contestant.name.partition("-")[2]
        if contestant.name.startswith("ours"):
            scores = json.loads((arguments.work / f"run-{precision}" / "seed-0" / "scores.json").read_text("utf-8"))
            if scores["rows"] != facts["test"] or "on test" not in words:
                raise ContestantError(f"{contestant.name}: no score of {facts['test']} rows")
            result["score"] = scores["scores"]["accuracy"]
        else:
            own = json.loads([line for line in words.splitlines() if line.startswith('{"steps"')][-1])
            check_rows(contestant.name, own, facts)
            result.update({key: own[key] for key in ("score", "steps", "train_seconds", "all_seconds")})
        result[RATE] = facts["test"] / result["seconds"]  # only their ratio says something
    return results


def check_rows(name: str, result: Result, facts: dict[str, Any]) -> None:
    """ContestantError if a peer had other tokens than ours."""
    if result.get("ids", facts["ids"]) != facts["ids"]:
        raise ContestantError(f"{name}: its rows have {result['ids']}, ours {facts['ids']} (tokens, sum of ids)")


def summary(arguments: argparse.Namespace, results: dict[str, Result], facts: dict[str, Any]) -> dict[str, Any]:
    """Returns the object that is printed."""
    found: dict[str, Any] = {}
    fastest = {
        side: max((f"{side}-{precision}" for precision in arguments.precisions), key=lambda name: results[name][RATE])
        for side in ("ours", *arguments.peers)
    }
    pairs = {precision: {side: f"{side}-{precision}" for side in fastest} for precision in arguments.precisions}
    for kind, names in {**pairs, "fastest": fastest}.items():
        for peer in arguments.peers:
            of = "" if peer == "trainer" else f"_{peer}"
            ours, theirs = results[names["ours"]], results[names[peer]]
            found[f"ratio{of}_{kind}"] = ours[RATE] / theirs[RATE]
            found[f"memory{of}_{kind}"] = ours[MEMORY] / theirs[MEMORY]
    return {**found, "fastest": fastest, "rows": facts, "contestants": results}


def table(result: dict[str, Any], whole: bool) -> str:
    """Prints the figures as text."""
    of = "seconds" if whole else RATE
    lines = [f"{'':<18} {'seconds' if whole else 'rows/s':>9} {'peak, MB':>9}"]
    lines += [f"{name:<18} {row[of]:>9,.1f} {row[MEMORY]:>9,.0f}" for name, row in result["contestants"].items()]
    lines += [f"{key:<26} {value:.3f}" for key, value in result.items() if key.startswith(("ratio", "memory"))]
    return "\n".join(lines)


def benchmark(arguments: argparse.Namespace) -> dict[str, Any]:
    """Prepares, measures, and sums up."""
    facts = Contestant("files", child(arguments, "--prepare")).run()
    state = speed_conditions(arguments.threads)
    chosen = contestants_of(arguments, facts)
    measure = measure_whole if arguments.whole else measure_steps
    result = summary(arguments, measure(arguments, chosen, facts), facts)
    state.update({name: getattr(arguments, name) for name in ("length", "batch_size", "warmup", "overrides")})
    return {**result, "conditions": state}


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line that the module's docstring describes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with NSMC's files")
    parser.add_argument("--tokenizer", type=Path, metavar="FILE", help="a SentencePiece model or a tokenizer.json")
    parser.add_argument("--text", type=Path, metavar="FILE", help="text to learn one from, a document a line")
    parser.add_argument("--pieces", type=int, default=8000, help="of the learnt tokenizer")
    parser.add_argument("--length", type=int, default=64, help="tokens of the longest row")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--precisions", type=lambda text: names_of(PRECISIONS, text), default=list(PRECISIONS))
    parser.add_argument("--peers", type=lambda text: names_of(PEERS, text), default=["trainer"], help=",".join(PEERS))
    parser.add_argument("--model", default="kogpt2_base", metavar="RECIPE", help="a recipe whose model is trained")
    parser.add_argument("--warmup", type=int, default=8, help="steps before those that are timed")
    parser.add_argument("--windows", type=int, default=2, help="windows of our order whose steps are timed")
    parser.add_argument("--whole", action="store_true", help="whole commands instead of steps")
    parser.add_argument("--train-rows", type=int, default=2000)
    parser.add_argument("--test-rows", type=int, default=10_000)
    parser.add_argument("--slice", type=float, default=4.0, help="seconds of a turn of a whole command")
    parser.add_argument("--threads", type=int, default=limits.available_cores())
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--work", type=Path, help="folder for the files; default: a temporary one")
    for name, kind in (("--child", str), ("--window", int), ("--steps", int)):
        parser.add_argument(name, type=kind, help=argparse.SUPPRESS)
    parser.add_argument("--prepare", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("overrides", nargs="*", help="section.key=value, changes to model and fine-tuning")
    arguments = parser.parse_intermixed_args(argv)
    if not (arguments.tokenizer or arguments.text):
        parser.error("name a --tokenizer, or a --text to learn one from")
    try:
        if arguments.prepare or arguments.child:
            hand_over(prepare(arguments) if arguments.prepare else run_as_child(arguments))
            return
        with tempfile.TemporaryDirectory(dir=arguments.work) as work:
            arguments.work = Path(work)
            result = benchmark(arguments)
    except (KoGPT2Error, ContestantError, subprocess.TimeoutExpired, OSError) as error:
        sys.exit(f"error: {error}")
    print(json.dumps(result) if arguments.json else table(result, arguments.whole))


if __name__ == "__main__":
    main()
