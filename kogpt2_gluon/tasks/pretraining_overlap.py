"""Rows of a test set that are in the shards of pretraining, found by their n-grams of tokens.

The rows are tokenized with the tokenizer of the shards. A text of `ngram` tokens or more is looked for by all its
n-grams; the share of them that the shards have is what a row is judged by. GPT-3 took a row out for one n-gram of 8 to
13 words (Brown et al., 2020, appendix C), which is the rule here if no threshold is given, with 13 tokens, some 7 words
of Korean. PaLM asked for 70% of the 8-grams (Chowdhery et al., 2022, section 8), Llama 2 for 80% of the tokens in
n-grams of more than 10 tokens (Touvron et al., 2023, appendix A.6); shares are kept, so that any such rule can be
applied afterwards.

A shorter text has no such n-gram, and half of a set of reviews can be so short. It is looked for as a whole: as a
document, or as a sentence, between ends of sentences or lines. Phrases of very few tokens, such as "the best film",
are in every corpus and say nothing: texts of fewer than `shortest` tokens are not judged. (marin-community/marin, issue
6852: looking for all short paragraphs as a whole gave 18% of false finds, from stubs such as "A."; looking for none of
them let a text escape that was broken into lines.)

N-grams are compared by hashes of 64 bits, which are the same at every run: for a million n-grams of rows and ten
billion tokens the chance that one is found that is not there is below one in a thousand. The shards are read chunk by
chunk. Memory is needed for the rows, one chunk and 200 MB, whatever the size of the shards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.shards.folders import MANIFEST, set_folders
from kogpt2_gluon.shards.format import Manifest, Tokens
from kogpt2_gluon.shards.shard_set import ShardSet
from kogpt2_gluon.storage.tokenizer_file import tokenizer_in
from kogpt2_gluon.tasks.leakage import EXAMPLES, normalize
from kogpt2_gluon.tasks.loading import is_there
from kogpt2_gluon.tasks.task import Row
from kogpt2_gluon.tokens.tokenizer import NEWLINE, Tokenizer
from kogpt2_gluon.wording import Say, counted, silent

NGRAM = 13  # tokens
SHORTEST = 6  # tokens
LONGEST_NGRAM = 64
BLOCK = 1 << 17  # tokens that are hashed at once: their hashes stay in the processor's cache
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_SENTENCE_ENDS = tuple(sign.encode() for sign in ".?!…。？！")

Hashes = NDArray[np.uint64]


@dataclass(frozen=True)
class PretrainingOverlap:
    """How much of each row the shards have.

    Attributes
    ----------
    shares : (rows,) float64
        The share of a row's n-grams that are in the shards, a short text counting as one; NaN for a row that is too
        short to be judged.
    is_short : (rows,) bool
        True for a row that has no text of `ngram` tokens.
    places : tuple of str
        Where the rows are.
    ngram, shortest : int
        Tokens.
    threshold : float
        The share from which on a row counts as seen; with 0, one n-gram is enough.
    tokens : int
        That were read.
    """

    shares: NDArray[np.float64]
    is_short: NDArray[np.bool_]
    places: tuple[str, ...]
    ngram: int
    shortest: int
    threshold: float
    tokens: int

    @property
    def seen(self) -> NDArray[np.bool_]:
        """Which rows count as seen in pretraining, (rows,)."""
        seen: NDArray[np.bool_] = (self.shares > 0) & (self.shares >= self.threshold)
        return seen

    @property
    def clean(self) -> tuple[int, ...]:
        """The numbers of the rows that do not count as seen; rows that are too short to be judged are among them."""
        return tuple(np.flatnonzero(~self.seen).tolist())

    def lines(self) -> list[str]:
        """Returns what was found, for people."""
        count, long, short = len(self.shares), self.seen & ~self.is_short, self.seen & self.is_short
        rule = f"{self.threshold:.0%} of their {self.ngram}-grams" if self.threshold else f"a {self.ngram}-gram"
        lines = [
            f"{int(long.sum()):,} of {count:,} rows have {rule} in {self.tokens:,} tokens of pretraining"
            f"{self._examples(long)}",
            f"{int(short.sum()):,} rows of {self.shortest} to {self.ngram - 1} tokens are there as a whole document or "
            f"sentence{self._examples(short)}",
        ]
        if unjudged := int(np.isnan(self.shares).sum()):
            lines.append(f"{unjudged:,} rows have fewer than {self.shortest} tokens, which says nothing: not judged")
        return lines

    def _examples(self, chosen: NDArray[np.bool_]) -> str:
        numbers = np.flatnonzero(chosen)[:EXAMPLES].tolist()
        return f" ({'; '.join(self.places[number].rpartition('/')[2] for number in numbers)})" if numbers else ""


def find_pretraining_overlap(
    rows: Sequence[Row],
    folders: Sequence[Path],
    ngram: int = NGRAM,
    threshold: float = 0.0,
    shortest: int = SHORTEST,
    progress: Callable[[int, int], None] | None = None,
    say: Say = silent,
) -> PretrainingOverlap:
    """Returns how much of each row is in sets of shards.

    Parameters
    ----------
    rows : sequence of Row
        All texts of a row are looked for.
    folders : sequence of Path
        Sets that `kogpt2 shard` wrote, or folders with sets in them, of which those of the split train are read.
    ngram, shortest : int
        Tokens.
    threshold : float
        The share of a row's n-grams, from 0 (one is enough) to 1.
    progress : callable
        Called with (tokens done, all tokens).
    say : callable
        Called with a line for each set.

    DataError for a set that is missing or damaged, or for sets of different tokenizers; RecipeError for other numbers.
    """
    if not 1 <= shortest <= ngram <= LONGEST_NGRAM or not 0 <= threshold <= 1:
        raise RecipeError(
            f"ngram={ngram}, shortest={shortest}, threshold={threshold:g}: give 1 <= shortest <= ngram <= "
            f"{LONGEST_NGRAM} tokens and a threshold from 0 to 1"
        )
    sets = sets_of(folders)
    tokenizer = _tokenizer_of(sets)
    signs = _Signs(tokenizer)
    wanted = _Wanted(rows, tokenizer, signs, ngram, shortest)
    whole = sum(manifest.tokens for _, manifest in sets)
    done = 0
    for folder, manifest in sets:
        say(f"{folder}: {manifest.tokens:,} tokens of pretraining")
        with ShardSet(folder) as shards:
            scanner = _Scanner(wanted, signs, ngram)
            for chunk in range(shards.num_chunks):
                tokens = shards.read_chunk(chunk)
                scanner.add(tokens)
                done += len(tokens)
                if progress:
                    progress(done, whole)
            scanner.finish()
    places = tuple(row.where for row in rows)
    return PretrainingOverlap(wanted.shares(), wanted.is_short, places, ngram, shortest, threshold, whole)


def sets_of(folders: Sequence[Path]) -> list[tuple[Path, Manifest]]:
    """Returns the sets that folders are or have in them, each once. DataError for a folder without any."""
    sets: dict[str, tuple[Path, Manifest]] = {}
    for folder in folders:
        if not is_there(folder, Path.is_dir):
            raise DataError(_no_folder(folder))
        is_set = (folder / MANIFEST).is_file()
        found = [(each, Manifest.load(each)) for each in ([folder] if is_set else set_folders(folder))]
        chosen = found if is_set else [(each, manifest) for each, manifest in found if manifest.split == "train"]
        if not found:
            raise DataError(f"{folder}: has no shards; name a folder that kogpt2 shard wrote, such as shards/train")
        if not chosen:
            names = ", ".join(str(each) for each, _ in found[:EXAMPLES])
            raise DataError(
                f"{folder}: {counted(len(found), 'set')} of shards, and none of the split train; name {names}"
            )
        sets.update((manifest.fingerprint(), (each, manifest)) for each, manifest in chosen)
    if not sets:
        raise RecipeError("name a folder of the shards of pretraining")
    return list(sets.values())


def _no_folder(path: Path) -> str:
    if path.parts[:1] == ("s3:",):  # "s3://" as a path
        url = f"s3://{'/'.join(path.parts[1:])}"
        return f"{url}: shards are read from a folder; first: kogpt2 files download {url} DIR"
    what = "is no folder" if is_there(path) else "no such folder"
    return f"{path}: {what}; name one with the shards of pretraining that kogpt2 shard wrote, such as shards/train"


def _tokenizer_of(sets: Sequence[tuple[Path, Manifest]]) -> Tokenizer:
    first, manifest = sets[0]
    tokenizer = Tokenizer.load(tokenizer_in(first))
    for folder, manifest in sets:
        if manifest.tokenizer_sha256 != tokenizer.sha256:
            raise DataError(
                f"{folder}: made with another tokenizer than {tokenizer.path}; look for the rows in one set at a time"
            )
    return tokenizer


class _Signs:
    """The numbers that stand for tokens in hashes, and which tokens begin or end a sentence.

    One id more, `border`, stands for what is before the first token of a set and after its last one.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.border = tokenizer.vocab_size
        self.mixed = _mix(np.arange(self.border + 1, dtype=np.uint64))
        self.closes = np.zeros(self.border + 1, bool)  # a sentence ends with it
        self.follows = np.zeros(self.border + 1, bool)  # a sentence ends before it
        for token, spelling in enumerate(tokenizer.spellings):
            text = spelling.strip(b" ")
            self.closes[token] = b"\n" in text or text.endswith(_SENTENCE_ENDS)
            self.follows[token] = b"\n" in text or text.startswith(_SENTENCE_ENDS)
        for token in (tokenizer.bos_id, tokenizer.eos_id, self.border):
            self.closes[token] = self.follows[token] = True

    def hashes(self, tokens: NDArray[np.int64], length: int) -> Hashes:
        """Returns the hash of the n-gram that begins at each place, (len(tokens) - length + 1,)."""
        numbers = self.mixed[tokens]
        count = len(tokens) - length + 1
        hashes: Hashes = numbers[:count].copy()
        for place in range(1, length):
            hashes *= _MULTIPLIER
            hashes += numbers[place : place + count]
        return hashes


def _mix(numbers: Hashes) -> Hashes:
    """Returns a number without pattern for each number: the finalizer of SplitMix64 (Steele et al., 2014)."""
    numbers = (numbers + np.uint64(1)) * _MULTIPLIER
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Hashes = numbers ^ (numbers >> np.uint64(31))
    return mixed


def _plain(text: str, tokenizer: Tokenizer) -> str:
    """Returns a text without what a cleaned corpus lacks too; its lines stay where the tokenizer has them."""
    lines = text.split(NEWLINE) if tokenizer.keeps_newlines else [text]
    return NEWLINE.join(filter(None, map(normalize, lines)))


class _Table:
    """Hashes that are looked for, and which of them were found."""

    def __init__(self, hashes: Hashes) -> None:
        self.hashes, self.places = np.unique(hashes, return_inverse=True)
        self.found = np.zeros(len(self.hashes), bool)
        # Nearly all n-grams of the shards are none of these: one look at a bit says so.
        bits = min(26, max(16, (64 * len(self.hashes)).bit_length()))
        self._shift = np.uint64(64 - bits)
        self._filter = np.zeros(1 << bits, bool)
        self._filter[self.hashes >> self._shift] = True

    def look_for(self, hashes: Hashes) -> None:
        """Notes which of the hashes are among these."""
        likely = hashes[self._filter[hashes >> self._shift]]
        places = np.minimum(np.searchsorted(self.hashes, likely), len(self.hashes) - 1)
        self.found[places[self.hashes[places] == likely]] = True


class _Wanted:
    """The n-grams of the rows, and their short texts by length.

    Where a tokenizer has line ends, a text has other tokens after one than at the beginning of a document, since only
    the latter has a space put before it. Both forms of a text are looked for, and the one that is there more counts.
    """

    def __init__(self, rows: Sequence[Row], tokenizer: Tokenizer, signs: _Signs, ngram: int, shortest: int) -> None:
        self._row_of = np.repeat(np.arange(len(rows)), [len(row.texts) for row in rows])  # of each text
        self._forms = 1 + tokenizer.keeps_newlines
        texts = [_plain(text, tokenizer) for row in rows for text in row.texts]
        owners: dict[int, list[NDArray[np.int64]]] = {}
        hashes: dict[int, list[Hashes]] = {}
        self.is_short = np.ones(len(rows), bool)
        for form in range(self._forms):
            for text, ids in enumerate(_encode(texts, tokenizer, after_newline=bool(form))):
                if len(ids) < shortest:
                    continue
                length = min(len(ids), ngram)
                self.is_short[self._row_of[text]] &= len(ids) < ngram
                found = signs.hashes(ids, length)
                hashes.setdefault(length, []).append(found)
                owners.setdefault(length, []).append(np.full(len(found), form * len(texts) + text))
        self.tables = {length: _Table(np.concatenate(parts)) for length, parts in sorted(hashes.items())}
        self._owners = {length: np.concatenate(owners[length]) for length in self.tables}

    def shares(self) -> NDArray[np.float64]:
        """Returns the share of each row's n-grams that were found, (rows,); NaN for a row that has none."""
        found, have = np.zeros((2, self._forms * len(self._row_of)))
        for length, table in self.tables.items():
            owners = self._owners[length]
            have += np.bincount(owners, minlength=len(have))
            found += np.bincount(owners, weights=table.found[table.places], minlength=len(have))
        found, have = found.reshape(self._forms, -1), have.reshape(self._forms, -1)
        best = np.argmax(found / np.maximum(have, 1), axis=0)
        texts = np.arange(len(self._row_of))
        sums = [np.bincount(self._row_of, each[best, texts], minlength=len(self.is_short)) for each in (found, have)]
        with np.errstate(invalid="ignore"):
            shares: NDArray[np.float64] = sums[0] / sums[1]
        return shares


def _encode(texts: Sequence[str], tokenizer: Tokenizer, after_newline: bool) -> Iterator[NDArray[np.int64]]:
    """Yields the ids of each text, as they are at the beginning of a document or after a line end in it."""
    before = NEWLINE if after_newline else ""
    ids, lengths = tokenizer.encode_flat([(before + text).encode("utf-8", "replace") for text in texts])
    ends = np.cumsum(lengths)
    skipped = len(tokenizer.encode(NEWLINE)) if after_newline else 0
    for end, length in zip(ends.tolist(), lengths.tolist()):
        yield ids[end - length + skipped : end].astype(np.int64)


class _Scanner:
    """Looks for what is wanted in the tokens of a set, which come in pieces of any size."""

    def __init__(self, wanted: _Wanted, signs: _Signs, ngram: int) -> None:
        self._signs, self._ngram = signs, ngram
        self._long = wanted.tables.get(ngram)
        self._short = {length: table for length, table in wanted.tables.items() if length < ngram}
        # A text is looked for at each place whose token before and whose `ngram` tokens from it on, and one more, are
        # there; so many tokens are kept until the next piece comes.
        self._kept = np.array([signs.border], np.int64)

    def add(self, tokens: Tokens) -> None:
        """Looks at the next tokens, (n,)."""
        for begin in range(0, len(tokens), BLOCK):
            block = np.minimum(tokens[begin : begin + BLOCK].astype(np.int64), self._signs.border)
            self._look(np.concatenate([self._kept, block]))

    def finish(self) -> None:
        """Looks at the last tokens."""
        self._look(np.concatenate([self._kept, np.full(self._ngram, self._signs.border)]))

    def _look(self, tokens: NDArray[np.int64]) -> None:
        ready = len(tokens) - self._ngram - 1  # places from 1 on
        if ready < 1:
            self._kept = tokens
            return
        if self._long:
            self._long.look_for(self._signs.hashes(tokens[1:-1], self._ngram))
        if self._short:
            self._look_for_short(tokens, ready)
        self._kept = tokens[ready:]

    def _look_for_short(self, tokens: NDArray[np.int64], ready: int) -> None:
        signs = self._signs
        starts = np.flatnonzero(signs.closes[tokens[:ready]]) + 1
        hashes = np.zeros(len(starts), np.uint64)
        for length in range(1, max(self._short) + 1):
            last = tokens[starts + length - 1]
            hashes *= _MULTIPLIER
            hashes += signs.mixed[last]
            if table := self._short.get(length):
                table.look_for(hashes[signs.closes[last] | signs.follows[tokens[starts + length]]])
