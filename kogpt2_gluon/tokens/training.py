"""Trains the tokenizer: SentencePiece BPE like KoGPT-2's, on all of the cleaned corpora or on a sample of them.

Its ids are ``<unk>`` 0, ``<s>`` 1, ``</s>`` 2, ``<pad>`` 3, ``<unused0>`` 4, and so on, then the line end if it is
kept, 256 bytes with the ``lossless`` profile, and the pieces that were learnt.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Callable

import numpy as np
import sentencepiece
import xxhash

from kogpt2_gluon.corpus.store import open_train_splits
from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.machine.interrupts import interruptible
from kogpt2_gluon.storage.disk import disk_full, free_bytes, full_disk_named
from kogpt2_gluon.storage.files import write_file
from kogpt2_gluon.tokens.profiles import PROFILES, name_profile, trainer_options
from kogpt2_gluon.tokens.tokenizer import NEWLINE, Tokenizer
from kogpt2_gluon.wording import gib, gigabytes

# SentencePiece skips longer sentences, and counts positions in a word with 16 bits. NFKC makes at most 18 characters
# from the 3 bytes of one (U+FDFA), so a piece without a space, cut at this length, still fits: 8192 / 3 * 18 < 65,536.
MAX_SENTENCE_BYTES = 8192
RESERVED = "\u2585"  # SentencePiece's internal sign for the unknown: it skips every sentence with this character
# The model records the trainer's thread count, though no piece depends on it. A fixed one gives the same file anywhere.
TRAINER_THREADS = 16
SAMPLE_MB = 2000  # the default amount of text to learn from
MEMORY_FACTOR = 4.5  # bytes that SentencePiece needs for each byte of text (measured)
MODEL_BYTES, PIECE_BYTES = 300_000, 20  # a model takes the table of its profile, and so much a piece (measured)
SAMPLE_SEED = 0x6B6F6770  # seed of the hash that draws the sample; another seed would draw another sample
BUCKET_BITS = 16  # the sample is drawn in steps of 1 / 65,536 of the text


def train_tokenizer(
    corpora: Path | Sequence[Path],
    out: Path,
    vocab_size: int,
    unused: int = 100,
    character_coverage: float = 0.9995,
    profile: str = "nmt_nfkc",
    keep_newlines: bool = False,
    sample_mb: float = SAMPLE_MB,
    verbose: bool = False,
    say: Callable[[str], None] | None = None,
) -> Tokenizer:
    """Trains a SentencePiece BPE model on the train splits of cleaned corpora and writes it to `out`.

    Parameters
    ----------
    corpora : Path, or sequence of Path
        Folders of `kogpt2 clean`.
    out : Path
        The `.model` file, written whole or not at all.
    vocab_size : int
        The number of all pieces: the four special ones, the unused ones, a line end, 256 bytes with ``lossless``, and
        the learnt ones.
    unused : int
        Pieces ``<unusedN>`` for later use: :mod:`kogpt2_gluon.tokens.renaming` gives them a name.
    character_coverage : float
        The share of the text that its most frequent characters must cover; the other characters become ``<unk>``
        (bytes with ``lossless``).
    profile : str
        One of `kogpt2_gluon.tokens.profiles.PROFILES`.
    keep_newlines : bool
        True: a line end is a piece of its own, so that a document's lines come back as lines. Without it ``nmt_nfkc``
        turns a line end into a space, as KoGPT-2's tokenizer does. The first word of a later line has no space before
        it, and its pieces are those of a word without a space.
    sample_mb : float
        Megabytes (10^6 bytes) to learn from. From a larger text, at most so much is drawn by a hash of each sentence:
        the same sentences on any machine and in any order of the corpora. SentencePiece needs 4.5 bytes for each byte.
    verbose : bool
        True: SentencePiece's own log goes to standard error.
    say : callable
        Called with one line about how much of the text is used.

    Raises
    ------
    RecipeError
        An argument cannot work; the message names a value that would, if there is one.
    DataError
        A corpus is bad.
    DiskFullError
        There is no room for the model.
    """
    if profile not in PROFILES:
        raise RecipeError(f"--profile {profile}: is none of {', '.join(PROFILES)}")
    if not 0.98 <= character_coverage <= 1:
        raise RecipeError(f"--character-coverage {character_coverage:g}: must be from 0.98 to 1")
    check_sizes(vocab_size, unused, sample_mb)
    check_room(out, vocab_size)
    folders = [corpora] if isinstance(corpora, Path) else list(corpora)
    names = ", ".join(map(str, folders))
    sentences = Sentences(folders, int(sample_mb * 1e6))
    if say:
        say(sentences.summary())
    symbols = unused_names(unused) + [NEWLINE] * keep_newlines
    model = io.BytesIO()
    try:
        with trainer_options(profile) as options:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(sentences),
                model_writer=model,
                model_type="bpe",
                vocab_size=vocab_size,
                character_coverage=character_coverage,
                unk_id=0,
                bos_id=1,
                eos_id=2,
                pad_id=3,
                unk_piece="<unk>",
                bos_piece="<s>",
                eos_piece="</s>",
                pad_piece="<pad>",
                user_defined_symbols=symbols,
                max_sentence_length=MAX_SENTENCE_BYTES,
                input_sentence_size=0,  # all of them
                num_threads=TRAINER_THREADS,
                minloglevel=0 if verbose else 2,
                **options,
            )
    except RuntimeError as error:
        if sentences.error is not None:
            raise sentences.error from None
        raise _explain(error, names, vocab_size) from None
    content = name_profile(model.getvalue(), profile)
    # Not before: SentencePiece hears no signal of Python's, and SIGTERM would have to wait for its end.
    with interruptible():
        return write_tokenizer(out, content)


def write_tokenizer(out: Path, content: bytes) -> Tokenizer:
    """Writes a tokenizer's file, whole or not at all, and reads it. Raises DiskFullError."""
    with full_disk_named(out.parent, lambda: _need(out, len(content))):
        write_file(out, content)
    return Tokenizer.load(out)


def check_room(out: Path, vocab_size: int, piece_bytes: int = PIECE_BYTES) -> None:
    """Raises DiskFullError if there is no room for a model, before hours are spent on it."""
    if free_bytes(out) < (need := MODEL_BYTES + piece_bytes * vocab_size):
        raise disk_full(out, _need(out, need))


def _need(out: Path, size: int) -> str:
    return f"the tokenizer needs {gigabytes(size)}; make room, or choose another --out"


def check_sizes(vocab_size: int, unused: int, sample_mb: float) -> None:
    """Raises RecipeError if a size of a tokenizer cannot be."""
    if vocab_size < 1:
        raise RecipeError(f"--vocab-size {vocab_size}: must be above 0")
    if unused < 0:
        raise RecipeError(f"--unused {unused}: must not be below 0")
    if not 0 < sample_mb < 1e9:
        raise RecipeError(f"--sample-mb {sample_mb:g}: must be above 0 (megabytes of text)")


def unused_names(count: int) -> list[str]:
    """Returns the names of the pieces for later use."""
    return [f"<unused{number}>" for number in range(count)]


def too_many(vocab_size: int, corpora: str, most: int) -> RecipeError:
    """Returns the error for a vocabulary larger than the `most` pieces that a text yields."""
    return RecipeError(
        f"--vocab-size {vocab_size}: too high for {corpora}, whose text yields {most} pieces; give at most that"
    )


def _explain(error: RuntimeError, corpora: str, vocab_size: int) -> Exception:
    """Turns SentencePiece's complaint into one line that says what to do."""
    message = " ".join(str(error).split())
    too_small = re.search(r"smaller than required_chars\. \d+ vs (\d+)", message)
    if too_small:
        return RecipeError(
            f"--vocab-size {vocab_size}: too small for {corpora}, whose characters and special pieces alone need "
            f"{too_small[1]}; give at least that, or a lower --character-coverage"
        )
    too_high = re.search(r"set it to a value <= (\d+)", message)
    if too_high:
        return too_many(vocab_size, corpora, int(too_high[1]))
    return DataError(f"{corpora}: SentencePiece cannot train on it: {message}")


class Sentences:
    """The sentences of the train splits for SentencePiece: all of them, or those that a hash draws.

    Iterating keeps our own error in `error`, because SentencePiece turns it into a RuntimeError. To draw a sample, the
    text is read once more before: that adds up the bytes under each value of the hash's upper 16 bits. The sample is
    everything below the value at which `limit` bytes are reached, so it is never larger.
    """

    def __init__(self, folders: Sequence[Path], limit: int) -> None:
        self._corpora = open_train_splits(folders)
        self.error: DataError | None = None
        self.total = self.used = sum(corpus.size("train") for corpus in self._corpora)
        self._below = 1 << BUCKET_BITS  # values of the hash that are drawn
        if self.total > limit:
            self._choose(limit)

    def _choose(self, limit: int) -> None:
        buckets = np.zeros(1 << BUCKET_BITS, np.int64)
        for sentence in self._all():
            data = sentence.encode()
            buckets[_bucket(data)] += len(data) + 1
        full = np.cumsum(buckets)
        self._below = int(np.searchsorted(full, limit, side="right"))
        self.total, self.used = int(full[-1]), int(full[self._below - 1]) if self._below else 0
        if not self.used:
            raise RecipeError(
                f"--sample-mb {limit / 1e6:g}: draws no sentence of "
                f"{', '.join(str(each.folder) for each in self._corpora)}; give a larger number"
            )

    def summary(self) -> str:
        """Says in one line how much of the text is used, and what memory SentencePiece needs for it."""
        need = gib(MEMORY_FACTOR * self.used + 3e8)
        return f"learning from {self.amount()}; SentencePiece needs about {need} of memory"

    def amount(self) -> str:
        """Says how much of the text is used."""
        if self.used == self.total:
            return f"all {gigabytes(self.total)} of text"
        return f"a sample of {gigabytes(self.used)} of the {gigabytes(self.total)} of text"

    def _all(self) -> Iterator[str]:
        for corpus in self._corpora:
            for line in corpus.lines("train"):
                yield from cut_sentence(line)

    def __iter__(self) -> Iterator[str]:
        try:
            for sentence in self._all():
                if self._below == 1 << BUCKET_BITS or _bucket(sentence.encode()) < self._below:
                    yield sentence
        except DataError as error:
            self.error = error
            raise


def _bucket(sentence: bytes) -> int:
    """Returns a sentence's place between 0 and 65,535, which depends only on its own bytes."""
    return xxhash.xxh3_64_intdigest(sentence, SAMPLE_SEED) >> (64 - BUCKET_BITS)


def cut_sentence(line: str, limit: int = MAX_SENTENCE_BYTES) -> Iterator[str]:
    """Cuts a line into sentences that SentencePiece does not skip: at most `limit` bytes of UTF-8, no reserved sign.

    A cut replaces a space. BPE is learnt from words, so nothing is lost or changed by that. Only a word that is itself
    too long is cut between two characters.
    """
    if len(line) * 4 <= limit and RESERVED not in line:
        yield line
        return
    for part in line.split(RESERVED):
        data = part.encode()
        start = 0
        while len(data) - start > limit:
            end = data.rfind(b" ", start + 1, start + limit + 1)
            if end > 0:
                yield data[start:end].decode()
                start = end + 1
                continue
            end = start + limit
            while data[end] & 0xC0 == 0x80:  # inside a character
                end -= 1
            yield data[start:end].decode()
            start = end
        if start < len(data):
            yield data[start:].decode()
