"""The sets that `reader.py` reads: random tokens as shards and as a raw file, and a huge set that takes no disk."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
import xxhash

from kogpt2_gluon.recipe import parse_recipe
from kogpt2_gluon.shards.format import MAGIC, TOKENIZER, TRAILER, Manifest, ShardInfo, ShardWriter
from kogpt2_gluon.tokens.tokenizer import Tokenizer

CHUNK_BYTES = 4 << 20
SPECIAL = {"unk": 0, "bos": 1, "eos": 2, "pad": 3}


def empty_manifest(tokenizer: Tokenizer) -> Manifest:
    return Manifest("train", "<u2", CHUNK_BYTES, tokenizer.vocab_size, tokenizer.sha256, SPECIAL, "random tokens")


def make_tokenizer(work: Path) -> Tokenizer:
    """Returns any tokenizer: shards name the one they were made with."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["가 나 다 라 마 바 사"] * 10),
        model_writer=model,
        model_type="bpe",
        vocab_size=18,
        **{"unk_id": 0, "bos_id": 1, "eos_id": 2, "pad_id": 3, "pad_piece": "<pad>", "minloglevel": 2},
    )
    path = work / TOKENIZER
    path.write_bytes(model.getvalue())
    return Tokenizer.load(path)


def write_random(work: Path, tokenizer: Tokenizer, count: int) -> tuple[Path, Path]:
    """Writes random tokens twice: as a raw file for the peers and as shards for us."""
    raw, folder = work / "tokens.bin", work / "shards"
    folder.mkdir()
    shutil.copy(tokenizer.path, folder / TOKENIZER)
    generator = np.random.default_rng(0)
    with raw.open("wb") as file, ShardWriter(folder, empty_manifest(tokenizer)) as writer:
        for start in range(0, count, 1 << 20):
            tokens = generator.integers(4, 18, min(1 << 20, count - start), dtype=np.uint16)
            tokens[0], tokens[-1] = SPECIAL["bos"], SPECIAL["eos"]
            file.write(tokens.tobytes())
            writer.add(tokens, [len(tokens)])
        writer.finish()
    return raw, folder


def write_sparse(work: Path, tokenizer: Tokenizer, count: int) -> Path:
    """Writes a whole set whose tokens are holes in files: it takes hardly any disk and reads as zeros."""
    folder = work / "sparse"
    folder.mkdir()
    shutil.copy(tokenizer.path, folder / TOKENIZER)
    manifest = empty_manifest(tokenizer)
    zeros = xxhash.xxh3_64_intdigest(bytes(CHUNK_BYTES))
    per_shard = 256 * (CHUNK_BYTES // 2)  # 1 GiB
    for number, start in enumerate(range(0, count, per_shard)):
        tokens = min(per_shard, count - start) // (CHUNK_BYTES // 2) * (CHUNK_BYTES // 2)
        if not tokens:
            break
        chunks = tokens * 2 // CHUNK_BYTES
        hashes, footer = np.full(chunks, zeros, "<u8").tobytes(), sparse_footer(manifest, tokens, chunks)
        digest = xxhash.xxh3_64(hashes + footer)
        path = folder / f"train-{number:05d}.ktok"
        with path.open("wb") as file:
            file.seek(tokens * 2)
            file.write(hashes + footer + TRAILER.pack(len(footer), digest.intdigest(), MAGIC))
        manifest.shards.append(ShardInfo(path.name, path.stat().st_size, tokens, 0, digest.hexdigest()))
        manifest.tokens += tokens
    manifest.save(folder)
    return folder


def sparse_footer(manifest: Manifest, tokens: int, chunks: int) -> bytes:
    """Returns the footer of a shard without a document's end."""
    footer = {
        "format_version": manifest.format_version,
        "dtype": manifest.dtype,
        "chunk_bytes": manifest.chunk_bytes,
        "tokens": tokens,
        "documents": 0,
        "document_ends_hash": xxhash.xxh3_64_hexdigest(b""),
        "chunks": chunks,
        "vocab_size": manifest.vocab_size,
        "tokenizer_sha256": manifest.tokenizer_sha256,
        "special_ids": manifest.special_ids,
    }
    return json.dumps(footer, sort_keys=True).encode()


def recipe_for(folder: Path, batch_size: int, seq_length: int, total_batch_size: int) -> Any:
    plain = {
        "model": {"vocab_size": 18, "max_length": seq_length},
        "data": {"train": str(folder), "seq_length": seq_length},
        "training": {"batch_size": batch_size, "total_batch_size": total_batch_size},
    }
    return parse_recipe(plain)
