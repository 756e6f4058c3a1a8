"""Measure how fast text is generated with cached keys and values: ours against transformers' `generate`.

    python benchmarks/generation_speed.py --precision bfloat16 --rounds 3 --json

KoGPT-2 base with random weights, each token drawn from the 40 likeliest. Three things are measured:

- a prompt of 32 random tokens, continued by 128, once and eight times side by side (`ratio_N`: tokens/s);
- 32 prompts of 8 to 128 tokens, each continued by 128 (`ratio_mixed`: new tokens/s of all together). Ours is a
  TextEngine with 32 slots, which reads each prompt as it is and decodes each token; the peer pads a batch on the left;
- a prompt of 512 tokens, continued by one (`ratio_first`: how many of them a second).

Ours is `Generator.ids` but for the prompts of mixed lengths. The peer is `GPT2LMHeadModel.generate` with its own cache,
under inference_mode, in bfloat16 with the weights in bfloat16. Neither side ends early: ours may never draw the id that
is named as `</s>`, and the peer has no such id. In every round each contestant runs in turn, a process of its own: a
short generation to warm up, then timed ones, the prompt's pass included; a ratio is made within a round and the median
of the rounds counts.

Contestants: `ours`, `ours-int8` (its matrices in int8, whatever the precision), `ours-3bit` (the layers' matrices in
binary codes of three bits, made up at random, which read as fast as others; the logits' matrix in the precision),
`stock` (ours by MXNet's own operators, in float32 whatever the precision), `hf`, `hf-huge` (with
GLIBC_TUNABLES=glibc.malloc.hugetlb=1). `3bit_ratio_N` is to `hf`, as `int8_ratio_N` is, and `3bit_over_ours_N` is to
`ours`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from contestants import (
    HUGE_PAGES,
    Contestant,
    ContestantError,
    Result,
    figures,
    names_of,
    peak_memory_mb,
    ratio,
    run_rounds,
    speed_conditions,
)

from kogpt2_gluon.errors import KoGPT2Error
from kogpt2_gluon.machine import limits, runtime
from kogpt2_gluon.recipe import Recipe, load_recipe

HERE = Path(__file__).resolve().parent
INT8, CODED = "ours-int8", "ours-3bit"
PEERS = (INT8, CODED, "stock", "hf", "hf-huge")
TOP_K = 40
WARM_UP_TOKENS = 8

Prompts = Sequence[list[int]]
New = list[list[int]]  # the new ids of each text


class Generate(NamedTuple):
    """Generates in two ways. Both take the number of new tokens last."""

    same: Callable[[list[int], int, int], New]  # prompt, batch size
    mixed: Callable[[Prompts, int], New]


def our_generator(recipe: Recipe, weights: str) -> Generate:
    """Returns our generator; the last row of the vocabulary stands for `</s>` and is never drawn."""
    runtime.prepare(recipe.training.threads)
    from kogpt2_gluon.inference.generation import Generator
    from kogpt2_gluon.inference.sampling import Sampling
    from kogpt2_gluon.inference.text_engine import TextEngine, TextRequest
    from kogpt2_gluon.ops.choose import choose_ops
    from kogpt2_gluon.training.setup import new_network

    ctx, training = runtime.mx.cpu(), recipe.training
    ops = choose_ops(training.ops, training.precision, ctx, recipe.model.dropout, recipe.model.activation)
    net = new_network(recipe, ctx, ops).for_decoding()
    if weights == "codes":
        give_made_up_codes(net)
    generator, tokenizer = Generator(net, ctx, weights), made_up_tokenizer(recipe.model.vocab_size)
    never = recipe.model.vocab_size - 1

    def same(prompt: list[int], batch_size: int, new_tokens: int) -> New:
        return generator.ids(prompt, never, Sampling(new_tokens, top_k=TOP_K), batch_size, vocab_size=never)

    engines: dict[int, TextEngine] = {}  # by slots

    def mixed(prompts: Prompts, new_tokens: int) -> New:
        if len(prompts) not in engines:
            engines[len(prompts)] = TextEngine(net, tokenizer, ctx, len(prompts), weights=weights)
        engine = engines[len(prompts)]
        sampling = Sampling(new_tokens, top_k=TOP_K, min_new_tokens=new_tokens)
        texts: dict[int, list[int]] = {engine.add(TextRequest(prompt, sampling)): [] for prompt in prompts}
        for written in engine.run():
            assert written.finish_reason in (None, "length"), written
            texts[written.number].append(written.choice.token)
        return list(texts.values())

    return Generate(same, mixed)


def give_made_up_codes(net: Any, bits: int = 3) -> None:
    """Gives the matrices of all layers random codes, with scales for each row."""
    from kogpt2_gluon.binary_codes import PackedCodes
    from kogpt2_gluon.model.coded_weights import MATRICES, give_codes
    from kogpt2_gluon.model.gpt2 import structural_parameters

    random, codes = np.random.default_rng(0), {}
    for name, parameter in structural_parameters(net).items():
        if any(name.endswith(each.partition("{}")[2]) for each in MATRICES):
            rows, columns = parameter.shape
            planes = random.integers(0, 256, (bits, rows, -(-columns // 8)), np.uint8)
            scales = np.full((bits, rows, 1), 0.01, np.float32) / 2.0 ** np.arange(bits)[:, None, None]
            codes[name] = PackedCodes(scales.astype(np.float32), planes, columns)
    give_codes(net, codes)


def made_up_tokenizer(vocab_size: int) -> Any:
    """Returns a SentencePiece tokenizer of so many pieces, two syllables each, to decode with."""
    from sentencepiece import sentencepiece_model_pb2

    from kogpt2_gluon.tokens.tokenizer import Tokenizer

    proto = sentencepiece_model_pb2.ModelProto()
    proto.trainer_spec.model_type = 2  # BPE
    for special, kind in (("<unk>", 2), ("<s>", 3), ("</s>", 3), ("<pad>", 3)):
        proto.pieces.add(piece=special, score=0.0, type=kind)
    for number in range(vocab_size - 4):
        first, second = divmod(number, 1000)
        proto.pieces.add(piece=chr(0xAC00 + first) + chr(0xAC00 + second), score=float(-number))
    proto.trainer_spec.pad_id = 3
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "made_up.model"
        path.write_bytes(proto.SerializeToString())
        return Tokenizer.load(path)


def peer_generator(recipe: Recipe) -> Generate:
    """Returns the generator of transformers."""
    import torch
    from training_peers import new_model

    torch.set_num_threads(recipe.training.threads)
    torch.manual_seed(0)
    model = new_model(asdict(recipe.model)).eval().to(getattr(torch, recipe.training.precision))

    def generate(tokens: torch.Tensor, mask: torch.Tensor, new_tokens: int) -> New:
        with torch.inference_mode():
            out = model.generate(
                tokens,
                attention_mask=mask,
                max_new_tokens=new_tokens,
                do_sample=True,
                top_k=TOP_K,
                use_cache=True,
                eos_token_id=None,
                pad_token_id=0,
            )
        ids: New = out[:, tokens.shape[1] :].tolist()
        return ids

    def same(prompt: list[int], batch_size: int, new_tokens: int) -> New:
        tokens = torch.tensor([prompt] * batch_size)
        return generate(tokens, torch.ones_like(tokens), new_tokens)

    def mixed(prompts: Prompts, new_tokens: int) -> New:
        longest = max(map(len, prompts))
        tokens = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        return generate(tokens, mask, new_tokens)

    return Generate(same, mixed)


def our_recipe(arguments: argparse.Namespace) -> Recipe:
    """Returns the recipe of all contestants. Raises RecipeError if the text exceeds the model's positions."""
    longest = max(arguments.prompt + arguments.tokens, arguments.first + 1, arguments.lengths[1] + arguments.tokens)
    return load_recipe("kogpt2_base", [f"data.seq_length={longest}", *arguments.overrides])


def run_as_child(arguments: argparse.Namespace) -> Result:
    """One contestant, in its own process."""
    recipe = our_recipe(arguments)
    rng, most = np.random.default_rng(0), recipe.model.vocab_size - 1
    prompt, first = (rng.integers(4, most, length).tolist() for length in (arguments.prompt, arguments.first))
    lengths = rng.integers(arguments.lengths[0], arguments.lengths[1] + 1, arguments.mixed)
    prompts = [rng.integers(4, most, length).tolist() for length in lengths]
    generate = peer_generator(recipe) if arguments.child == "hf" else our_generator(recipe, arguments.weights)
    result: Result = {"precision": recipe.training.precision, "weights": arguments.weights}
    tokens = arguments.tokens
    for size in arguments.batch_sizes:
        seconds = timed(lambda new, size=size: generate.same(prompt, size, new), size, tokens, arguments.repeats)
        result |= rates(str(size), seconds, size * tokens)
        result[f"milliseconds_per_token_{size}"] = 1000 * statistics.median(seconds) / tokens
    if arguments.mixed:
        seconds = timed(lambda new: generate.mixed(prompts, new), len(prompts), tokens, arguments.repeats)
        result |= rates("mixed", seconds, len(prompts) * tokens)
    if arguments.first:
        seconds = timed(lambda new: generate.same(first, 1, new), 1, 1, 3 * arguments.repeats)
        result |= rates("first", seconds, 1)
    result["peak_memory_mb"] = peak_memory_mb()
    return result


def timed(generate: Callable[[int], New], texts: int, new_tokens: int, repeats: int) -> list[float]:
    """Returns the seconds of each generation, after a short one that does not count."""
    generate(min(WARM_UP_TOKENS, new_tokens))
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        samples = generate(new_tokens)
        seconds.append(time.perf_counter() - began)
        lengths = {len(sample) for sample in samples}
        assert len(samples) == texts and lengths == {new_tokens}, lengths
    return seconds


def rates(case: str, seconds: list[float], tokens: int) -> Result:
    """Returns a case's figures: new tokens a second, and the seconds of each generation."""
    return {f"tokens_per_second_{case}": tokens / statistics.median(seconds), f"seconds_{case}": seconds}


def cases_of(arguments: argparse.Namespace) -> list[str]:
    """Returns the names of the cases that are measured: 1, 8, mixed, first."""
    others = [name for name, count in (("mixed", arguments.mixed), ("first", arguments.first)) if count]
    return [*map(str, arguments.batch_sizes), *others]


def contestants(arguments: argparse.Namespace) -> list[Contestant]:
    """Returns ours and the peers that were asked for."""
    batch_sizes = ",".join(map(str, arguments.batch_sizes))
    settings = ["--batch-sizes", batch_sizes, "--prompt", arguments.prompt, "--tokens", arguments.tokens]
    settings += ["--mixed", arguments.mixed, "--lengths", *arguments.lengths, "--first", arguments.first]
    overrides = [*arguments.overrides, f"training.threads={arguments.threads}"]
    command = [sys.executable, HERE / "generation_speed.py", *settings, "--repeats", arguments.repeats, *overrides]
    precision = f"training.precision={arguments.precision}"
    ours = [*command, "--child", "ours", "training.ops=fused", precision]
    stock = [*command, "--child", "ours", "training.ops=stock", "training.precision=float32"]  # all it has
    peer = [*command, "--child", "hf", precision]
    variables = {"OMP_NUM_THREADS": str(arguments.threads)}
    everyone = [
        Contestant("ours", ours, variables),
        Contestant(INT8, [*ours, "--weights", "int8"], variables),
        Contestant(CODED, [*ours, "--weights", "codes"], variables),
        Contestant("stock", stock, variables),
        Contestant("hf", peer, variables),
        Contestant("hf-huge", peer, {**variables, **HUGE_PAGES}),
    ]
    return [each for each in everyone if each.name == "ours" or each.name in arguments.peers]


def summary(arguments: argparse.Namespace, rounds: list[dict[str, Result]], state: dict[str, Any]) -> dict[str, Any]:
    """Returns the object that is printed."""
    cases, names = cases_of(arguments), list(rounds[0])
    rate = {case: f"tokens_per_second_{case}" for case in cases}
    shown = [*rate.values(), *(f"milliseconds_per_token_{size}" for size in arguments.batch_sizes), "peak_memory_mb"]
    return {
        **{f"ratio_{case}": ratio(rounds, "ours", "hf", rate[case]) for case in cases},
        **{f"int8_ratio_{case}": ratio(rounds, INT8, "hf", rate[case]) for case in cases if INT8 in names},
        **{f"3bit_ratio_{case}": ratio(rounds, CODED, "hf", rate[case]) for case in cases if CODED in names},
        **{f"3bit_over_ours_{case}": ratio(rounds, CODED, "ours", rate[case]) for case in cases if CODED in names},
        "precision": arguments.precision,
        "prompt_tokens": arguments.prompt,
        "new_tokens": arguments.tokens,
        "contestants": {
            name: {
                **{key: statistics.median(figures(rounds, name, key)) for key in shown},
                "precision": rounds[0][name]["precision"],
                **{f"ours_is_{case}": ratio(rounds, "ours", name, rate[case]) for case in cases},
            }
            for name in names
        },
        "left_out": [name for name in arguments.peers if name not in names],
        "conditions": {**state, "overrides": arguments.overrides, "repeats": arguments.repeats},
        "rounds": rounds,
    }


def table(result: dict[str, Any], cases: Sequence[str]) -> str:
    """Prints the figures as text."""
    lines = [
        f"{result['new_tokens']} tokens after a prompt of {result['prompt_tokens']}, {result['precision']}, "
        f"{result['conditions']['threads']} threads"
    ]
    titles = {"mixed": "mixed prompts", "first": "first token"}
    for case in cases:
        lines.append(f"{titles.get(case, 'batch of ' + case):<14} {'tokens/s':>9} {'ours is':>9}")
        for name, row in result["contestants"].items():
            figure, ours_is = row[f"tokens_per_second_{case}"], row[f"ours_is_{case}"]
            lines.append(f"{name:<14} {figure:>9,.1f} {ours_is:>7.2f} x")
    lines += [f"{name:<14} could not run; stderr says why" for name in result["left_out"]]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line that the module's docstring describes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--batch-sizes", type=lambda text: [int(size) for size in text.split(",")], default=[1, 8])
    parser.add_argument("--prompt", type=int, default=32, help="tokens of the prompt")
    parser.add_argument("--tokens", type=int, default=128, help="new tokens of a sample")
    parser.add_argument("--mixed", type=int, default=32, help="prompts of mixed lengths; 0: leave that out")
    parser.add_argument("--lengths", type=int, nargs=2, default=(8, 128), help="the shortest and longest of these")
    parser.add_argument("--first", type=int, default=512, help="tokens of the prompt for one token; 0: leave that out")
    parser.add_argument(
        "--peers",
        type=lambda text: names_of(PEERS, text),
        default=[INT8, CODED, "stock", "hf"],
        help=f"of {','.join(PEERS)}",
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=2, help="timed generations of a contestant in a round")
    parser.add_argument("--threads", type=int, default=limits.available_cores())
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--child", choices=("ours", "hf"), help=argparse.SUPPRESS)
    parser.add_argument("--weights", default="", help=argparse.SUPPRESS)
    parser.add_argument("overrides", nargs="*", help="section.key=value, changes to the recipe kogpt2_base")
    arguments = parser.parse_intermixed_args(argv)
    if arguments.child:
        print(json.dumps(run_as_child(arguments)))
        return
    show = [f"tokens_per_second_{case}" for case in cases_of(arguments)]
    state = speed_conditions(arguments.threads)
    try:
        our_recipe(arguments)  # its faults show before a round is spent
        rounds = run_rounds(contestants(arguments), arguments.rounds, needed=("ours", "hf"), show=show)
    except (ContestantError, KoGPT2Error) as error:
        raise SystemExit(f"error: {error}") from None
    result = summary(arguments, rounds, state)
    print(json.dumps(result, indent=1) if arguments.json else table(result, cases_of(arguments)))


if __name__ == "__main__":
    main()
