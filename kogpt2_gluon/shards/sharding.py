"""From a cleaned corpus to token shards: several processes tokenize, one writes, in the order of the corpus.

The processes get the text as blocks of whole documents, undecoded, and return one array of tokens for each block: the
process that reads and writes has little to do for each document, however short it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Callable, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kogpt2_gluon import __version__
from kogpt2_gluon.corpus.store import Corpus, StoredBlock
from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.machine.process_pool import start_processes
from kogpt2_gluon.shards.format import (
    MANIFEST,
    Manifest,
    ShardWriter,
    Tokens,
    choose_chunk_bytes,
    token_dtype,
)
from kogpt2_gluon.shards.segments import can_cut, cut_texts
from kogpt2_gluon.shards.unfinished import SET_FOLDER, STAGE, State, is_finished, make_plan
from kogpt2_gluon.storage.disk import full_disk_named
from kogpt2_gluon.storage.files import commit_folder, replace_file
from kogpt2_gluon.storage.lustre import SHARD_BYTES, prepare_folder
from kogpt2_gluon.storage.work_folder import open_work, work_folder
from kogpt2_gluon.tokens.counts import Counter, counter_for
from kogpt2_gluon.tokens.tokenizer import Tokenizer, border_tokens
from kogpt2_gluon.wording import counted, gigabytes, silent

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
_counter: Counter | None = None
_cuts = False  # whether long documents are encoded in segments


def shard_corpus(
    corpus_dir: Path,
    tokenizer_path: Path,
    out: Path,
    split: str,
    processes: int = 1,
    chunk_bytes: int = 0,
    progress: Callable[[int, int], None] | None = None,
    say: Callable[[str], None] = silent,
    restart: bool = False,
) -> Manifest:
    """Tokenizes one split of a corpus into `out`, which appears whole; every document becomes ``<s> text </s>``
    (:mod:`kogpt2_gluon.tokens.tokenizer`).

    An interrupted sharding leaves `out` + ``.work`` with its finished shards, and the same call resumes after them. A
    set of the same corpus and tokenizer that is in `out` already stays as it is.

    Parameters
    ----------
    corpus_dir, tokenizer_path, out : Path
        A folder of `kogpt2 clean`, a tokenizer of either kind, and a folder that is made; RecipeError if it has other
        files.
    split : str
        ``train`` or ``test``.
    processes : int
        Tokenizing processes; the shards are the same for any number.
    chunk_bytes : int
        A power of two, or 0 to choose one from 64 KiB to 4 MiB by the size of the text.
    progress : callable
        Called with (text bytes done, all text bytes).
    say : callable
        Called with a line about what is kept, and on Lustre with the layout of the new files.
    restart : bool
        Start again even if finished shards were left.

    Raises RecipeError for a bad argument, or if corpus or tokenizer differ from those of the interrupted sharding;
    DataError for a bad corpus or tokenizer; DiskFullError.
    """
    corpus = Corpus.open(corpus_dir)
    tokenizer = Tokenizer.load(tokenizer_path)
    if chunk_bytes < 0 or chunk_bytes & (chunk_bytes - 1):
        raise RecipeError(f"chunks of {chunk_bytes} bytes: give a power of two, preferably from 64 KiB to 4 MiB")
    if not corpus.count(split):
        raise DataError(f"{corpus_dir}: its {split} split holds no documents")
    manifest = _new_manifest(corpus, tokenizer, split, chunk_bytes)
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        if found := is_finished(out, corpus, manifest):
            say(f"{out}: finished before, and kept")
            return found
        raise RecipeError(f"{out}: not an empty folder; choose another --out or remove it")
    full_disk = partial(_full_disk_named, out, corpus, manifest)  # twice, as the folder may be gone after its block
    plan = make_plan(corpus, manifest, __version__)
    with full_disk(), open_work(work_folder(out), STAGE, plan, restart) as work, full_disk():
        _write_set(work, corpus, tokenizer, manifest, processes, progress, say)
        commit_folder(work / SET_FOLDER, out.resolve())
    return manifest


def _new_manifest(corpus: Corpus, tokenizer: Tokenizer, split: str, chunk_bytes: int) -> Manifest:
    """Returns the manifest of a set before anything is written."""
    guess = int(corpus.size(split) / BYTES_PER_TOKEN * np.dtype(token_dtype(tokenizer.vocab_size)).itemsize)
    return Manifest(
        split=split,
        dtype=token_dtype(tokenizer.vocab_size),
        chunk_bytes=chunk_bytes or choose_chunk_bytes(guess),
        vocab_size=tokenizer.vocab_size,
        tokenizer_sha256=tokenizer.sha256,
        special_ids=tokenizer.special_ids,
        source=str(corpus.folder),
    )


def _write_set(
    work: Path,
    corpus: Corpus,
    tokenizer: Tokenizer,
    manifest: Manifest,
    processes: int,
    progress: Callable[[int, int], None] | None,
    say: Callable[[str], None],
) -> None:
    """Writes the shards that are still missing, then the manifest, into the folder ``set`` of the work folder."""
    folder, state = work / SET_FOLDER, State(work)
    folder.mkdir(exist_ok=True)
    if layout := prepare_folder(folder):
        say(layout)
    if state.shards:
        say(f"resuming after {counted(len(state.shards), 'finished shard')} ({state.start.documents:,} documents)")
    state.restore(manifest)
    stored = folder / tokenizer.stored.file_name
    with replace_file(stored) as file:
        file.write(tokenizer.stored.content)
    size = corpus.size(manifest.split)
    with ShardWriter(folder, manifest, SHARD_BYTES, state.skip) as writer:
        first = state.start.block
        for number, task in enumerate(_tokenized(corpus, manifest.split, first, stored, processes), first + 1):
            writer.add(task.tokens, task.lengths)
            manifest.text_bytes += task.text_bytes
            manifest.words += task.words
            manifest.unknown += task.unknown
            state.note(number, manifest)
            if progress:
                progress(min(manifest.text_bytes, size), size)
        writer.finish()
    assert (folder / MANIFEST).is_file()


def _full_disk_named(out: Path, corpus: Corpus, manifest: Manifest) -> AbstractContextManager[None]:
    """Turns a full disk into an error that says what the set needs, and what is kept."""

    def describe() -> str:
        size = corpus.size(manifest.split)
        a_token = max(manifest.text_bytes, 1) / max(manifest.tokens, 1) if manifest.text_bytes else BYTES_PER_TOKEN / 2
        need = size / a_token * np.dtype(manifest.dtype).itemsize
        work = work_folder(out)
        kept = len(State(work).shards) if work.is_dir() else 0
        after = f"the same command resumes after {counted(kept, 'finished shard')}" if kept else "run it again"
        return f"the {manifest.split} shards of {corpus.folder} need about {gigabytes(need)}; make room, then {after}"

    return full_disk_named(work_folder(out), describe)


def _tokenized(corpus: Corpus, split: str, first: int, tokenizer_path: Path, processes: int) -> Iterator[Task]:
    """Yields the blocks of a split from `first` on, tokenized, in order; little is read ahead."""
    cuts = can_cut(tokenizer_path.read_bytes(), tokenizer_path)
    with start_processes(processes, "tokenizing", _start_process, (str(tokenizer_path), cuts)) as run:
        yield from run(_tokenize, islice(corpus.blocks(split), first, None))


def _start_process(tokenizer_path: str, cuts: bool) -> None:
    global _tokenizer, _counter, _cuts
    _cuts = cuts
    _tokenizer = Tokenizer.load(Path(tokenizer_path))
    _counter = counter_for(_tokenizer)


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
    dtype = token_dtype(_tokenizer.vocab_size)
    tokens = _tokenizer.frame(ids, lengths, dtype)
    unknown = int(np.count_nonzero(_tokenizer.is_unknown(ids)))
    border = border_tokens(_tokenizer.bos_id, _tokenizer.eos_id)
    return Task(tokens, lengths + border, int(text_bytes.sum()) + spaces, int(words.sum()), unknown)
