"""Other projects' token readers, measured as `reader.py` measures ours; runs in an environment of its own.

    python reader_peers.py prepare KIND TOKENS FOLDER --seq-length 1024
    python reader_peers.py run KIND TOKENS FOLDER --seq-length 1024 --batch-size 8 --seconds 3

TOKENS is a raw file of little-endian uint16. Every peer delivers random batches of int32, (batch_size, seq_length + 1),
from the page cache, in one process without worker processes (with them is tried too where the peer offers it, and the
better figure counts). `run` prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import numpy as np

CHUNK_TOKENS = 1 << 21  # 4 MiB of uint16, as our chunks


def nanogpt(tokens: Path, _folder: Path, length: int, batch_size: int, _workers: int) -> Iterator[np.ndarray]:
    """Reads each row from a random place of a memory map, as nanoGPT's get_batch does."""
    data = np.memmap(tokens, dtype=np.uint16, mode="r")
    generator = np.random.default_rng(0)
    while True:
        starts = generator.integers(0, len(data) - length, batch_size)
        yield np.stack([data[start : start + length].astype(np.int32) for start in starts])


def prepare_megatron(tokens: Path, folder: Path, _length: int) -> None:
    from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder

    data = np.fromfile(tokens, np.uint16)
    builder = IndexedDatasetBuilder(str(folder / "tokens.bin"), dtype=np.uint16)
    for start in range(0, len(data), CHUNK_TOKENS):
        part = data[start : start + CHUNK_TOKENS]
        builder.add_document(part, [len(part)])
    builder.finalize(str(folder / "tokens.idx"))


def megatron(_tokens: Path, folder: Path, length: int, batch_size: int, _workers: int) -> Iterator[np.ndarray]:
    """Reads random stretches from Megatron-core's indexed dataset, without its sample index, which costs more."""
    from megatron.core.datasets.indexed_dataset import IndexedDataset

    data = IndexedDataset(str(folder / "tokens"))
    lengths = np.asarray(data.sequence_lengths)
    generator = np.random.default_rng(0)
    usable = np.flatnonzero(lengths >= length)
    while True:
        chosen = generator.choice(usable, batch_size)
        starts = (generator.random(batch_size) * (lengths[chosen] - length)).astype(np.int64)
        rows = [data.get(int(index), int(start), length) for index, start in zip(chosen, starts)]
        yield np.stack(rows).astype(np.int32)


def prepare_streaming(tokens: Path, folder: Path, length: int) -> None:
    from streaming import MDSWriter

    data = np.fromfile(tokens, np.uint16)
    with MDSWriter(out=str(folder), columns={"tokens": f"ndarray:uint16:{length}"}, size_limit=1 << 26) as writer:
        for start in range(0, len(data) - length, length - 1):
            writer.write({"tokens": data[start : start + length]})


def streaming(_tokens: Path, folder: Path, length: int, batch_size: int, workers: int) -> Iterator[np.ndarray]:
    """MosaicML Streaming: fixed-size samples of an MDS, shuffled."""
    from streaming import StreamingDataset
    from torch.utils.data import DataLoader

    data = StreamingDataset(local=str(folder), shuffle=True, batch_size=batch_size)
    while True:
        if workers:
            loader = DataLoader(data, batch_size=batch_size, num_workers=workers, drop_last=True)
            yield from (batch["tokens"].numpy().astype(np.int32) for batch in loader)
        else:
            yield from _batches((sample["tokens"] for sample in data), batch_size)


def _all_of(piece: tuple[str, int, int]) -> Any:
    import torch

    path, start, stop = piece
    data = np.memmap(path, dtype=np.uint16, mode="r")[start:stop]
    yield torch.from_numpy(data.astype(np.int32))


def prepare_litdata(tokens: Path, folder: Path, length: int) -> None:
    from litdata import TokensLoader, optimize

    count = tokens.stat().st_size // 2
    pieces = [(str(tokens), start, min(start + CHUNK_TOKENS, count)) for start in range(0, count, CHUNK_TOKENS)]
    shutil.rmtree(folder)
    optimize(
        _all_of,
        pieces,
        output_dir=str(folder),
        chunk_size=length * (CHUNK_TOKENS // length),
        item_loader=TokensLoader(),
        num_workers=1,
    )


def litdata(_tokens: Path, folder: Path, length: int, batch_size: int, workers: int) -> Iterator[np.ndarray]:
    """LitData: a token block loader over its own chunks, shuffled."""
    from litdata import StreamingDataLoader, StreamingDataset, TokensLoader

    data = StreamingDataset(str(folder), item_loader=TokensLoader(block_size=length), shuffle=True, drop_last=True)
    while True:
        if workers:
            loader = StreamingDataLoader(data, batch_size=batch_size, num_workers=workers, drop_last=True)
            yield from (batch.numpy().astype(np.int32) for batch in loader)
        else:
            yield from _batches((np.asarray(sample) for sample in data), batch_size)


def _batches(samples: Iterator[np.ndarray], batch_size: int) -> Iterator[np.ndarray]:
    rows: list[np.ndarray] = []
    for sample in samples:
        rows.append(sample)
        if len(rows) == batch_size:
            yield np.stack(rows).astype(np.int32)
            rows = []


PREPARE: dict[str, Callable[[Path, Path, int], None]] = {
    "megatron": prepare_megatron,
    "streaming": prepare_streaming,
    "litdata": prepare_litdata,
}
READ: dict[str, Callable[..., Iterator[np.ndarray]]] = {
    "nanogpt": nanogpt,
    "megatron": megatron,
    "streaming": streaming,
    "litdata": litdata,
}


def own_memory_mb() -> float:
    """Resident memory that belongs to this process and its children alone (mapped files left out), in MB."""
    total = 0
    for process in [str(os.getpid()), *_children()]:
        status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
        fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
        total += int(fields["RssAnon"].split()[0])
    return total / 1e3


def _children() -> list[str]:
    tasks = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    return [child for task in tasks for child in task.read_text().split()]


def measure(batches: Iterator[np.ndarray], seconds: float, began: float) -> dict[str, float]:
    """Tokens a second over about `seconds`, and the time from `began` to the first batch."""
    first = next(batches)
    started = time.perf_counter()
    tokens, checksum, now = 0, 0, started
    while now - started < seconds:
        for _ in range(16):
            batch = next(batches)
            tokens += batch.shape[0] * (batch.shape[1] - 1)
            checksum += int(batch[0, 0])  # so that every array is really read
        now = time.perf_counter()
    assert first.dtype == np.int32 and checksum >= 0
    return {
        "tokens_per_second": tokens / (now - started),
        "start_seconds": started - began,
        "memory_mb": own_memory_mb(),
    }


def main() -> None:
    """Runs the command line that the module's docstring describes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=("prepare", "run"))
    parser.add_argument("kind", choices=sorted(READ))
    parser.add_argument("tokens", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seq-length", type=int, default=1024)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--workers", type=int, default=0)
    arguments = parser.parse_args()
    length = arguments.seq_length + 1
    arguments.folder.mkdir(parents=True, exist_ok=True)
    if arguments.verb == "prepare":
        if arguments.kind in PREPARE:
            PREPARE[arguments.kind](arguments.tokens, arguments.folder, length)
        return
    read = READ[arguments.kind]
    for module in {"megatron": ["megatron.core.datasets.indexed_dataset"]}.get(arguments.kind, [arguments.kind]):
        if arguments.kind != "nanogpt":
            __import__(module)  # the import does not count
    began = time.perf_counter()
    batches = read(arguments.tokens, arguments.folder, length, arguments.batch_size, arguments.workers)
    result = measure(batches, arguments.seconds, began)
    print(json.dumps(result))
    sys.stdout.flush()
    os._exit(0)  # a loader's worker processes can hold the interpreter for minutes


if __name__ == "__main__":
    main()
