"""Measure how fast text is generated with cached keys and values: ours against transformers' `generate`.

    python benchmarks/generation_speed.py --precision bfloat16 --rounds 3 --json

KoGPT-2 base with random weights continues a prompt of 32 random tokens by 128, once and eight times side by side, each
token drawn from the 40 likeliest. Ours is `Generator.ids`, the peer `GPT2LMHeadModel.generate` with its own cache,
under inference_mode, in bfloat16 with the weights in bfloat16. Neither side ends early: ours may never draw the id that
is named as `</s>`, and the peer has no such id. In every round each contestant runs in turn, a process of its own: a
short generation to warm up, then timed ones, the prompt's pass included; a ratio is made within a round and the median
of the rounds counts. `ratio_N` is ours / hf in tokens/s at batch size N.

Contestants: `ours`, `stock` (ours by MXNet's own operators, in float32 whatever the precision), `hf`, `hf-huge` (with
GLIBC_TUNABLES=glibc.malloc.hugetlb=1).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from contestants import (
    HUGE_PAGES,
    Contestant,
    ContestantError,
    Result,
    figures,
    peak_memory_mb,
    ratio,
    run_rounds,
    speed_conditions,
)

from kogpt2_gluon.errors import KoGPT2Error
from kogpt2_gluon.machine import limits, runtime
from kogpt2_gluon.recipe import Recipe, load_recipe

HERE = Path(__file__).resolve().parent
PEERS = ("stock", "hf", "hf-huge")
TOP_K = 40
WARM_UP_TOKENS = 8

Generate = Callable[[int, int], list[list[int]]]  # (batch_size, new_tokens) -> the new ids of each sample


def our_generator(recipe: Recipe, prompt: list[int]) -> Generate:
    """Returns our generator; the last row of the vocabulary stands for `</s>` and is never drawn."""
    runtime.prepare(recipe.training.threads)
    from kogpt2_gluon.inference.generation import Generator
    from kogpt2_gluon.inference.sampling import Sampling
    from kogpt2_gluon.ops.choose import choose_ops
    from kogpt2_gluon.training.setup import new_network

    ctx, training = runtime.mx.cpu(), recipe.training
    ops = choose_ops(training.ops, training.precision, ctx, recipe.model.dropout, recipe.model.activation)
    generator = Generator(new_network(recipe, ctx, ops).for_decoding(), ctx)
    never = recipe.model.vocab_size - 1

    def generate(batch_size: int, new_tokens: int) -> list[list[int]]:
        sampling = Sampling(new_tokens, top_k=TOP_K)
        return generator.ids(prompt, never, sampling, batch_size, vocab_size=never)

    return generate


def peer_generator(recipe: Recipe, prompt: list[int]) -> Generate:
    """Returns the generator of transformers."""
    import torch
    from training_peers import new_model

    torch.set_num_threads(recipe.training.threads)
    torch.manual_seed(0)
    model = new_model(asdict(recipe.model)).eval().to(getattr(torch, recipe.training.precision))

    def generate(batch_size: int, new_tokens: int) -> list[list[int]]:
        tokens = torch.tensor([prompt] * batch_size)
        with torch.inference_mode():
            out = model.generate(
                tokens,
                attention_mask=torch.ones_like(tokens),
                max_new_tokens=new_tokens,
                do_sample=True,
                top_k=TOP_K,
                use_cache=True,
                eos_token_id=None,
                pad_token_id=0,
            )
        ids: list[list[int]] = out[:, len(prompt) :].tolist()
        return ids

    return generate


def our_recipe(arguments: argparse.Namespace) -> Recipe:
    """Returns the recipe of all contestants. Raises RecipeError if the text exceeds the model's positions."""
    length = f"data.seq_length={arguments.prompt + arguments.tokens}"
    return load_recipe("kogpt2_base", [length, *arguments.overrides])


def run_as_child(arguments: argparse.Namespace) -> Result:
    """One contestant, in its own process."""
    recipe = our_recipe(arguments)
    prompt = np.random.default_rng(0).integers(4, recipe.model.vocab_size - 1, arguments.prompt).tolist()
    if arguments.child == "hf":
        generate = peer_generator(recipe, prompt)
    else:
        generate = our_generator(recipe, prompt)
    result: Result = {"precision": recipe.training.precision}
    for batch_size in arguments.batch_sizes:
        generate(batch_size, min(WARM_UP_TOKENS, arguments.tokens))
        seconds = []
        for _ in range(arguments.repeats):
            began = time.perf_counter()
            samples = generate(batch_size, arguments.tokens)
            seconds.append(time.perf_counter() - began)
            lengths = {len(sample) for sample in samples}
            assert len(samples) == batch_size and lengths == {arguments.tokens}, lengths
        median = statistics.median(seconds)
        result[f"tokens_per_second_{batch_size}"] = batch_size * arguments.tokens / median
        result[f"milliseconds_per_token_{batch_size}"] = 1000 * median / arguments.tokens
        result[f"seconds_{batch_size}"] = seconds
    result["peak_memory_mb"] = peak_memory_mb()
    return result


def contestants(arguments: argparse.Namespace) -> list[Contestant]:
    """Returns ours and the peers that were asked for."""
    batch_sizes = ",".join(map(str, arguments.batch_sizes))
    settings = ["--batch-sizes", batch_sizes, "--prompt", arguments.prompt, "--tokens", arguments.tokens]
    overrides = [*arguments.overrides, f"training.threads={arguments.threads}"]
    command = [sys.executable, HERE / "generation_speed.py", *settings, "--repeats", arguments.repeats, *overrides]
    precision = f"training.precision={arguments.precision}"
    ours = [*command, "--child", "ours", "training.ops=fused", precision]
    stock = [*command, "--child", "ours", "training.ops=stock", "training.precision=float32"]  # all it has
    peer = [*command, "--child", "hf", precision]
    variables = {"OMP_NUM_THREADS": str(arguments.threads)}
    everyone = [
        Contestant("ours", ours, variables),
        Contestant("stock", stock, variables),
        Contestant("hf", peer, variables),
        Contestant("hf-huge", peer, {**variables, **HUGE_PAGES}),
    ]
    return [each for each in everyone if each.name == "ours" or each.name in arguments.peers]


def summary(arguments: argparse.Namespace, rounds: list[dict[str, Result]], state: dict[str, Any]) -> dict[str, Any]:
    """Returns the object that is printed."""
    sizes, names = arguments.batch_sizes, list(rounds[0])
    rates = [f"tokens_per_second_{size}" for size in sizes]
    shown = [*rates, *(f"milliseconds_per_token_{size}" for size in sizes), "peak_memory_mb"]
    return {
        **{f"ratio_{size}": ratio(rounds, "ours", "hf", rate) for size, rate in zip(sizes, rates)},
        "precision": arguments.precision,
        "prompt_tokens": arguments.prompt,
        "new_tokens": arguments.tokens,
        "contestants": {
            name: {
                **{key: statistics.median(figures(rounds, name, key)) for key in shown},
                "precision": rounds[0][name]["precision"],
                **{f"ours_is_{size}": ratio(rounds, "ours", name, rate) for size, rate in zip(sizes, rates)},
            }
            for name in names
        },
        "left_out": [name for name in arguments.peers if name not in names],
        "conditions": {**state, "overrides": arguments.overrides, "repeats": arguments.repeats},
        "rounds": rounds,
    }


def table(result: dict[str, Any], batch_sizes: Sequence[int]) -> str:
    """Prints the figures as text."""
    lines = [
        f"{result['new_tokens']} tokens after a prompt of {result['prompt_tokens']}, {result['precision']}, "
        f"{result['conditions']['threads']} threads"
    ]
    for size in batch_sizes:
        lines.append(f"{'batch of ' + str(size):<14} {'tokens/s':>9} {'ms a token':>11} {'ours is':>9}")
        for name, row in result["contestants"].items():
            lines.append(
                f"{name:<14} {row[f'tokens_per_second_{size}']:>9,.1f} "
                f"{row[f'milliseconds_per_token_{size}']:>11,.1f} {row[f'ours_is_{size}']:>7.2f} x"
            )
    lines += [f"{name:<14} could not run; stderr says why" for name in result["left_out"]]
    return "\n".join(lines)


def names_of(text: str) -> list[str]:
    """Splits `hf,stock` into names of contestants; raises an error for an unknown one."""
    names = [name for name in text.split(",") if name]
    if unknown := [name for name in names if name not in PEERS]:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not one of {', '.join(PEERS)}")
    return names


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line that the module's docstring describes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--batch-sizes", type=lambda text: [int(size) for size in text.split(",")], default=[1, 8])
    parser.add_argument("--prompt", type=int, default=32, help="tokens of the prompt")
    parser.add_argument("--tokens", type=int, default=128, help="new tokens of a sample")
    parser.add_argument("--peers", type=names_of, default=["stock", "hf"], help=f"of {','.join(PEERS)}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=2, help="timed generations of a contestant in a round")
    parser.add_argument("--threads", type=int, default=limits.available_cores())
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--child", choices=("ours", "hf"), help=argparse.SUPPRESS)
    parser.add_argument("overrides", nargs="*", help="section.key=value, changes to the recipe kogpt2_base")
    arguments = parser.parse_intermixed_args(argv)
    if arguments.child:
        print(json.dumps(run_as_child(arguments)))
        return
    show = [f"tokens_per_second_{size}" for size in arguments.batch_sizes]
    state = speed_conditions(arguments.threads)
    try:
        our_recipe(arguments)  # its faults show before a round is spent
        rounds = run_rounds(contestants(arguments), arguments.rounds, needed=("ours", "hf"), show=show)
    except (ContestantError, KoGPT2Error) as error:
        raise SystemExit(f"error: {error}") from None
    result = summary(arguments, rounds, state)
    print(json.dumps(result, indent=1) if arguments.json else table(result, arguments.batch_sizes))


if __name__ == "__main__":
    main()
