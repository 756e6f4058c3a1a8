"""Near duplicates: exact similarity, signatures against a reference, planted copies, nothing dropped unverified."""

from __future__ import annotations

import json
import math
import random
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kogpt2_gluon.corpus.cleaning import minhash, near_duplicates
from kogpt2_gluon.corpus.cleaning.minhash import jaccard, recall, shingle_set
from kogpt2_gluon.corpus.cleaning.near_duplicates import (
    COMPARISONS,
    FIRST,
    LAST,
    NearDuplicateOptions,
    NearDuplicateReport,
    band_keys,
    drop_near_duplicates,
)
from tests.corpus.cleaning.near_duplicate_helpers import OPTIONS, SYLLABLES, documents, edit, true_jaccard
from tests.helpers import REAL_TEXT


def drop(
    texts: Sequence[str],
    work: Path,
    options: NearDuplicateOptions = OPTIONS,
    part: int = 1 << 30,
    gone: Sequence[int] = (),
) -> tuple[list[int], NearDuplicateReport]:
    """The documents that go, beyond those `gone` before, and the report; key files hold `part` documents each."""
    files = []
    for number, start in enumerate(range(0, len(texts), part)):
        files.append(work / f"keys-{number}.npy")
        np.save(files[-1], band_keys(texts[start : start + part], options))
    dropped = np.zeros(len(texts), bool)
    dropped[list(gone)] = True
    report = drop_near_duplicates(files, dropped, texts.__getitem__, work, options)
    assert sorted(path.name for path in work.iterdir()) == sorted(path.name for path in files), "scratch left behind"
    for path in files:
        path.unlink()
    found = [number for number in np.flatnonzero(dropped).tolist() if number not in set(gone)]
    assert report.dropped == len(found)
    return found, report


def partners(report: NearDuplicateReport) -> dict[int, int]:
    return {sample.document: sample.kept for sample in report.samples}


@pytest.fixture
def all_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every dropped pair in the report."""
    monkeypatch.setattr(near_duplicates, "SAMPLES", 1 << 30)


# ---- keys --------------------------------------------------------------------------------------------------------


def test_keys_follow_the_curve() -> None:
    """The share of pairs of similarity near 0.6 that share a band, against what the S-curve says of each."""
    rng = random.Random(8)
    texts = documents(300, sentences=3)
    others = [edit(text, 0.045, rng) for text in texts]
    expected = np.array([recall(true_jaccard(a, b), 20, 6) for a, b in zip(texts, others)])
    assert 0.3 < expected.mean() < 0.9, "the pairs lie where the curve is steep"
    found = np.mean((band_keys(texts, OPTIONS) == band_keys(others, OPTIONS)).any(axis=1))
    assert abs(found - expected.mean()) < 4 * math.sqrt((expected * (1 - expected)).sum()) / len(texts)


def test_short_documents_have_no_keys() -> None:
    texts = ["", " \n\t ", "가" * 49, " ".join("가" * 24) + "  \n", "가" * 50, "\ud800" * 50, "\0" * 60]
    keys = band_keys(texts, OPTIONS)
    assert keys.dtype == np.uint64 and keys.shape == (7, OPTIONS.bands)
    assert (keys == 0).all(axis=1).tolist() == [True, True, True, True, False, False, False]
    assert (keys[4:] != 0).all()
    assert band_keys([], OPTIONS).shape == (0, 20)


def test_keys_do_not_depend_on_the_batch() -> None:
    texts = [text[: 10 + 31 * number] for number, text in enumerate(documents(40))]
    texts.append("\n".join(documents(150)))  # longer than a piece
    assert len(texts[-1]) > minhash.PIECE
    whole = band_keys(texts, OPTIONS)
    assert (whole == np.concatenate([band_keys([text], OPTIONS) for text in texts])).all()


# ---- what goes ---------------------------------------------------------------------------------------------------


def planted() -> tuple[list[str], list[int], list[str]]:
    """Shuffled documents: (texts, number of the original each was made from, how)."""
    rng = random.Random(11)
    header = "이 문서는 저작권법의 보호를 받습니다. 무단 전재와 재배포를 금합니다. 문의는 고객 센터로 하십시오. " * 3
    items: list[tuple[str, int, str]] = []
    for number, text in enumerate(documents(400, seed=2)):
        items.append((text, number, "original"))
        for share in (0.005, 0.02, 0.05, 0.1):
            items.append((edit(text, share, rng), number, f"{share:.1%} changed"))
        items.append((text[: int(0.9 * len(text))], number, "first 90%"))
        items.append((text[: int(0.6 * len(text))], number, "first 60%"))
        items.append((text.replace(" ", "  ").replace("\n", " \n\n"), number, "other white space"))
    for number, text in enumerate(documents(200, sentences=5, seed=77), start=400):
        items.append((header + text, number, "header"))  # "protected by copyright ..." before different texts
    rng.shuffle(items)
    texts, origins, kinds = zip(*items)
    return list(texts), list(origins), list(kinds)


def test_planted_copies(tmp_path: Path, all_samples: None) -> None:
    texts, origins, kinds = planted()
    dropped, report = drop(texts, tmp_path)
    kept_for = partners(report)
    assert sorted(kept_for) == dropped
    # Precision: each document that goes has an earlier, kept partner that is truly so similar.
    for sample in report.samples:
        assert sample.kept < sample.document and sample.kept not in kept_for
        similarity = true_jaccard(texts[sample.document], texts[sample.kept])
        assert similarity >= 0.8 and abs(similarity - sample.jaccard) <= 5e-5
        assert origins[sample.document] == origins[sample.kept], "different documents, so a wrong drop"
        assert kinds[sample.document] != "header"
    # Recall: of all documents with a kept earlier one at 0.85 or more, the share that went.
    kept: dict[int, list[int]] = {}
    wanted, missed = 0, []
    for number, origin in enumerate(origins):
        best = max((true_jaccard(texts[number], texts[other]) for other in kept.get(origin, [])), default=0.0)
        if best >= 0.85:
            wanted += 1
            if number not in kept_for:
                missed.append(number)
        if number not in kept_for:
            kept.setdefault(origin, []).append(number)
    assert wanted > 800
    assert len(missed) / wanted < 0.01, missed
    assert not missed, "with these seeds none is missed; the S-curve allows one in ten thousand"
    # What was planted to stay below the threshold is there in number, or the precision above says little.
    low = [number for number, kind in enumerate(kinds) if kind in ("10.0% changed", "first 60%")]
    assert sum(number not in kept_for for number in low) > 300


def test_a_shared_header_drops_nothing(tmp_path: Path) -> None:
    """Groups of many documents: 4/5 of each text is the same, but the rest is its own."""
    header = "\n".join(documents(1, sentences=5, seed=90))
    rng = random.Random(91)
    texts = [header + "".join(rng.choices(SYLLABLES, k=len(header) // 4)) for _ in range(500)]
    assert 0.6 < true_jaccard(texts[0], texts[1]) < 0.7
    dropped, report = drop(texts, tmp_path)
    assert dropped == []
    assert report.compared > 500, "they did become candidates"
    assert report.compared <= COMPARISONS * len(texts)


def test_copies_among_boilerplate_are_found(tmp_path: Path) -> None:
    """A copy shares bands with hundreds that have the header alone in common, and must come first all the same."""
    header = "\n".join(documents(1, sentences=7, seed=92))
    texts = [header + "\n" + text[: len(header) // 2] for text in documents(600, seed=93)]
    rng = random.Random(4)
    copied = rng.sample(range(600), 100)
    texts += [edit(texts[number], 0.005, rng) for number in copied]
    dropped, report = drop(texts, tmp_path)
    assert all(true_jaccard(texts[600 + place], texts[number]) > 0.9 for place, number in enumerate(copied))
    assert dropped == list(range(600, 700))
    assert report.cut > 0, "some documents have more candidates than may be compared"


def test_a_chain_drops_only_what_is_near_a_kept_one(tmp_path: Path, all_samples: None) -> None:
    """Links of 0.87 each, so by closure all would be one group; ends have nothing in common."""
    start = "".join(random.Random(1).choices(SYLLABLES, k=400))
    more = "".join(random.Random(2).choices(SYLLABLES, k=1000))
    chain = [(start + more)[shift : shift + 400] for shift in range(0, 1000, 28)]
    assert all(0.85 < true_jaccard(a, b) < 0.88 for a, b in zip(chain, chain[1:]))
    assert true_jaccard(chain[0], chain[2]) < 0.8
    dropped, report = drop(chain, tmp_path)
    assert dropped == list(range(1, len(chain), 2)), "each second one: near a kept neighbour"
    assert partners(report) == {number: number - 1 for number in dropped}


def test_the_first_stays_and_gives_way_to_no_one_dropped(tmp_path: Path, all_samples: None) -> None:
    text = documents(1)[0]
    dropped, report = drop([text] * 30, tmp_path)
    assert dropped == list(range(1, 30))
    assert set(partners(report).values()) == {0}
    assert report.compared == 29, "one comparison each: all lead to the one kept"
    # A document dropped before is no reason for another to go, and is not dropped twice.
    dropped, report = drop([text] * 5, tmp_path, gone=[0, 2])
    assert dropped == [3, 4] and report.signed == 3
    assert set(partners(report).values()) == {1}


def test_threshold_one_drops_equal_sets_only(tmp_path: Path) -> None:
    text = documents(1)[0]
    options = NearDuplicateOptions(enabled=True, threshold=1.0)
    assert drop([text, text + "다", text.replace(" ", "\n"), text[:-1] + "\0"], tmp_path, options)[0] == [2]


def test_nothing_to_do(tmp_path: Path) -> None:
    assert drop([], tmp_path)[0] == []
    dropped, report = drop(["가", "", "나" * 10], tmp_path)
    assert dropped == [] and (report.documents, report.signed, report.pairs) == (3, 0, 0)


def test_hostile_texts(tmp_path: Path) -> None:
    texts = [
        "\ud800" * 100,
        "\0" * 100,
        "ㅋ" * 3_000_000,
        " ".join("ㅋ" * 50),
        "ㅋ" * 100,
        "\udfff\0" * 200,
        "e\u0301" * 99,
    ]
    dropped, report = drop(texts, tmp_path)
    assert dropped == [4], "all shingles of a run are one shingle"
    json.dumps(report.to_dict()).encode()


# ---- the same result however the work is cut ---------------------------------------------------------------------


def reference(texts: Sequence[str], options: NearDuplicateOptions) -> set[int]:
    """The rule of the module's first lines, in plain Python."""
    keys = band_keys(texts, options).tolist()
    groups: dict[int, list[int]] = {}
    kept_for: dict[int, int] = {}
    for number, row in enumerate(keys):
        weights: dict[int, int] = {}
        for key in row if any(row) else ():
            members = groups.setdefault(key, [])
            for other in sorted({*members[:FIRST], *members[-LAST:]}):
                kept = kept_for.get(other, other)
                weights[kept] = weights.get(kept, 0) + 1
            members.append(number)
        for kept in sorted(weights, key=lambda kept: (-weights[kept], kept))[:COMPARISONS]:
            if true_jaccard(texts[number], texts[kept], options.shingle) >= options.threshold:
                kept_for[number] = kept
                break
    return set(kept_for)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 60), st.integers(0, 20)), max_size=60),
    st.integers(8, 200),
    st.sampled_from([1, 7, 64, 1 << 16]),
    st.integers(1, 30),
    st.sampled_from([0.3, 0.6, 0.8]),
)
@settings(derandomize=True, max_examples=150, deadline=None)
def test_any_cut_gives_the_reference(
    tmp_path_factory: pytest.TempPathFactory,
    cuts: list[tuple[int, int, int]],
    bucket: int,
    block: int,
    part: int,
    threshold: float,
) -> None:
    base = ["".join(random.Random(seed).choices(SYLLABLES, k=120)) for seed in range(4)]
    texts = [base[which][start:] + base[3 - which][:end] for which, start, end in cuts]
    options = NearDuplicateOptions(enabled=True, threshold=threshold, min_chars=5, permutations=32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(near_duplicates, "BUCKET", bucket)
        patch.setattr(near_duplicates, "BLOCK", block)
        patch.setattr(near_duplicates, "CACHE", 1000)
        dropped, _ = drop(texts, tmp_path_factory.mktemp("work"), options, part)
    assert set(dropped) == reference(texts, options)


def test_the_report_is_the_same_for_any_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts, _, _ = planted()
    whole = drop(texts, tmp_path)
    assert len(whole[1].samples) == near_duplicates.SAMPLES < whole[1].dropped
    monkeypatch.setattr(near_duplicates, "BUCKET", 3000)
    monkeypatch.setattr(near_duplicates, "BLOCK", 500)
    assert drop(texts, tmp_path, part=333) == whole


def test_memory_does_not_grow_with_the_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten times the documents, some of them in groups, in buckets of the same size: the same peak of memory."""
    monkeypatch.setattr(near_duplicates, "BUCKET", 1 << 13)
    monkeypatch.setattr(near_duplicates, "BLOCK", 1 << 10)
    monkeypatch.setattr(near_duplicates, "CACHE", 1 << 16)
    texts = documents(50)

    def peak(count: int) -> int:
        rng = np.random.default_rng(count)
        keys = rng.integers(1, 1 << 64, (count, 20), np.uint64)
        common = rng.random(count) < 0.05
        keys[common] = keys[rng.integers(0, 50, common.sum())]
        path = tmp_path / "keys.npy"
        np.save(path, keys)
        del keys
        dropped = np.zeros(count, bool)
        tracemalloc.start()
        try:
            report = drop_near_duplicates([path], dropped, lambda number: texts[number % 50], tmp_path, OPTIONS)
            assert report.pairs > 0.05 * count
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(1_000)  # what is imported on first use counts for no corpus
    # The records alone are 6.4 MB. The interpreter's own table of interned names, which file names enter, may double
    # once in a process, by any size that earlier tests gave it, so the larger
    # corpus may be measured twice.
    most = peak(4_000) + 2_500_000
    assert peak(20_000) < most or peak(20_000) < most


# ---- real text ---------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not REAL_TEXT.is_dir(), reason="needs the real Korean text")
@pytest.mark.slow
def test_real_documents_against_all_pairs(tmp_path: Path, all_samples: None) -> None:
    """Technical documents: every pair compared, against what the bands find."""
    with (REAL_TEXT / "lm" / "tech_docs_ko.jsonl").open(encoding="utf-8") as stream:
        texts = [json.loads(line)["text"] for line in stream]
    dropped, report = drop(texts, tmp_path)
    sets = [shingle_set(text, 5) for text in texts]
    exact: set[int] = set()
    for number, shingles in enumerate(sets):
        kept = (other for other in range(number) if other not in exact)
        if any(
            0.8 * len(sets[o]) <= len(shingles) <= 1.25 * len(sets[o]) and jaccard(shingles, sets[o]) >= 0.8
            for o in kept
        ):
            exact.add(number)
    assert exact and set(dropped) == exact
    assert all(true_jaccard(texts[sample.document], texts[sample.kept]) >= 0.8 for sample in report.samples)
