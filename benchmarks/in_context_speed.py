"""Measures how much faster few-shot prompts are scored when their common beginning is read once.

    python benchmarks/in_context_speed.py --recipe small_cpu --rows 1000 --json
    python benchmarks/in_context_speed.py --recipe kogpt2_base --rows 60

Rows of random tokens, as long as reviews of films (19 tokens on average, the longest four times that), follow the same
k solved rows; each has two answers of two tokens. Weights are random; the network of a recipe gets 1,024 positions.
Three contestants, each a process of its own, take turns: in a turn one scores all rows for one k.

shared   `Scorer` as it is: the shots once, each row once, its answers after it
prompts  each row's prompt whole, but once for its answers
whole    each prompt and answer whole

`times_K` is seconds of whole / seconds of shared, the median of the turns; `prompts_times_K` that of prompts;
`cpu_times_K` that of whole in seconds of the processor, which other load on the machine changes less. The likelihoods
of all contestants are compared: `difference` is the largest.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from contestants import (
    Contestant,
    ContestantError,
    Result,
    Turns,
    announce,
    hand_over,
    peak_memory_mb,
    speed_conditions,
    wait_for_turn,
)

from kogpt2_gluon.errors import KoGPT2Error
from kogpt2_gluon.machine import limits, runtime
from kogpt2_gluon.recipe import Recipe, load_recipe

NAMES = ("shared", "prompts", "whole")
POSITIONS = 1024
AVERAGE, LONGEST = 19, 76  # tokens of a review, with 8,000 pieces
TEMPLATE, ANSWER = 6, 2  # tokens around a review, and of an answer
WARM_UP_ROWS = 8


def make_requests(vocab_size: int, rows: int, shots: int, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Contexts and continuations: two for each row."""
    draw = np.random.default_rng(seed)

    def review() -> list[int]:
        length = TEMPLATE + min(LONGEST, 1 + draw.geometric(1 / AVERAGE))
        ids: list[int] = draw.integers(4, vocab_size, length).tolist()
        return ids

    answers = draw.integers(4, vocab_size, (2, ANSWER)).astype(np.int32)
    first = [1]
    for number in range(shots):
        first += [*review(), *answers[number % 2].tolist()]
    requests = []
    for _ in range(rows):
        context = np.array([*first, *review()], np.int32)
        requests += [(context, answer) for answer in answers]
    return requests


def our_recipe(arguments: argparse.Namespace) -> Recipe:
    return load_recipe(arguments.recipe, [f"model.max_length={POSITIONS}", *arguments.overrides])


def scorer_of(name: str, recipe: Recipe) -> Any:
    """The contestant's Scorer, over random weights that are the same in all of them."""
    from kogpt2_gluon.inference.scoring import Scorer
    from kogpt2_gluon.inference.shared_prefixes import Group
    from kogpt2_gluon.ops.choose import choose_ops
    from kogpt2_gluon.training.setup import new_network

    class PromptsWhole(Scorer):
        """Nothing is shared between prompts."""

        def _groups(self, prompts: Sequence[Any]) -> list[Group]:
            return [Group(0, list(range(len(prompts))))]

    ctx, training = runtime.mx.cpu(), recipe.training
    ops = choose_ops(training.ops, training.precision, ctx, recipe.model.dropout, recipe.model.activation)
    net = new_network(recipe, ctx, ops).for_decoding()
    return PromptsWhole(net, ctx) if name == "prompts" else Scorer(net, ctx, share=name == "shared")


def run_as_child(arguments: argparse.Namespace) -> Result:
    """One contestant, in its own process."""
    recipe = our_recipe(arguments)
    runtime.prepare(recipe.training.threads)
    from kogpt2_gluon.inference.scoring import Request

    scorer = scorer_of(arguments.child, recipe)
    vocab_size = recipe.model.vocab_size
    warm = [Request(*each) for each in make_requests(vocab_size, WARM_UP_ROWS, max(arguments.shots))]
    scorer.log_likelihoods(warm)
    result: Result = {"likelihoods": {}, "seconds": {}, "cpu_seconds": {}, "tokens_read": {}}
    for shots in arguments.shots:
        requests = [Request(*each) for each in make_requests(vocab_size, arguments.rows, shots)]
        seconds, cpu_seconds = [], []
        for _ in range(arguments.turns):
            wait_for_turn()
            before, began, cpu = scorer.tokens_read, time.perf_counter(), time.process_time()
            found = scorer.log_likelihoods(requests)
            seconds.append(time.perf_counter() - began)
            cpu_seconds.append(time.process_time() - cpu)
        result["seconds"][str(shots)], result["cpu_seconds"][str(shots)] = seconds, cpu_seconds
        result["tokens_read"][str(shots)] = scorer.tokens_read - before
        result["likelihoods"][str(shots)] = [each.log_likelihood for each in found]
    return {**result, "peak_memory_mb": peak_memory_mb()}


def contestants(arguments: argparse.Namespace) -> list[Contestant]:
    shots = ",".join(map(str, arguments.shots))
    command = [sys.executable, Path(__file__).resolve(), "--recipe", arguments.recipe, "--rows", arguments.rows]
    command += ["--turns", arguments.turns, "--shots", shots]
    overrides = [*arguments.overrides, f"training.threads={arguments.threads}"]
    variables = {"OMP_NUM_THREADS": str(arguments.threads)}
    return [Contestant(name, [*command, "--child", name, *overrides], variables) for name in NAMES]


def summary(arguments: argparse.Namespace, found: dict[str, Result], state: dict[str, Any]) -> dict[str, Any]:
    """Returns the object that is printed."""
    result: dict[str, Any] = {"recipe": arguments.recipe, "rows": arguments.rows, "turns": arguments.turns}
    difference = 0.0
    for shots in map(str, arguments.shots):
        for name, key, unit in (
            ("whole", f"times_{shots}", "seconds"),
            ("prompts", f"prompts_times_{shots}", "seconds"),
            ("whole", f"cpu_times_{shots}", "cpu_seconds"),
        ):
            pairs = zip(found[name][unit][shots], found["shared"][unit][shots])
            result[key] = statistics.median(theirs / ours for theirs, ours in pairs)
        likelihoods = [np.array(found[name]["likelihoods"][shots]) for name in NAMES]
        difference = max(difference, *(float(np.abs(likelihoods[0] - other).max()) for other in likelihoods[1:]))
    result["difference"] = difference
    for name in NAMES:
        shown = {key: value for key, value in found[name].items() if key != "likelihoods"}
        result[name] = shown
    return {**result, "conditions": {**state, "overrides": arguments.overrides}}


def table(result: dict[str, Any], shots: Sequence[int]) -> str:
    """Prints the figures as text."""
    lines = [
        f"{result['recipe']}: {result['rows']:,} rows; likelihoods differ by {result['difference']:.1e} at most",
        "shots  shared, s  prompts, s  whole, s  prompts/shared  whole/shared  of CPU time",
    ]
    for count in shots:
        seconds = [statistics.median(result[name]["seconds"][str(count)]) for name in NAMES]
        lines.append(
            f"{count:>5} {seconds[0]:>10.2f} {seconds[1]:>11.2f} {seconds[2]:>9.2f} "
            f"{result[f'prompts_times_{count}']:>13.1f} x {result[f'times_{count}']:>11.1f} x "
            f"{result[f'cpu_times_{count}']:>10.1f} x"
        )
    memory = "  ".join(f"{name} {result[name]['peak_memory_mb']:,.0f}" for name in NAMES)
    return "\n".join([*lines, f"peak memory, MB: {memory}"])


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line that the module's docstring describes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="small_cpu")
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--shots", type=lambda text: [int(part) for part in text.split(",")], default=[1, 4, 8])
    parser.add_argument("--turns", type=int, default=3, help="of each contestant, for each number of shots")
    parser.add_argument("--threads", type=int, default=limits.available_cores())
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--child", choices=NAMES, help=argparse.SUPPRESS)
    parser.add_argument("overrides", nargs="*", help="section.key=value, changes to the recipe")
    arguments = parser.parse_intermixed_args(argv)
    if arguments.child:
        hand_over(run_as_child(arguments))
        return
    state = speed_conditions(arguments.threads)
    try:
        our_recipe(arguments)  # its faults show before a process is started
        found = Turns(contestants(arguments)).run()
    except (ContestantError, KoGPT2Error) as error:
        raise SystemExit(f"error: {error}") from None
    result = summary(arguments, found, state)
    if result["difference"] > 1e-4:
        announce(f"the likelihoods differ by {result['difference']:.1e}")
    print(json.dumps(result, indent=1) if arguments.json else table(result, arguments.shots))


if __name__ == "__main__":
    main()
