"""Kneser-Ney n-grams: distributions that sum to one, a slow reference, and evaluation's own scores."""

from __future__ import annotations

import functools
import importlib.util
import itertools
import json
import math
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from kogpt2_gluon.reading.held_out import HeldOutReader
from kogpt2_gluon.shards.format import Manifest, ShardWriter
from kogpt2_gluon.shards.shard_set import ShardSet
from tests.helpers import ROOT

SCRIPT = ROOT / "benchmarks" / "ngram_baseline.py"
UNK, BOS, EOS, PAD = range(4)
VOCAB = 12
SPECIAL = {"unk": UNK, "bos": BOS, "eos": EOS, "pad": PAD}
ORDERS = (1, 2, 3, 4)

spec = importlib.util.spec_from_file_location("ngram_baseline", SCRIPT)
assert spec is not None and spec.loader is not None
baseline = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = baseline  # dataclasses look their module up there
spec.loader.exec_module(baseline)


def random_documents(seed: int, count: int = 60, words: int = 7) -> list[list[int]]:
    """Documents of 0 to 9 words, of so many different ones, drawn by Zipf's law: counts of one and of many occur."""
    rng = np.random.default_rng(seed)
    ids = np.array([UNK, *range(PAD + 1, PAD + words)])
    assert ids.max() < VOCAB
    law = 1 / np.arange(1, len(ids) + 1)
    lengths = rng.integers(0, 10, size=count)
    return [[BOS, *rng.choice(ids, size=length, p=law / law.sum()).tolist(), EOS] for length in lengths]


def flat(documents: list[list[int]]) -> NDArray[np.int64]:
    return np.array([token for document in documents for token in document], dtype=np.int64)


class SlowKneserNey:
    """The definition, one dictionary entry at a time."""

    def __init__(self, documents: list[list[int]], order: int, modified: bool = False):
        self.order = order
        seen: Counter[tuple[int, ...]] = Counter()
        for document in documents:
            for end in range(2, len(document) + 1):
                seen.update(tuple(document[start:end]) for start in range(end))
        self.count = {
            ngram: number
            if len(ngram) == order or (ngram[0] == BOS and len(ngram) > 1)
            else len({longer[0] for longer in seen if longer[1:] == ngram})
            for ngram, number in seen.items()
            if len(ngram) <= order
        }
        self.taken = {}
        for length in range(1, order + 1):
            counts = [number for ngram, number in self.count.items() if len(ngram) == length]
            if modified:
                self.taken[length] = baseline.discounts(np.array(counts), modified=True)
            else:
                n1, n2 = counts.count(1), counts.count(2)
                self.taken[length] = [0] + [n1 / (n1 + 2 * n2) if n1 else 0.5] * 3

    def probability(self, word: int, history: tuple[int, ...]) -> float:
        lower = self.probability(word, history[1:]) if history else 1 / (VOCAB - 1)
        taken = self.taken[len(history) + 1]
        after = {
            ngram[-1]: number
            for ngram, number in self.count.items()
            if ngram[:-1] == history and len(ngram) == len(history) + 1
        }
        if not after:
            return lower
        own = after.get(word, 0) - taken[min(after.get(word, 0), 3)]
        left_over = sum(taken[min(number, 3)] for number in after.values())
        return float(own + left_over * lower) / sum(after.values())

    def probabilities(self, documents: list[list[int]]) -> NDArray[np.float64]:
        known = functools.lru_cache(maxsize=None)(self.probability)
        return np.array(
            [
                known(document[place], tuple(document[max(0, place - self.order + 1) : place]))
                for document in documents
                for place in range(1, len(document))
            ]
        )


@pytest.mark.parametrize("modified", [False, True])
@pytest.mark.parametrize("order", ORDERS)
def test_every_distribution_sums_to_one(order: int, modified: bool) -> None:
    everything = [word for word in range(VOCAB) if word != BOS]
    for seed in range(3):
        documents = random_documents(seed)
        model = baseline.KneserNey(flat(documents), BOS, VOCAB, order, modified)
        seen = {tuple(document[end - order + 1 : end]) for document in documents for end in range(order, len(document))}
        # Every history of full length, then the shorter ones that a document begins with.
        histories = list(itertools.product(everything, repeat=order - 1))
        beginnings = [h for length in range(order - 1) for h in itertools.product(everything, repeat=length)]
        if order > 1:
            assert seen & set(histories) and set(histories) - seen, "both kinds of history must be tried"
        for history in [*histories[:: max(1, len(histories) // 200)], *beginnings]:
            tries = [[BOS, *history, word] for word in everything]
            last = model.probabilities(flat(tries)).reshape(len(everything), -1)[:, -1]
            assert last.min() > 0
            assert last.sum() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("modified", [False, True])
@pytest.mark.parametrize("order", ORDERS)
def test_equals_the_slow_definition(order: int, modified: bool) -> None:
    for seed, words in [(0, 7), (1, 3), (2, 9)]:  # of few words nearly every history is seen; of seven not every word
        documents, held_out = random_documents(seed, words=words), random_documents(seed + 100, count=30, words=9)
        fast = baseline.KneserNey(flat(documents), BOS, VOCAB, order, modified).probabilities(flat(held_out))
        slow = SlowKneserNey(documents, order, modified).probabilities(held_out)
        np.testing.assert_allclose(fast, slow, rtol=1e-12)


def test_by_hand() -> None:
    # Bigrams <s>4 x2, 4</s>, 45, 5</s>. Order 2: n1 = 3, n2 = 1, D = 3/5. Different words before 4: 1, 5: 1, </s>: 2;
    # order 1: n1 = 2, n2 = 1, D = 1/2, of a total of 4, three kinds.
    model = baseline.KneserNey(flat([[BOS, 4, EOS], [BOS, 4, 5, EOS]]), BOS, VOCAB, 2)
    uniform = 1 / 11
    p_eos, p_4 = 1.5 / 4 + 1.5 / 4 * uniform, 0.5 / 4 + 1.5 / 4 * uniform
    expected = [1.4 / 2 + 0.6 / 2 * p_4, 0.4 / 2 + 1.2 / 2 * p_eos, 0.6 / 2 * 1.5 / 4 * uniform, p_eos]
    np.testing.assert_allclose(model.probabilities(flat([[BOS, 4, EOS], [BOS, 7, EOS]])), expected, rtol=1e-14)


def test_discounts() -> None:
    counts = np.array([1, 1, 1, 1, 2, 2, 3, 4, 9])
    assert baseline.discounts(counts, modified=False).tolist() == [0, 0.5, 0.5, 0.5]
    assert baseline.discounts(counts, modified=True).tolist() == [0, 0.5, 1.25, 1.0]
    assert baseline.discounts(np.array([2, 5]), modified=False).tolist() == [0, 0.5, 0.5, 0.5]
    assert baseline.discounts(np.array([1, 2, 5]), modified=True).tolist() == [0, 0.5, 1.0, 1.5]
    # 3 - 4 Y n4 / n3 would be negative
    assert baseline.discounts(np.array([1, 2, 3, 4, 4, 4]), modified=True).tolist() == [0, 0.5, 1.0, 1.5]


@pytest.mark.parametrize("order", ORDERS)
def test_documents_do_not_see_each_other(order: int) -> None:
    documents, held_out = random_documents(0), random_documents(1)
    together = baseline.KneserNey(flat(documents), BOS, VOCAB, order).probabilities(flat(held_out))
    other_way = baseline.KneserNey(flat(documents[::-1]), BOS, VOCAB, order)
    apart = np.concatenate([other_way.probabilities(flat([document])) for document in held_out])
    np.testing.assert_array_equal(together, apart)


def test_documents_shorter_than_the_order() -> None:
    model = baseline.KneserNey(flat([[BOS, EOS]] * 3), BOS, VOCAB, 4)
    probability = model.probabilities(flat([[BOS, EOS], [BOS, 4, 5, 6, EOS]]))
    assert probability[0] > 0.8
    assert (probability > 0).all()


# ---- over shards -------------------------------------------------------------------------------------------------


def write_shards(folder: Path, documents: list[list[int]], split: str, **changes: Any) -> Path:
    """Shards of many small chunks, two of them a file."""
    folder.mkdir()
    known: dict[str, Any] = dict(chunk_bytes=64, vocab_size=VOCAB, tokenizer_sha256="0", special_ids=SPECIAL)
    manifest = Manifest(split=split, dtype="<u2", source="", text_bytes=1234, words=99, **{**known, **changes})
    manifest.unknown = int(np.count_nonzero(flat(documents) == UNK))
    writer = ShardWriter(folder, manifest, shard_bytes=128)
    for document in documents:
        writer.add(np.array(document, dtype="<u2"), [len(document)])
    writer.finish()
    return folder


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(baseline.main, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


@pytest.mark.skipif(importlib.util.find_spec("mxnet") is None, reason="the module of evaluation's score needs MXNet")
def test_scores_as_evaluation_does(tmp_path: Path) -> None:
    from kogpt2_gluon.inference.evaluation import score

    documents, held_out = random_documents(0), random_documents(1, count=40)
    train = write_shards(tmp_path / "train", documents, "train")
    test = write_shards(tmp_path / "test", held_out, "test")
    code, output = run(train, test, "--json")
    assert code == 0, output
    with ShardSet(test) as shards:
        targets = np.concatenate([batch[:, 1:].ravel() for batch in HeldOutReader(shards, 16).batches(4)])
        targets = targets[targets != BOS]
        figures = json.loads(output)
        assert [figure["order"] for figure in figures] == [2, 3]
        for figure in figures:
            total_loss = -np.log(SlowKneserNey(documents, figure["order"]).probabilities(held_out)).sum()
            expected = score(total_loss, len(targets), shards.manifest)
            assert figure["tokens"] == expected.tokens == shards.manifest.tokens - shards.manifest.documents
            for name in ("loss", "perplexity", "bits_per_byte"):
                assert figure[name] == pytest.approx(getattr(expected, name), rel=1e-12)
            assert figure["unknown_rate"] == np.mean(targets == UNK) > 0


def test_table(tmp_path: Path) -> None:
    documents = random_documents(0)
    train = write_shards(tmp_path / "train", documents, "train")
    test = write_shards(tmp_path / "test", documents, "test")
    code, output = run(train, test, "--order", 3, "--modified")
    assert code == 0, output
    title, rule, row = output.splitlines()
    assert title.count("|") == rule.count("|") == row.count("|") == 7
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    model = baseline.KneserNey(flat(documents), BOS, VOCAB, 3, modified=True)
    perplexity = math.exp(-np.log(model.probabilities(flat(documents))).mean())
    assert cells[:3] == ["3", str(len(flat(documents)) - len(documents)), f"{perplexity:.1f}"]


@pytest.mark.parametrize(
    "changes, named", [({"tokenizer_sha256": "1"}, "tokenizer_sha256"), ({"vocab_size": 13}, "vocab_size")]
)
def test_other_tokenizer(tmp_path: Path, changes: dict[str, Any], named: str) -> None:
    train = write_shards(tmp_path / "train", random_documents(0), "train")
    test = write_shards(tmp_path / "test", random_documents(1), "test", **changes)
    code, output = run(train, test)
    assert code == 3
    assert named in output and str(test) in output and output.count("\n") == 1


@pytest.mark.parametrize("broken", [[4, 5, EOS], [BOS, 4, BOS, EOS], [BOS, VOCAB, EOS]])
def test_tokens_that_are_not_documents(tmp_path: Path, broken: list[int]) -> None:
    train = write_shards(tmp_path / "train", random_documents(0), "train")
    test = write_shards(tmp_path / "test", [broken, *random_documents(1)], "test")
    code, output = run(train, test)
    assert code == 3
    assert str(test) in output and output.count("\n") == 1


def test_wrong_arguments(tmp_path: Path) -> None:
    train = write_shards(tmp_path / "train", random_documents(0), "train")
    code, output = run(train, train, "--order", 40)
    assert code == 2 and "--order 40" in output
    assert run(train, train, "--order", 0)[0] == 2
    code, output = run(train, tmp_path / "nowhere")
    assert code == 3 and f"{tmp_path / 'nowhere'}: does not exist" in output
