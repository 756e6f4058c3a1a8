"""Interpolated Kneser-Ney n-grams over token shards: the figures that a trained network has to beat.

    python benchmarks/ngram_baseline.py TRAIN_SHARDS TEST_SHARDS [--order 2 --order 3] [--modified] [--json]

The scored tokens are those of ``kogpt2_gluon/inference/evaluation.py``: every held-out token but `<s>`, so the text's
tokens and `</s>`. `<unk>` counts as a token like any other, there and here.

The model (Chen and Goodman, 1999, section 4.1.6), with h' the history h without its first word::

    P_k(w | h) = (c(h w) - D_k) / c(h) + r(h) P_(k-1)(w | h')      if h was followed by anything in training
    P_k(w | h) = P_(k-1)(w | h')                                   if not
    P_0(w)     = 1 / (vocab_size - 1)                              every id but <s>, which is never predicted

The first term is 0 where h w was never seen; c(h) is the sum of c(h w) over w, and r(h), what the discounts took
away over c(h), makes each distribution sum to one. At the highest order c counts occurrences; below it, the
different words seen before. D_k = n1 / (n1 + 2 n2), with n1 and n2 the k-grams of count one and two.

Documents do not see each other, and each begins with a single `<s>`, as in SRILM and KenLM. If fewer words than the
order needs come before a word, the history is shorter and begins with `<s>`. Nothing comes before `<s>`, so the k-grams
that begin with it keep their numbers of occurrences at the lower orders too.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from kogpt2_gluon.errors import DataError, KoGPT2Error, RecipeError
from kogpt2_gluon.shards.format import MANIFEST, Manifest
from kogpt2_gluon.shards.shard_set import ShardSet

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


# ---- the model ---------------------------------------------------------------------------------------------------


class KneserNey:
    """An interpolated Kneser-Ney model of one order.

    Parameters
    ----------
    tokens : int64 (n,)
        Training text: documents one after another, each beginning with `bos`, which appears nowhere else.
    bos : int
        Id of `<s>`.
    vocab_size : int
        All ids are below it; RecipeError if ``vocab_size ** order`` does not fit in 63 bits.
    order : int
        The n of n-gram, from 1.
    modified : bool
        Three discounts an order, for counts of one, two and more (Chen and Goodman's modified form), in place of one.
    """

    def __init__(self, tokens: Ints, bos: int, vocab_size: int, order: int, modified: bool = False):
        assert order >= 1
        if vocab_size**order >= 1 << 63:
            raise RecipeError(
                f"--order {order}: keys of {vocab_size:,} ids each do not fit in 63 bits; take a lower order"
            )
        self.bos, self.vocab_size, self.order = bos, vocab_size, order
        place = _places(tokens, bos)
        ngrams, counts = np.unique(self._ngrams(tokens, place, order), return_counts=True)
        levels = [_Level(ngrams, counts, vocab_size, modified)]
        for length in range(order - 1, 0, -1):
            # Distinct longer n-grams that differ in their first word only: the different words seen before the rest.
            ngrams, counts = np.unique(ngrams % vocab_size**length, return_counts=True)
            if length > 1:  # nothing precedes those at a document's beginning, so the two kinds do not overlap
                first = self._ngrams(tokens, place, length, beginning=True)
                first_ngrams, first_counts = np.unique(first, return_counts=True)
                ngrams, counts = np.append(ngrams, first_ngrams), np.append(counts, first_counts)
                by_key = np.argsort(ngrams)
                ngrams, counts = ngrams[by_key], counts[by_key]
            levels.append(_Level(ngrams, counts, vocab_size, modified))
        self._levels = levels[::-1]  # of length 1, 2, .. order

    def probabilities(self, tokens: Ints) -> Floats:
        """Probability of every token but `<s>`, given what precedes it in its document: (n,) -> (n - documents,)."""
        place = _places(tokens, self.bos)
        probability: Floats = np.full(len(tokens), 1 / (self.vocab_size - 1))
        for length, level in enumerate(self._levels, 1):
            at = _ends(place, length)
            probability[at] = level.interpolate(self._ngrams(tokens, place, length), probability[at])
        scored: Floats = probability[place > 0]
        return scored

    def _ngrams(self, tokens: Ints, place: Ints, length: int, beginning: bool = False) -> Ints:
        """Keys of the n-grams that do not end in `<s>`, or only of those that begin with it (`beginning`).

        A key is the number whose digits to the base vocab_size are the n-gram's ids: sorted keys of one history are
        neighbours.
        """
        at = np.flatnonzero(place == length - 1) if beginning else _ends(place, length)
        keys = np.zeros(len(at), dtype=np.int64)
        for back in range(length - 1, -1, -1):
            keys = keys * self.vocab_size + tokens[at - back]
        return keys


class _Level:
    """The n-grams of one length: what each has of its history's probability, and what the history leaves to P_(k-1).

    `ngrams` are distinct sorted keys, int64 (m,), and `counts` their counts, (m,).
    """

    def __init__(self, ngrams: Ints, counts: Ints, vocab_size: int, modified: bool):
        self._vocab_size, self._ngrams = vocab_size, ngrams
        self._histories, first, sizes = np.unique(ngrams // vocab_size, return_index=True, return_counts=True)
        discount = discounts(counts, modified)[np.minimum(counts, 3)]
        totals = np.add.reduceat(counts, first)
        self._share = (counts - discount) / np.repeat(totals, sizes)
        self._rest = np.add.reduceat(discount, first) / totals

    def interpolate(self, ngrams: Ints, lower: Floats) -> Floats:
        """P_k of `ngrams` (m,), any keys, from `lower` (m,), their P_(k-1)."""
        share = _look_up(self._ngrams, self._share, ngrams, absent=0.0)
        rest = _look_up(self._histories, self._rest, ngrams // self._vocab_size, absent=1.0)
        return share + rest * lower


def discounts(counts: Ints, modified: bool) -> Floats:
    """Returns the discounts of counts 0, 1, 2 and 3 or more: (4,).

    If the formulas fail because no n-gram has some small count, these are used: 0.5, or 0.5, 1 and 1.5.
    """
    n1, n2, n3, n4 = (int(np.count_nonzero(counts == count)) for count in (1, 2, 3, 4))
    if not modified:
        return np.array([0.0, *[n1 / (n1 + 2 * n2) if n1 else 0.5] * 3])
    if n1 and n2 and n3:
        share = n1 / (n1 + 2 * n2)
        taken = [1 - 2 * share * n2 / n1, 2 - 3 * share * n3 / n2, 3 - 4 * share * n4 / n3]
        if min(taken) >= 0:
            return np.array([0.0, *taken])
    return np.array([0.0, 0.5, 1.0, 1.5])


def _places(tokens: Ints, bos: int) -> Ints:
    """Each token's place in its document, from 0 for `<s>`: (n,)."""
    starts = np.flatnonzero(tokens == bos)
    assert len(starts) and starts[0] == 0, "the tokens do not begin with <s>"
    return np.arange(len(tokens)) - np.repeat(starts, np.diff(np.append(starts, len(tokens))))


def _ends(place: Ints, length: int) -> Ints:
    """Returns the places where n-grams end that lie within a document and do not end in `<s>`."""
    return np.flatnonzero(place >= max(1, length - 1))


def _look_up(keys: Ints, values: Floats, wanted: Ints, absent: float) -> Floats:
    """Returns the values of the `wanted` keys (m,) in sorted `keys`; `absent` for keys that are missing."""
    if not len(keys):
        return np.full(len(wanted), absent)
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, values[at], absent)


# ---- the figures -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Score:
    """Figures of one order on held-out shards.

    tokens : how many were scored. loss : nats a token. perplexity : its exponential. bits_per_byte : of the text after
    the tokenizer's normalisation, in UTF-8. unknown_rate : share of `<unk>` among the scored. seconds : of counting
    and scoring.
    """

    order: int
    tokens: int
    loss: float
    perplexity: float
    bits_per_byte: float
    unknown_rate: float
    seconds: float


def read_documents(shards: ShardSet) -> Ints:
    """Returns all tokens of a set, int64 (n,). Raises DataError unless each document begins with its only `<s>`."""
    manifest = shards.manifest
    tokens = np.concatenate([shards.read_chunk(chunk) for chunk in range(shards.num_chunks)]).astype(np.int64)
    bos = manifest.special_ids["bos"]
    if tokens[0] != bos or np.count_nonzero(tokens == bos) != manifest.documents or tokens.max() >= manifest.vocab_size:
        raise DataError(
            f"{shards.folder}: its tokens are not the {manifest.documents:,} documents `<s> text </s>` with ids below "
            f"{manifest.vocab_size:,} that {MANIFEST} names; make this set again"
        )
    return tokens


def score_order(train: Ints, test: Ints, manifest: Manifest, order: int, modified: bool = False) -> Score:
    """Fits an order on `train` and scores `test`, which `manifest` describes; both from :func:`read_documents`."""
    begun = time.perf_counter()
    bos, unk = manifest.special_ids["bos"], manifest.special_ids["unk"]
    losses = -np.log(KneserNey(train, bos, manifest.vocab_size, order, modified).probabilities(test))
    loss = float(losses.mean())
    return Score(
        order=order,
        tokens=len(losses),
        loss=loss,
        perplexity=math.exp(loss),
        bits_per_byte=loss / math.log(2) * len(losses) / max(1, manifest.text_bytes),
        unknown_rate=np.count_nonzero(test == unk) / len(losses),
        seconds=time.perf_counter() - begun,
    )


def score_shards(train: Path, test: Path, orders: Sequence[int], modified: bool = False) -> list[Score]:
    """Returns the scores of all `orders`. Raises DataError if the folders hold tokens of different tokenizers."""
    with ShardSet(train) as train_shards, ShardSet(test) as test_shards:
        manifest = test_shards.manifest
        for name in ("tokenizer_sha256", "vocab_size", "special_ids"):
            if getattr(train_shards.manifest, name) != getattr(manifest, name):
                raise DataError(f"{test}: {name} is not that of {train}; make both with one tokenizer")
        train_tokens, test_tokens = read_documents(train_shards), read_documents(test_shards)
    return [score_order(train_tokens, test_tokens, manifest, order, modified) for order in orders]


def table(scores: Sequence[Score]) -> str:
    """Returns a Markdown table with a row for each order."""
    rows = [
        f"| {score.order} | {score.tokens:,} | {score.perplexity:.1f} | {score.bits_per_byte:.3f} "
        f"| {score.unknown_rate:.3%} | {score.seconds:.1f} |"
        for score in scores
    ]
    title = "| order | tokens scored | perplexity | bits per byte | unknown rate | seconds |"
    return "\n".join([title, "|---:|---:|---:|---:|---:|---:|", *rows])


@click.command()
@click.argument("train", metavar="TRAIN_SHARDS", type=click.Path(path_type=Path))
@click.argument("test", metavar="TEST_SHARDS", type=click.Path(path_type=Path))
@click.option(
    "--order",
    "orders",
    type=click.IntRange(1),
    multiple=True,
    default=(2, 3),
    show_default=True,
    help="The n of n-gram.",
)
@click.option("--modified", is_flag=True, help="Three discounts an order (modified Kneser-Ney) in place of one.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one object an order, in place of a table.")
def main(train: Path, test: Path, orders: tuple[int, ...], modified: bool, as_json: bool) -> None:
    """Perplexity and bits per byte of Kneser-Ney n-grams, trained and scored on token shards."""
    try:
        scores = score_shards(train, test, orders, modified)
    except KoGPT2Error as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    click.echo(json.dumps([asdict(score) for score in scores], indent=1) if as_json else table(scores))


if __name__ == "__main__":
    main()
