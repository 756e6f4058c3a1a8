"""N-grams are found where a search through lists finds them, however the shards are cut."""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.shards.format import TOKENIZER, Manifest, ShardWriter
from kogpt2_gluon.shards.shard_set import ShardSet
from kogpt2_gluon.tasks import pretraining_overlap
from kogpt2_gluon.tasks.pretraining_overlap import (
    PretrainingOverlap,
    _Scanner,
    _Signs,
    _Table,
    _Wanted,
    find_pretraining_overlap,
)
from kogpt2_gluon.tasks.task import Row
from kogpt2_gluon.tokens.tokenizer import Tokenizer
from tests.shards.shard_helpers import flip, read_back
from tests.tokens.tokenizer_helpers import train_model

WORDS = ["바람", "강물", "별빛.", "나무?", "길", "노래!", "구름", "새벽…", "눈", "꽃"]
ENDS = (".", "?", "!", "…", "。", "？", "！")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """A tokenizer of few pieces, among them a line end."""
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    sentences = (" ".join(WORDS[number * step % len(WORDS)] for number in range(9)) for step in range(1, 40))
    path.write_bytes(train_model(sentences, 80, normalization_rule_name="nmt_nfkc", user_defined_symbols=["\n"]))
    return Tokenizer.load(path)


@pytest.fixture(scope="module")
def signs(tokenizer: Tokenizer) -> _Signs:
    return _Signs(tokenizer)


def write_set(
    folder: Path, tokenizer: Tokenizer, documents: Sequence[str], chunk_tokens: int = 4, split: str = "train"
) -> Path:
    """Writes documents as `kogpt2 shard` does, in chunks of any size."""
    folder.mkdir(parents=True)
    (folder / TOKENIZER).write_bytes(tokenizer.stored.content)
    sha256 = hashlib.sha256(tokenizer.stored.content).hexdigest()
    manifest = Manifest(
        split, "<u2", 2 * chunk_tokens, tokenizer.vocab_size, sha256, tokenizer.special_ids, ",".join(documents)
    )
    with ShardWriter(folder, manifest, shard_bytes=6 * chunk_tokens) as writer:
        for document in documents:
            tokens = [tokenizer.bos_id, *tokenizer.encode(document), tokenizer.eos_id]
            writer.add(np.array(tokens, "<u2"), [len(tokens)])
        writer.finish()
    return folder


def stream_of(documents: Sequence[str], tokenizer: Tokenizer) -> list[int]:
    framed = ([tokenizer.bos_id, *tokenizer.encode(document), tokenizer.eos_id] for document in documents)
    return [token for document in framed for token in document]


def by_searching(
    rows: Sequence[Row], documents: Sequence[str], tokenizer: Tokenizer, ngram: int, shortest: int
) -> list[float]:
    """Returns the shares by searching lists."""
    stream = stream_of(documents, tokenizer)
    pieces = [tokenizer.pieces[token].replace("\u2581", " ").strip(" ") for token in stream]
    edges = {tokenizer.bos_id, tokenizer.eos_id}
    # Places between tokens at which a sentence can begin, and can end: 0 is before the first token.
    begins = {0} | {at + 1 for at, token in enumerate(stream) if token in edges or pieces[at].endswith((*ENDS, "\n"))}
    ends = {len(stream)} | begins
    ends |= {at for at, token in enumerate(stream) if token in edges or pieces[at].startswith((*ENDS, "\n"))}

    def is_there(part: list[int]) -> bool:
        return any(stream[at : at + len(part)] == part for at in range(len(stream)))

    def is_sentence(part: list[int]) -> bool:
        return any(at in begins and at + len(part) in ends and stream[at : at + len(part)] == part for at in begins)

    shares = []
    for row in rows:
        found = []
        for ids in map(tokenizer.encode, row.texts):
            if len(ids) >= ngram:
                found += [is_there(ids[at : at + ngram]) for at in range(len(ids) - ngram + 1)]
            elif len(ids) >= shortest:
                found.append(is_sentence(ids))
        shares.append(sum(found) / len(found) if found else math.nan)
    return shares


def phrases(most: int, words: Sequence[str]) -> st.SearchStrategy[str]:
    return st.lists(st.sampled_from(words), max_size=most).map(" ".join)


@settings(deadline=None, derandomize=True, max_examples=250)
@given(
    documents=st.lists(phrases(12, [*WORDS, "\n"]), min_size=1, max_size=5),
    texts=st.lists(st.tuples(phrases(8, WORDS), phrases(4, WORDS)), min_size=1, max_size=4),
    ngram=st.integers(1, 6),
    shortest=st.integers(1, 6),
    sizes=st.lists(st.integers(0, 20), min_size=1),
    block=st.integers(1, 9),
)
@example([""], [("", "길")], 1, 1, [1], 1)
@example(["길"], [("길", "길")], 6, 1, [1], 1)
@example(["눈 꽃 눈 꽃"], [("눈 꽃", "꽃 눈 꽃")], 3, 1, [3], 2)
def test_as_searching_lists(
    tokenizer: Tokenizer,
    signs: _Signs,
    documents: list[str],
    texts: list[tuple[str, str]],
    ngram: int,
    shortest: int,
    sizes: list[int],
    block: int,
) -> None:
    """Tokens come in pieces of any size."""
    shortest = min(shortest, ngram)
    rows = [Row(each) for each in texts]
    stream = np.array(stream_of(documents, tokenizer), "<u2")
    wanted = _Wanted(rows, tokenizer, signs, ngram, shortest)
    scanner = _Scanner(wanted, signs, ngram)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretraining_overlap, "BLOCK", block)
        for piece in np.split(stream, np.cumsum(sizes)):
            scanner.add(piece)
        scanner.finish()
    expected = by_searching(rows, documents, tokenizer, ngram, shortest)
    assert wanted.shares().tolist() == pytest.approx(expected, nan_ok=True)
    assert wanted.is_short.tolist() == [all(len(tokenizer.encode(text)) < ngram for text in row.texts) for row in rows]


@settings(deadline=None, derandomize=True, max_examples=8)
@given(documents=st.lists(phrases(12, WORDS), min_size=1, max_size=5), chunk_tokens=st.integers(1, 9))
def test_chunks_and_shards(tokenizer: Tokenizer, documents: list[str], chunk_tokens: int) -> None:
    rows = [Row((text,)) for text in documents]
    with tempfile.TemporaryDirectory() as work:
        shards = write_set(Path(work) / "set", tokenizer, documents, chunk_tokens)
        found = find_pretraining_overlap(rows, [shards], 4, shortest=1)
    assert all(math.isnan(share) or share == 1 for share in found.shares)


DOCUMENTS = ["바람 강물 길 노래! 구름 눈 꽃 길 구름", "꽃 눈 길 구름", "별빛. 눈 꽃 길 구름. 나무?"]


def look(tokenizer: Tokenizer, folder: Path, *texts: str, **options: float) -> PretrainingOverlap:
    shards = write_set(folder, tokenizer, DOCUMENTS)
    rows = [Row((text,), where=f"/data/f.txt, line {number}") for number, text in enumerate(texts, 1)]
    return find_pretraining_overlap(rows, [shards], **{"ngram": 6, "shortest": 3, **options})


def test_short_texts_are_documents_or_sentences(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """They are found as a whole document and before a full stop, but not in the middle of a sentence."""
    assert [len(tokenizer.encode(text)) for text in ("꽃 눈 길", "길")] == [3, 1]
    found = look(tokenizer, tmp_path / "s", "꽃 눈 길 구름", "눈 꽃 길 구름", "눈 꽃 길", "바람 강물 길 노래!", "길")
    assert found.shares.tolist() == pytest.approx([1, 1, 0, 1, math.nan], nan_ok=True)
    assert found.clean == (2, 4)


def test_lines(tokenizer: Tokenizer, tmp_path: Path) -> None:
    long = "강물 길 노래! 구름 눈 꽃"
    assert len(tokenizer.encode(long)) >= 6
    found = look(tokenizer, tmp_path / "s", long, "꽃 눈 길 구름", "길", "새벽… 새벽… 새벽… 새벽… 새벽… 새벽…")
    total = sum(len(tokenizer.encode(each)) + 2 for each in DOCUMENTS)
    assert found.lines() == [
        f"1 of 4 rows have a 6-gram in {total} tokens of pretraining (f.txt, line 1)",
        "1 rows of 3 to 5 tokens are there as a whole document or sentence (f.txt, line 2)",
        "1 rows have fewer than 3 tokens, which says nothing: not judged",
    ]


def test_a_threshold(tokenizer: Tokenizer, tmp_path: Path) -> None:
    text = "강물 길 노래! 구름 눈 꽃 새벽… 새벽… 새벽… 새벽…"
    half = look(tokenizer, tmp_path / "one", text)
    assert 0 < half.shares[0] < 0.7 and half.seen.tolist() == [True]
    strict = look(tokenizer, tmp_path / "two", text, threshold=0.7)
    assert strict.seen.tolist() == [False] and strict.lines()[0].startswith("0 of 1 rows have 70% of their 6-grams")


def test_several_sets(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """A row can be in two sets in part; the set of the split test below a folder is not pretraining."""
    write_set(tmp_path / "news" / "train", tokenizer, DOCUMENTS[:1])
    write_set(tmp_path / "news" / "test", tokenizer, DOCUMENTS[1:2], split="test")
    wiki = write_set(tmp_path / "wiki", tokenizer, DOCUMENTS[2:])
    rows = [Row((text,)) for text in ("바람 강물 길 노래!", "꽃 눈 길 구름", "눈 꽃 길 구름.")]
    said: list[str] = []
    progress: list[tuple[int, int]] = []
    found = find_pretraining_overlap(
        rows,
        [tmp_path / "news", wiki, wiki],
        6,
        shortest=2,
        progress=lambda *each: progress.append(each),
        say=said.append,
    )
    assert found.seen.tolist() == [True, False, True] and len(said) == 2
    assert progress[-1] == (found.tokens, found.tokens)
    assert find_pretraining_overlap(rows, [tmp_path / "news" / "test"], 6, shortest=2).seen.tolist() == [
        False,
        True,
        False,
    ]


def test_rows_of_an_empty_list(tokenizer: Tokenizer, tmp_path: Path) -> None:
    shards = write_set(tmp_path / "s", tokenizer, DOCUMENTS)
    found = find_pretraining_overlap([], [shards])
    assert found.shares.shape == (0,) and found.clean == () and found.lines()


def test_texts_are_compared_as_they_are_cleaned(tokenizer: Tokenizer, tmp_path: Path) -> None:
    assert look(tokenizer, tmp_path / "s", " 꽃\u200b 눈\u00a0 길\t구름\ufeff").shares.tolist() == [1]


def test_lines_of_a_row_are_kept_where_the_tokenizer_keeps_them(tokenizer: Tokenizer, tmp_path: Path) -> None:
    shards = write_set(tmp_path / "s", tokenizer, ["꽃 눈\n길 구름\n눈"])
    rows = [Row((text,)) for text in ("꽃 눈 \n\n 길 구름", "꽃 눈 길 구름", "길 구름")]
    assert find_pretraining_overlap(rows, [shards], 8, shortest=2).shares.tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    "options",
    [
        {"ngram": 0},
        {"ngram": 65},
        {"shortest": 0},
        {"ngram": 5, "shortest": 6},
        {"threshold": 1.5},
        {"threshold": math.nan},
    ],
)
def test_bad_numbers(options: dict[str, float], tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="give 1 <= shortest <= ngram <= 64 tokens and a threshold from 0 to 1"):
        find_pretraining_overlap([], [tmp_path], **options)


def test_bad_sets(tokenizer: Tokenizer, tmp_path: Path, small_tokenizer: bytes) -> None:
    with pytest.raises(RecipeError, match="name a folder"):
        find_pretraining_overlap([], [])
    (tmp_path / "text.txt").write_text("a", encoding="utf-8")
    for place, message in (
        (tmp_path / "nothing", f"{tmp_path}/nothing: no such folder; name one with the shards of pretraining"),
        (tmp_path / "text.txt", f"{tmp_path}/text.txt: is no folder; name one with the shards of pretraining"),
        (tmp_path, f"{tmp_path}: has no shards; name a folder that kogpt2 shard wrote, such as shards/train"),
        (
            Path("s3://bucket/a"),
            "s3://bucket/a: shards are read from a folder; first: kogpt2 files download s3://bucket/a",
        ),
    ):
        with pytest.raises(DataError) as caught:
            find_pretraining_overlap([], [place])
        assert str(caught.value).startswith(message)
    held_out = write_set(tmp_path / "held-out" / "test", tokenizer, DOCUMENTS, split="test")
    with pytest.raises(DataError, match=f"1 set of shards, and none of the split train; name {held_out}"):
        find_pretraining_overlap([], [held_out.parent])
    one = write_set(tmp_path / "one", tokenizer, DOCUMENTS)
    (tmp_path / "other.model").write_bytes(small_tokenizer)
    other = write_set(tmp_path / "other", Tokenizer.load(tmp_path / "other.model"), ["a"])
    with pytest.raises(DataError, match=r"other: made with another tokenizer than .*look for the rows in one set"):
        find_pretraining_overlap([], [one, other])
    (one / TOKENIZER).write_bytes(small_tokenizer)
    with pytest.raises(DataError, match="made with another tokenizer"):
        find_pretraining_overlap([], [one])


def test_a_damaged_set_is_one_line(tokenizer: Tokenizer, tmp_path: Path) -> None:
    shards = write_set(tmp_path / "s", tokenizer, DOCUMENTS)
    flip(shards / "train-00000.ktok", 1)
    with pytest.raises(DataError, match=r"train-00000.ktok: chunk 0 at byte 0 is damaged"):
        find_pretraining_overlap([], [shards])


def test_ids_beyond_the_vocabulary_match_nothing(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """A set that somebody made by hand can have any numbers."""
    shards = tmp_path / "s"
    write_set(shards, tokenizer, DOCUMENTS[:1])
    tokens = np.full(64, 65535, "<u2")
    manifest = Manifest.load(shards)
    (shards / "train-00000.ktok").unlink()
    fresh = Manifest("train", "<u2", 8, manifest.vocab_size, manifest.tokenizer_sha256, manifest.special_ids, "")
    with ShardWriter(shards, fresh, 24) as writer:
        writer.add(tokens, [64])
        writer.finish()
    assert find_pretraining_overlap([Row((DOCUMENTS[0],))], [shards], 6).shares.tolist() == [0]


def test_real_shards_have_their_own_text(shards: Path) -> None:
    """Rows cut out of the shards' own tokens are found, in the set that they come from."""
    with ShardSet(shards / "test") as opened:
        tokens = read_back(opened)
    tokenizer = Tokenizer.load(shards / "tokenizer.model")
    documents = np.split(tokens, np.flatnonzero(tokens == tokenizer.eos_id) + 1)
    texts = [tokenizer.decode(document[1:-1].tolist()) for document in documents if tokenizer.unk_id not in document]
    rows = [Row((text,)) for text in texts] + [
        Row(("코스타리카의 나무늘보는 일주일에 한 번 나무에서 내려온다고 합니다",))
    ]
    found = find_pretraining_overlap(rows, [shards / "test"])
    judged = ~np.isnan(found.shares)
    assert judged[:-1].sum() > 30 and found.shares[-1] == 0
    assert (found.shares[:-1][judged[:-1]] == 1).all()


@settings(deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=20), st.lists(st.integers(0, 2**64 - 1), max_size=20))
def test_table(wanted: list[int], others: list[int]) -> None:
    table = _Table(np.array(wanted, np.uint64))
    table.look_for(np.array([*others, *wanted[::2]], np.uint64))
    expected = [each in {*others, *wanted[::2]} for each in wanted]
    assert table.found[table.places].tolist() == expected
