"""Measure how fast token shards are read, against a plain read of the same bytes and other projects' readers.

    python benchmarks/reader.py --json [--peers DIR] [--tokens 100000000] [--rounds 5] [--seconds 3]

All on random tokens from the page cache, ours and each peer's in turn, `--rounds` times; figures are medians, ratios
are made within a round. Every reader is a process of its own, so that memory is its own. `--peers DIR` names a folder
for the peers' environment (several GB, made once from reader_peers.txt with `python -m venv` and pip); without it only
nanoGPT's way, which needs only NumPy, is measured next to ours.

Printed: verified chunks against a plain sequential read into one buffer; batches of int32 ready for MXNet against the
peers'; start and memory of one worker of 64 over a set of ten thousand million tokens (sparse files); the resume from
its middle.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from conditions import conditions
from reader_peers import READ, measure, own_memory_mb
from reader_sets import CHUNK_BYTES, make_tokenizer, recipe_for, write_random, write_sparse

from kogpt2_gluon.machine.worker import Worker
from kogpt2_gluon.reading.training_data import open_training_reader
from kogpt2_gluon.shards.shard_set import ShardSet

HERE = Path(__file__).resolve().parent
SPARSE_TOKENS = 10_000_000_000
WARM_BYTES = 256 << 20
PEERS = {  # peer: numbers of worker processes that are tried; the best counts
    "nanogpt": (0,),
    "megatron": (0,),
    "streaming": (0, 2),
    "litdata": (0, 2),
}


Rounds = dict[str, list[dict[str, float]]]  # of each reader, one result a round


class OneOf(Worker):
    """Rank 0 of `size` workers; the others do not exist."""

    def __init__(self, size: int) -> None:
        self.size = size


# The measurements of one child process.


def ready_batches(folder: Path, batch_size: int, seq_length: int) -> Iterator[np.ndarray]:
    """Measures our batches as NDArrays of MXNet, made as the training loop makes them."""
    from kogpt2_gluon.machine.runtime import mx
    from kogpt2_gluon.training.batches import device_batches

    reader = open_training_reader(recipe_for(folder, batch_size, seq_length, batch_size), OneOf(1))
    for batch, _array in device_batches(reader, mx.cpu()):  # as the training loop does
        yield batch[0]


def child_batches(folder: Path, batch_size: int, seq_length: int, seconds: float) -> dict[str, float]:
    from kogpt2_gluon.machine import runtime

    runtime.prepare(1)
    runtime.mx.nd.zeros(1).wait_to_read()  # the import does not count
    began = time.perf_counter()
    return measure(ready_batches(folder, batch_size, seq_length), seconds, began)


def child_chunks(folder: Path, seconds: float) -> dict[str, float]:
    """Measures bytes a second: our verified chunks, and a plain sequential preadv into one buffer, in turn."""
    buffer = np.empty(CHUNK_BYTES // 2, np.uint16)
    view = buffer.view(np.uint8).data
    plain, ours = [], []
    until = time.perf_counter() + seconds
    paths = sorted(folder.glob("*.ktok"))
    while time.perf_counter() < until:
        began, count = time.perf_counter(), 0
        for path in paths:
            descriptor = os.open(path, os.O_RDONLY)
            offset = 0
            while read := os.preadv(descriptor, [view], offset):
                offset += read
            os.close(descriptor)
            count += offset
        plain.append(count / (time.perf_counter() - began))
        with ShardSet(folder, drop_behind=False) as shards:  # a new one: every chunk's hash is checked again
            began, count = time.perf_counter(), 0
            for chunk in range(shards.num_chunks):
                count += shards.read_into(chunk, buffer) * 2
            ours.append(count / (time.perf_counter() - began))
    ratios = [a / b for a, b in zip(ours, plain)]
    return {
        "verified_gb_per_second": statistics.median(ours) / 1e9,
        "plain_gb_per_second": statistics.median(plain) / 1e9,
        "ratio": statistics.median(ratios),
    }


def child_sparse(folder: Path, seq_length: int, warm: bool) -> dict[str, float]:
    """Measures one worker of 64 over the large set: the first batch from the start, then from the middle.

    A virtual machine may take a millisecond for each MB of memory that it has not used before. With `warm` as much
    memory is touched and freed first.
    """
    if warm:
        np.empty(WARM_BYTES, np.uint8)[::4096] = 1
    recipe, base = recipe_for(folder, 8, seq_length, 512), own_memory_mb()
    began = time.perf_counter()
    reader = open_training_reader(recipe, OneOf(64))
    next(iter(reader))
    start = time.perf_counter() - began
    memory = own_memory_mb()
    state = reader.state()
    per_epoch = reader.mix.sequences_per_epoch
    reader.close()
    state["consumed"] = per_epoch // 2 // 512 * 512
    began = time.perf_counter()
    resumed = open_training_reader(recipe, OneOf(64), state)
    next(iter(resumed))
    resume = time.perf_counter() - began
    after = max(memory, own_memory_mb())
    resumed.close()
    return {
        "start_seconds": start,
        "resume_seconds": resume,
        "memory_mb": after,
        "memory_of_reading_mb": after - base,
        "state_bytes": len(json.dumps(state)),
    }


# The rounds.


def run_child(python: str, *arguments: object) -> dict[str, float]:
    command = [python, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr[-2000:]}")
    result: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def make_peers(folder: Path) -> str:
    """The peers' Python; its environment is made once."""
    python = folder / "bin" / "python"
    if not (folder / ".ready").exists():
        print(f"making the peers' environment in {folder}: several GB", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, "-r", str(HERE / "reader_peers.txt")], check=True)
        # Its own requirements ask for a CUDA build, which reading tokens does not need.
        subprocess.run([*pip, "--no-deps", "megatron-core==0.16.1"], check=True)
        (folder / ".ready").touch()
    return str(python)


def main() -> None:
    """Runs the command line that the module's docstring describes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--peers", type=Path, help="folder of the peers' environment")
    parser.add_argument("--work", type=Path, help="folder for the data; default: a temporary one")
    parser.add_argument("--tokens", type=int, default=100_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--seq-length", type=int, default=1024)
    parser.add_argument("--child", choices=("batches", "chunks", "sparse", "sparse-cold"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(run_as_child(arguments)))
        sys.stdout.flush()
        os._exit(0)
    with tempfile.TemporaryDirectory(dir=arguments.work) as work:
        result = benchmark(arguments, Path(work))
    print(json.dumps(result, indent=1) if arguments.json else table(result))


def run_as_child(arguments: argparse.Namespace) -> dict[str, float]:
    if arguments.child == "batches":
        return child_batches(arguments.folder, arguments.batch_size, arguments.seq_length, arguments.seconds)
    if arguments.child == "chunks":
        return child_chunks(arguments.folder, arguments.seconds)
    return child_sparse(arguments.folder, arguments.seq_length, warm=arguments.child == "sparse")


def benchmark(arguments: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Runs everything, in interleaved rounds."""
    tokenizer = make_tokenizer(work)
    raw, folder = write_random(work, tokenizer, arguments.tokens)
    sparse = write_sparse(work, tokenizer, SPARSE_TOKENS)
    peer_python = make_peers(arguments.peers) if arguments.peers else None
    kinds = [kind for kind in PEERS if peer_python or kind == "nanogpt"]
    shape = ["--seq-length", arguments.seq_length, "--batch-size", arguments.batch_size]
    peers_file = HERE / "reader_peers.py"
    for kind in kinds:
        run_prepare(peer_python or sys.executable, peers_file, kind, raw, work / kind, arguments.seq_length)
    ours = [HERE / "reader.py", *shape, "--seconds", arguments.seconds, "--child"]
    rounds: Rounds = {name: [] for name in ("ours", "chunks", "sparse", "cold", *kinds)}
    for number in range(arguments.rounds):
        print(f"round {number + 1} of {arguments.rounds}", file=sys.stderr)
        rounds["chunks"].append(run_child(sys.executable, *ours, "chunks", "--folder", folder))
        rounds["sparse"].append(run_child(sys.executable, *ours, "sparse", "--folder", sparse))
        rounds["cold"].append(run_child(sys.executable, *ours, "sparse-cold", "--folder", sparse))
        rounds["ours"].append(run_child(sys.executable, *ours, "batches", "--folder", folder))
        for kind in kinds:
            tries = [
                run_child(
                    peer_python or sys.executable, peers_file, "run", kind, raw, work / kind, *shape,
                    "--seconds", arguments.seconds, "--workers", workers,
                )
                for workers in PEERS[kind]
            ]  # fmt: skip
            rounds[kind].append(max(tries, key=lambda result: result["tokens_per_second"]))
    return summary(rounds, kinds, arguments)


def run_prepare(python: str, script: Path, kind: str, raw: Path, folder: Path, seq_length: int) -> None:
    command = [python, str(script), "prepare", kind, str(raw), str(folder), "--seq-length", str(seq_length)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def medians(results: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(result[key] for result in results) for key in results[0]}


def summary(
    rounds: dict[str, list[dict[str, float]]], kinds: list[str], arguments: argparse.Namespace
) -> dict[str, Any]:
    rate = "tokens_per_second"
    fastest = [max(rounds[kind][number][rate] for kind in kinds) for number in range(arguments.rounds)]
    ratios = [ours[rate] / peer for ours, peer in zip(rounds["ours"], fastest)]
    return {
        "conditions": {
            **conditions(),
            "tokens": arguments.tokens,
            "batch_shape": [arguments.batch_size, arguments.seq_length + 1],
            "rounds": arguments.rounds,
        },
        "verified_chunks": {**medians(rounds["chunks"]), "aim": 0.6},
        "batches": {
            "ours": medians(rounds["ours"]),
            "peers": {
                kind: {
                    **medians(rounds[kind]),
                    "ratio": statistics.median(a[rate] / b[rate] for a, b in zip(rounds["ours"], rounds[kind])),
                }
                for kind in kinds
            },
            "ratio_to_fastest_peer": statistics.median(ratios),
            "ratios": ratios,
            "aim": 2.0,
        },
        "ten_billion_tokens": {
            **medians(rounds["sparse"]),
            "with_fresh_memory": medians(rounds["cold"]),
            "aims": {"start_seconds": 1.0, "resume_seconds": 0.05, "memory_mb": 200},
        },
    }


def table(result: dict[str, Any]) -> str:
    """Prints the figures as text."""
    chunks, batches, sparse = result["verified_chunks"], result["batches"], result["ten_billion_tokens"]
    lines = [
        f"verified chunks    {chunks['verified_gb_per_second']:.1f} GB/s, {chunks['ratio']:.2f} of a plain read "
        f"({chunks['plain_gb_per_second']:.1f} GB/s)",
        f"{'batches':<18} {'M tokens/s':>10} {'start, s':>9} {'memory, MB':>11} {'ours is':>8}",
    ]
    rows: list[tuple[str, dict[str, float], float | None]] = [("ours", batches["ours"], None)]
    rows += [(kind, peer, peer["ratio"]) for kind, peer in batches["peers"].items()]
    for name, row, ratio in rows:
        times = f"{ratio:.1f} x" if ratio else ""
        lines.append(
            f"{name:<18} {row['tokens_per_second'] / 1e6:>10.1f} {row['start_seconds']:>9.3f} "
            f"{row['memory_mb']:>11.0f} {times:>8}"
        )
    cold = sparse["with_fresh_memory"]["resume_seconds"] * 1e3
    lines.append(
        f"10^10 tokens, one worker of 64: first batch {sparse['start_seconds']:.3f} s, resume from the middle "
        f"{sparse['resume_seconds'] * 1e3:.0f} ms ({cold:.0f} ms where the "
        f"machine hands out fresh memory), {sparse['memory_mb']:.0f} MB, state {sparse['state_bytes']:.0f} bytes"
    )
    return "\n".join(lines)


assert set(PEERS) == set(READ)

if __name__ == "__main__":
    main()
