"""Targets: shards and their manifest, and the description of a cleaned corpus."""

from __future__ import annotations

import contextlib
import json
import random
from pathlib import Path

import numpy as np
import xxhash

from kogpt2_gluon.corpus.cleaning import clean
from kogpt2_gluon.corpus.store import Corpus
from kogpt2_gluon.shards.check import check_chunks, check_index
from kogpt2_gluon.shards.format import MAGIC, TRAILER, Manifest, ShardInfo, ShardWriter
from kogpt2_gluon.shards.shard_set import ShardSet
from kogpt2_gluon.shards.verify import verify_set
from tests.fuzz.mutate import dump, mutate_bytes, mutate_json, mutate_plain
from tests.fuzz.target import Target

SPECIAL = {"unk": 0, "bos": 1, "eos": 2, "pad": 3}
LENGTHS = [5, 40, 3, 60, 22]
NAME = "train-00000.ktok"


def write_set(folder: Path, dtype: str = "<u2", shard_bytes: int = 1 << 20) -> Manifest:
    folder.mkdir(parents=True, exist_ok=True)
    tokens = np.arange(4, 4 + sum(LENGTHS)).astype(dtype)
    ends = np.cumsum(LENGTHS)
    tokens[ends - 1], tokens[ends - LENGTHS] = 2, 1
    manifest = Manifest("train", dtype, 64, 50000, "5a" * 32, dict(SPECIAL), "a fuzz test")
    with ShardWriter(folder, manifest, shard_bytes) as writer:
        writer.add(tokens, LENGTHS)
        return writer.finish()


def shard_seeds(folder: Path) -> list[bytes]:
    for dtype in ("<u2", "<u4"):
        write_set(folder / dtype[1:], dtype)
    return [(folder / dtype / NAME).read_bytes() for dtype in ("u2", "u4")]


def mutate_shard(draw: random.Random, data: bytes) -> bytes:
    """Changes the payload or the footer of a shard, mostly with a trailer that is right for what comes out."""
    if len(data) < TRAILER.size or draw.randrange(4) == 0:
        return mutate_bytes(draw, data)
    length = int(TRAILER.unpack(data[-TRAILER.size :])[0])
    end = len(data) - TRAILER.size
    body, footer = data[: max(0, end - length)], data[max(0, end - length) : end]
    body, footer = (mutate_bytes(draw, body), footer) if draw.randrange(3) == 0 else (body, mutate_json(draw, footer))
    return body + footer + _trailer(draw, body, footer)


def _trailer(draw: random.Random, body: bytes, footer: bytes) -> bytes:
    hashes = 8 * draw.choice((5, 10, 0, 1, 9))
    with contextlib.suppress(ValueError, TypeError, KeyError, OverflowError, RecursionError):
        hashes = 8 * int(json.loads(footer)["chunks"])
    covered = body[max(0, len(body) - hashes) :] + footer
    return TRAILER.pack(len(footer) % (1 << 32), xxhash.xxh3_64_intdigest(covered), MAGIC)


def place_shard(path: Path, data: bytes) -> None:
    """Writes the manifest that makes this shard its own: whoever makes a shard makes that too."""
    trailer = TRAILER.unpack(data[-TRAILER.size :]) if len(data) >= TRAILER.size else (0, 0, MAGIC)
    facts = {"tokens": 130, "documents": 5, "dtype": "<u2", "chunk_bytes": 64}
    try:
        stated = json.loads(data[-TRAILER.size - trailer[0] : -TRAILER.size])
        facts.update({name: stated[name] for name in facts if name in stated})
    except (ValueError, TypeError, RecursionError):
        pass
    manifest = Manifest("train", facts["dtype"], facts["chunk_bytes"], 50000, "5a" * 32, dict(SPECIAL), "a fuzz test")  # type: ignore[arg-type]
    manifest.tokens, manifest.documents = facts["tokens"], facts["documents"]  # type: ignore[assignment]
    manifest.shards = [ShardInfo(NAME, len(data), manifest.tokens, manifest.documents, f"{trailer[1]:016x}")]
    (path.parent / "manifest.json").write_bytes(dump({**vars_of(manifest), "fingerprint": manifest.fingerprint()}))


def vars_of(manifest: Manifest) -> dict[str, object]:
    return {**vars(manifest), "shards": [vars(shard) for shard in manifest.shards]}


def read_shard(path: Path) -> None:
    """Reads it as a run does, and as `kogpt2 verify` does; both look at each part."""
    index = check_index(path)
    for each in index.ranges:
        check_chunks(each)
    read_set(path)


def read_set(path: Path) -> None:
    with ShardSet(path.parent) as shards:
        for chunk in range(min(4, shards.num_chunks)):
            shards.read_chunk(chunk)


# ---- manifests


def set_seeds(folder: Path) -> list[bytes]:
    for name, shard_bytes in (("one", 1 << 20), ("more", 128)):
        write_set(folder / name, shard_bytes=shard_bytes)
    return [(folder / name / "manifest.json").read_bytes() for name in ("one", "more")]


def place_set(path: Path, data: bytes) -> None:
    if not (path.parent / NAME).exists():
        write_set(path.parent)
        path.write_bytes(data)


def mutate_set(draw: random.Random, data: bytes) -> bytes:
    """Changes a manifest, mostly with the fingerprint that is right for what comes out."""
    try:
        plain = json.loads(data)
        plain = mutate_plain(draw, plain)
        if draw.randrange(8):
            rest = {name: value for name, value in plain.items() if name != "fingerprint"}
            manifest = Manifest(**{**rest, "shards": [ShardInfo(**shard) for shard in rest["shards"]]})
            plain["fingerprint"] = manifest.fingerprint()
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return mutate_json(draw, data)
    return dump(plain)


def read_and_verify_set(path: Path) -> None:
    try:
        read_set(path)
    finally:
        verify_set(path.parent)


def corpus_seeds(folder: Path) -> list[bytes]:
    return [(make_corpus(folder) / "corpus.json").read_bytes()]


def make_corpus(folder: Path) -> Path:
    source = folder / "source.txt"
    source.parent.mkdir(parents=True, exist_ok=True)
    source.write_text("첫 번째 글이다.\n두 번째 글이다.\n세 번째 글이다.\n", encoding="utf-8")
    clean([source], folder / "corpus", "line", 0.3)
    return folder / "corpus"


def place_corpus(path: Path, data: bytes) -> None:
    if not (path.parent / "train").exists():
        made = make_corpus(path.parent / "made")
        for each in made.iterdir():
            if each.name != path.name:
                each.rename(path.parent / each.name)


def read_corpus(path: Path) -> None:
    corpus = Corpus.open(path.parent)
    for split in ("train", "test"):
        for _ in corpus.documents(split):
            pass


TARGETS = [
    Target("ktok", NAME, shard_seeds, read_shard, mutate_shard, place_shard, share=20),
    Target("shard-manifest", "manifest.json", set_seeds, read_set, mutate_set, place_set, share=20),
    Target("corpus-json", "corpus.json", corpus_seeds, read_corpus, mutate_json, place_corpus, share=10),
]
