"""From a cleaned corpus to token shards: several processes tokenize, one writes, the order stays the corpus's."""

from __future__ import annotations

import multiprocessing
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Callable, Optional

import numpy as np

from kogpt2_gluon.data.corpus import Corpus
from kogpt2_gluon.data.shards import (
    MANIFEST,
    TOKENIZER,
    Manifest,
    ShardWriter,
    Tokens,
    choose_chunk_bytes,
    token_dtype,
)
from kogpt2_gluon.data.tokenizer import Tokenizer
from kogpt2_gluon.errors import DataError, RecipeError

TASK_BYTES = 1 << 20  # text handed to a process at a time
BYTES_PER_TOKEN = 4.0  # a first guess for Korean text, to choose the size of chunks

# What one task brings back: tokens of its documents, the documents' lengths, text bytes, words, unknown tokens.
Task = tuple[Tokens, list[int], int, int, int]

_tokenizer: Optional[Tokenizer] = None  # of a worker process, set when it starts


def shard_corpus(
    corpus_dir: Path,
    tokenizer_path: Path,
    out: Path,
    split: str,
    processes: int = 1,
    chunk_bytes: int = 0,
    progress: Optional[Callable[[int, int], None]] = None,
) -> Manifest:
    """Tokenizes one split of a corpus into `out`; every document becomes ``<s> text </s>``.

    Parameters
    ----------
    corpus_dir, tokenizer_path, out : Path
        A folder of `kogpt2 clean`, a SentencePiece model, and a folder that is made (RecipeError if it has files).
    split : str
        ``train`` or ``test``.
    processes : int
        Tokenizing processes; the shards are the same for any number.
    chunk_bytes : int
        A power of two, or 0 to choose it from the size of the text.
    progress : callable
        Told (text bytes done, in all).
    """
    corpus = Corpus.open(corpus_dir)
    tokenizer = Tokenizer.load(tokenizer_path)
    if out.exists() and any(out.iterdir()):
        raise RecipeError(f"{out}: not empty; choose another --out or remove it")
    out.mkdir(parents=True, exist_ok=True)
    size = corpus.size(split)
    guess = int(size / BYTES_PER_TOKEN * np.dtype(token_dtype(tokenizer.vocab_size)).itemsize)
    manifest = Manifest(
        split=split,
        dtype=token_dtype(tokenizer.vocab_size),
        chunk_bytes=chunk_bytes or choose_chunk_bytes(guess),
        vocab_size=tokenizer.vocab_size,
        tokenizer_sha256=tokenizer.sha256,
        special_ids={
            "unk": tokenizer.unk_id,
            "bos": tokenizer.bos_id,
            "eos": tokenizer.eos_id,
            "pad": tokenizer.pad_id,
        },
        source=str(corpus_dir),
    )
    shutil.copyfile(tokenizer_path, out / TOKENIZER)
    writer = ShardWriter(out, manifest)
    # spawn: a fork would copy whatever threads and locks the caller holds
    with multiprocessing.get_context("spawn").Pool(processes, _start_process, (str(tokenizer_path),)) as pool:
        tasks = _bounded(_batches(corpus.documents(split)), pool, limit=4 * processes)
        for tokens, lengths, text_bytes, words, unknown in tasks:
            writer.add(tokens, lengths)
            manifest.text_bytes += text_bytes
            manifest.words += words
            manifest.unknown += unknown
            if progress:
                progress(min(manifest.text_bytes, size), size)
    if not manifest.documents:
        raise DataError(f"{corpus_dir}: its {split} split holds no documents")
    writer.finish()
    assert (out / MANIFEST).is_file()
    return manifest


def _batches(documents: Iterator[str]) -> Iterator[list[str]]:
    """Documents in lists of about TASK_BYTES characters."""
    batch: list[str] = []
    size = 0
    for document in documents:
        batch.append(document)
        size += len(document)
        if size >= TASK_BYTES // 3:  # a Hangul syllable takes three bytes
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _bounded(batches: Iterator[list[str]], pool: multiprocessing.pool.Pool, limit: int) -> Iterator[Task]:
    """Results in order, with at most `limit` tasks under way: Pool.imap would read the whole corpus ahead."""
    pending = []
    for batch in batches:
        pending.append(pool.apply_async(_tokenize, (batch,)))
        if len(pending) >= limit:
            yield pending.pop(0).get()
    for result in pending:
        yield result.get()


def _start_process(tokenizer_path: str) -> None:
    global _tokenizer
    _tokenizer = Tokenizer.load(Path(tokenizer_path))


def _tokenize(documents: list[str]) -> Task:
    assert _tokenizer is not None
    bos, eos = [_tokenizer.bos_id], [_tokenizer.eos_id]
    encoded = [bos + ids + eos for ids in _tokenizer.encode_batch(documents)]
    normalized = [_tokenizer.normalize(document) for document in documents]
    tokens = np.concatenate([np.array(ids, dtype=token_dtype(_tokenizer.vocab_size)) for ids in encoded])
    return (
        tokens,
        [len(ids) for ids in encoded],
        sum(len(text.encode()) for text in normalized),
        sum(len(text.split()) for text in normalized),
        int((tokens == _tokenizer.unk_id).sum()),
    )
