"""From a cleaned corpus to token shards: several processes tokenize, one writes, in the order of the corpus.

The processes get the text as blocks of whole documents, undecoded, and return one array of tokens for each block: the
process that reads and writes has little to do for each document, however short it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Callable, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kogpt2_gluon.corpus.store import Corpus, StoredBlock
from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.machine.process_pool import start_processes
from kogpt2_gluon.shards.format import (
    MANIFEST,
    TOKENIZER,
    Manifest,
    ShardWriter,
    Tokens,
    choose_chunk_bytes,
    token_dtype,
)
from kogpt2_gluon.shards.segments import can_cut, cut_texts
from kogpt2_gluon.storage.files import replace_file
from kogpt2_gluon.storage.lustre import prepare_folder
from kogpt2_gluon.tokens.counts import TokenCounter
from kogpt2_gluon.tokens.tokenizer import Tokenizer

BYTES_PER_TOKEN = 8.0  # more than tokens have, so that chunks are small enough for every lane to get enough of them


class Task(NamedTuple):
    """The result of one block: the tokens of its documents, the number of each, and counts over all of them."""

    tokens: Tokens
    lengths: NDArray[np.int64]
    text_bytes: int
    words: int
    unknown: int


# In a worker process, set when it starts.
_tokenizer: Tokenizer | None = None
_counter: TokenCounter | None = None
_cuts = False  # whether long documents are encoded in segments


def shard_corpus(
    corpus_dir: Path,
    tokenizer_path: Path,
    out: Path,
    split: str,
    processes: int = 1,
    chunk_bytes: int = 0,
    progress: Callable[[int, int], None] | None = None,
    say: Callable[[str], None] = lambda line: None,
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
        Called with (text bytes done, all text bytes).
    say : callable
        Called, on Lustre, with the layout of the new files.
    """
    corpus = Corpus.open(corpus_dir)
    tokenizer = Tokenizer.load(tokenizer_path)
    if chunk_bytes < 0 or chunk_bytes & (chunk_bytes - 1):
        raise RecipeError(f"chunks of {chunk_bytes} bytes: give a power of two, preferably from 64 KiB to 4 MiB")
    if not corpus.count(split):
        raise DataError(f"{corpus_dir}: its {split} split holds no documents")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise RecipeError(f"{out}: not an empty folder; choose another --out or remove it")
    out.mkdir(parents=True, exist_ok=True)
    if layout := prepare_folder(out):
        say(layout)
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
        for task in _tokenized(corpus, split, out / TOKENIZER, processes):
            writer.add(task.tokens, task.lengths)
            manifest.text_bytes += task.text_bytes
            manifest.words += task.words
            manifest.unknown += task.unknown
            if progress:
                progress(min(manifest.text_bytes, size), size)
        writer.finish()
    assert (out / MANIFEST).is_file()
    return manifest


def _tokenized(corpus: Corpus, split: str, tokenizer_path: Path, processes: int) -> Iterator[Task]:
    """Yields every block of a split, tokenized, in order; few are in progress, so that little is read ahead."""
    cuts = can_cut(tokenizer_path.read_bytes())
    with start_processes(processes, "tokenizing", _start_process, (str(tokenizer_path), cuts)) as run:
        yield from run(_tokenize, corpus.blocks(split))


def _start_process(tokenizer_path: str, cuts: bool) -> None:
    global _tokenizer, _counter, _cuts
    _cuts = cuts
    _tokenizer = Tokenizer.load(Path(tokenizer_path))
    _counter = TokenCounter(_tokenizer)


def _tokenize(block: StoredBlock) -> Task:
    assert _tokenizer is not None and _counter is not None
    documents = block.documents()
    texts, counts = cut_texts(documents) if _cuts else (documents, np.ones(len(documents), np.int64))
    ids, lengths = _tokenizer.encode_flat(texts)
    text_bytes, words = _counter.count(ids, lengths, texts)
    if len(texts) > len(documents):
        lengths = np.add.reduceat(
            lengths, np.cumsum(counts) - counts
        )  # from lengths of segments to lengths of documents
    spaces = len(texts) - len(documents)  # removed by the cuts
    ends = np.cumsum(lengths + 2)
    tokens = np.empty(len(ids) + 2 * len(documents), token_dtype(_tokenizer.vocab_size))
    inside = np.ones(len(tokens), bool)
    inside[ends - 1] = inside[ends - lengths - 2] = False
    tokens[ends - lengths - 2] = _tokenizer.bos_id
    tokens[ends - 1] = _tokenizer.eos_id
    tokens[inside] = ids
    unknown = int(np.count_nonzero(ids == _tokenizer.unk_id))
    return Task(tokens, lengths + 2, int(text_bytes.sum()) + spaces, int(words.sum()), unknown)
