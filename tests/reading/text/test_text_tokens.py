"""A worker's stream of sequences: what a round holds, and the same from the start of any block."""

from __future__ import annotations

import gzip
import json
import tempfile
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kogpt2_gluon.corpus import records as records_module
from kogpt2_gluon.corpus.formats import kind_of
from kogpt2_gluon.corpus.records import make_block
from kogpt2_gluon.corpus.sources import local_source
from kogpt2_gluon.reading.text import tokens as text_tokens
from kogpt2_gluon.reading.text.documents import read_texts
from kogpt2_gluon.reading.text.tokens import Cursor, DocumentEncoder, TextStream
from kogpt2_gluon.tokens.tokenizer import Tokenizer
from tests.corpus.test_containers import CONTAINERS, rows_of
from tests.helpers import REAL_TEXT
from tests.reading.text.text_reader_helpers import SEQ, WORDS, first_round, row_of, stream, write_text

pytestmark = pytest.mark.usefixtures("small_blocks")


@pytest.mark.parametrize("kind", ["line", "blank-line", "text"])
def test_a_round_holds_every_sequence_once(tmp_path: Path, tokenizer: Tokenizer, kind: str) -> None:
    texts = write_text(tmp_path / "text", 5)
    folder = tmp_path / "text"
    if kind != "line":
        parting = {"blank-line": "\n\n", "text": "\n"}[kind]
        folder = tmp_path / "other"
        folder.mkdir()
        for number in range(5):
            mine = [text if kind == "blank-line" else json.dumps({"text": text}) for text in texts[number::5]]
            suffix = "txt" if kind == "blank-line" else "jsonl"
            (folder / f"{number}.{suffix}").write_text(parting.join(mine) + "\n", encoding="utf-8")
    sources = [local_source(path) for path in sorted(folder.iterdir())]
    opened = stream(sources, tokenizer, kind)
    blocks = first_round(opened)
    row = row_of(opened.file_order(0), kind, tokenizer)
    count = -(-(len(row) - 1) // SEQ)
    row += row[: count * SEQ + 1 - len(row)]  # the last one is filled up from the beginning
    assert len(blocks) > 8 and sum(len(block.rows) for block in blocks) == count
    first = 0
    for block in blocks:
        expected = [row[at * SEQ : (at + 1) * SEQ + 1] for at in range(first, first + len(block.rows))]
        assert sorted(block.rows.tolist()) == sorted(expected)  # the block's own sequences, in another order
        first += len(block.rows)
    assert blocks[0].rows.tolist() != [row[at * SEQ : (at + 1) * SEQ + 1] for at in range(16)]
    assert blocks[-1].documents == len(texts) and not any(blocks[-1].rejected)


@pytest.mark.parametrize("container", ["array", "array, pretty", "csv", "tsv", "parquet", "arrow stream", "feather"])
def test_records_in_any_container_give_the_same_sequences(tmp_path: Path, tokenizer: Tokenizer, container: str) -> None:
    texts = write_text(tmp_path / "text", 1)
    found = {}
    for name in ("json-lines", container):
        suffix, documents, make = CONTAINERS[name]
        path = tmp_path / f"{name}{suffix}"
        path.write_bytes(make(rows_of(texts)))
        found[name] = stream([local_source(path)], tokenizer, documents)
    blocks, expected = (first_round(found[name]) for name in (container, "json-lines"))
    assert len(blocks) == len(expected) > 1
    assert all(np.array_equal(one.rows, two.rows) for one, two in zip(blocks, expected))
    middle = len(blocks) // 2
    again = first_round(found[container], blocks[middle].start)
    assert np.array_equal(again[0].rows, blocks[middle].rows)


def test_sequences_are_shuffled_anew_in_each_round_epoch_and_worker(tmp_path: Path, tokenizer: Tokenizer) -> None:
    write_text(tmp_path / "text", 6)
    sources = [local_source(path) for path in sorted((tmp_path / "text").iterdir())]
    opened = stream(sources, tokenizer)
    orders = {tuple(source.name for source in opened.file_order(round_)) for round_ in range(9)}
    assert len(orders) > 1 and all(sorted(order) == [source.name for source in sources] for order in orders)
    rows = {
        key: np.concatenate([block.rows for block in first_round(stream(sources[:1], tokenizer, key=key))])
        for key in ((5, 0, 0), (5, 1, 0), (5, 0, 1), (6, 0, 0))
    }
    again = np.concatenate([block.rows for block in first_round(stream(sources[:1], tokenizer))])
    assert np.array_equal(rows[5, 0, 0], again)
    plain = {key: value.tolist() for key, value in rows.items()}
    for key in list(plain)[1:]:  # one file, so the same sequences in another order
        assert plain[key] != plain[5, 0, 0] and sorted(plain[key]) == sorted(plain[5, 0, 0])


@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=st.data(), dropout=st.sampled_from([0.0, 0.3]), packed=st.booleans())
def test_any_block_is_the_same_when_it_comes_first(
    tokenizer: Tokenizer, data: st.DataObject, dropout: float, packed: bool
) -> None:
    """Hypothesis draws the documents; from each block's start the stream goes on as before, over a round's end too."""
    texts = data.draw(st.lists(st.lists(st.text(max_size=30), max_size=25), min_size=1, max_size=4))
    with tempfile.TemporaryDirectory() as folder:
        sources = []
        for number, lines in enumerate(texts):
            content = "\n".join(["가"] + [line.replace("\n", " ") for line in lines]).encode()
            path = Path(folder) / f"{number}.txt{'.gz' if packed else ''}"
            path.write_bytes(gzip.compress(content) if packed else content)
            sources.append(local_source(path))
        opened = stream(sources, tokenizer, dropout=dropout)
        blocks = []
        for block in opened.blocks(Cursor()):
            blocks.append(block)
            if len(blocks) == 12 or block.after.round == 3:
                break
        start = data.draw(st.integers(0, len(blocks) - 1))
        cursor = Cursor.from_row([int(value) for value in np.array(blocks[start].start.to_row(), np.float64)])
        for expected, block in zip(blocks[start:], stream(sources, tokenizer, dropout=dropout).blocks(cursor)):
            assert np.array_equal(block.rows, expected.rows)
            assert (block.start, block.after) == (expected.start, expected.after)
            assert (block.documents, block.rejected) == (expected.documents, expected.rejected)


def test_a_document_longer_than_many_blocks(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = tmp_path / "long.txt"
    path.write_text(" ".join(WORDS * 300) + "\n짧은 글\n", encoding="utf-8")
    blocks = first_round(stream([local_source(path)], tokenizer))
    assert len(blocks) > 20
    third = first_round(stream([local_source(path)], tokenizer), blocks[3].start)
    assert [block.rows.tolist() for block in third] == [block.rows.tolist() for block in blocks[3:]]
    assert blocks[3].start.offset == 0 and blocks[3].start.skip == 3 * 16 * SEQ  # inside the one document


def test_fewer_tokens_than_a_sequence_are_read_again_and_again(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = tmp_path / "a.txt"
    path.write_text("가", encoding="utf-8")
    row = [tokenizer.bos_id, *tokenizer.encode("가"), tokenizer.eos_id]
    (block,) = first_round(stream([local_source(path)], tokenizer))
    assert block.rows.tolist() == [(row * 9)[: SEQ + 1]]


def test_documents_become_the_tokenizers_own_ids(tokenizer: Tokenizer) -> None:
    texts = ["이 영화는 재미있다", "a", "\x00", "가" * 5000, "\u1112\u1161\u11ab", "  ", "리뷰\u2028둘"]
    expected = [[tokenizer.bos_id, *tokenizer.encode(text), tokenizer.eos_id] for text in texts]
    for encoder in (DocumentEncoder(tokenizer), DocumentEncoder(tokenizer, 1e-12)):  # the one with dropout, never drawn
        tokens = encoder.encode([text.encode() for text in texts], seed=3)
        assert tokens.dtype == np.int32 and tokens.tolist() == list(chain(*expected))
        assert encoder.encode([]).tolist() == []


def test_what_is_left_out_of_a_block_is_counted() -> None:
    """Whole documents, and pieces that others lost; JSON can spell half of a surrogate pair, which is not Unicode."""
    records = [
        {"text": "하나"},
        {"text": "half \ud83d"},
        {"text": [" 둘", None, 3]},
        {"text": " \u3000"},
        {"text": None},
        {"other": 1},
    ]
    data = b"\n".join(json.dumps(record).encode() for record in records) + b"\nno JSON\n"
    texts, left_out = read_texts(kind_of("text"), make_block("a.jsonl", 1, 0, data))
    assert [text.decode() for text in texts] == ["하나", " 둘"]
    assert +left_out == {
        "bad_unicode": 1, "null_field": 2, "field_not_text": 1, "empty": 1, "missing_field": 1, "bad_json": 1
    }  # fmt: skip
    texts, left_out = read_texts(kind_of("line"), make_block("a.txt", 1, 0, b"one\n\n  \ntwo\n"))
    assert texts == [b"one", b"two"] and +left_out == {"empty": 2}


def test_hostile_text_is_read_whole(tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records_module, "BLOCK_BYTES", 1 << 16)
    monkeypatch.setattr(text_tokens, "SHUFFLE_TOKENS", 1 << 16)
    lines = ["\x00", "가\x00나", "\u1100\u1161" * 50, "나" * 400_000, "</s><s>", "\u2028", "\ufeff", "😀" * 99, "\t"]
    path = tmp_path / "hostile.txt"
    path.write_bytes("\r\n".join(lines).encode())
    blocks = first_round(stream([local_source(path)], tokenizer))
    row = row_of([local_source(path)], "line", tokenizer)
    assert sum(len(block.rows) for block in blocks) == -(-(len(row) - 1) // SEQ)
    assert blocks[-1].documents + sum(blocks[-1].rejected) == len(lines)


@pytest.mark.skipif(not REAL_TEXT.is_dir(), reason="the real Korean text is not here")
def test_real_documents_come_out_whole(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # blocks and buffers of full size
    source = local_source(REAL_TEXT / "lm" / "kaist_treebank_docs.txt")
    opened = TextStream([source], "blank-line", DocumentEncoder(tokenizer), 256, (0, 0, 0))
    blocks = first_round(opened)
    row = row_of([source], "blank-line", tokenizer)
    assert len(blocks) > 1 and sum(len(block.rows) for block in blocks) == -(-(len(row) - 1) // 256)
    bag = np.zeros(tokenizer.vocab_size, np.int64)
    for block in blocks:
        bag += np.bincount(block.rows[:, :-1].ravel(), minlength=tokenizer.vocab_size)
    missing = bag - np.bincount(row, minlength=tokenizer.vocab_size)
    assert missing.min() >= -1 and missing.sum() <= 256  # each token once, and what fills up the last sequence
