"""From a cleaned corpus to token shards: several processes tokenize, one writes, the order stays the corpus's."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Callable, Optional

import numpy as np

from kogpt2_gluon.data.corpus import Corpus
from kogpt2_gluon.data.files import replace_file
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
from kogpt2_gluon.errors import DataError, KoGPT2Error, RecipeError

TASK_BYTES = 1 << 20  # text handed to a process at a time
BYTES_PER_TOKEN = 8.0  # more than tokens have, so that chunks are small enough for every lane to get its share

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
        A power of two, or 0 to choose one from 64 KiB to 4 MiB by the size of the text.
    progress : callable
        Told (text bytes done, in all).
    """
    corpus = Corpus.open(corpus_dir)
    tokenizer = Tokenizer.load(tokenizer_path)
    if chunk_bytes < 0 or chunk_bytes & (chunk_bytes - 1):
        raise RecipeError(f"chunks of {chunk_bytes} bytes: give a power of two, best one from 64 KiB to 4 MiB")
    if not corpus.count(split):
        raise DataError(f"{corpus_dir}: its {split} split holds no documents")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise RecipeError(f"{out}: not an empty folder; choose another --out or remove it")
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
    with replace_file(out / TOKENIZER) as file:
        file.write(tokenizer_path.read_bytes())
    with ShardWriter(out, manifest) as writer:
        for tokens, lengths, text_bytes, words, unknown in _tokenized(corpus, split, out / TOKENIZER, processes):
            writer.add(tokens, lengths)
            manifest.text_bytes += text_bytes
            manifest.words += words
            manifest.unknown += unknown
            if progress:
                progress(min(manifest.text_bytes, size), size)
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


def _tokenized(corpus: Corpus, split: str, tokenizer_path: Path, processes: int) -> Iterator[Task]:
    """Every batch of a split, tokenized, in the corpus's order; few are under way, so that little is read ahead."""
    # spawn: a fork would copy whatever threads and locks the caller holds
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, spawn, _start_process, (str(tokenizer_path),)) as pool:
        pending: deque[Future[Task]] = deque()
        try:
            for batch in _batches(corpus.documents(split)):
                pending.append(pool.submit(_tokenize, batch))
                if len(pending) >= 4 * processes:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        except BrokenProcessPool:
            raise KoGPT2Error("a tokenizing process died, as when memory runs out; try fewer --processes") from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


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
