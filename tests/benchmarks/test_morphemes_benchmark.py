"""benchmarks/morphemes.py, whole and tiny: the counts of its table are those of the tokenizers that it made."""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from pathlib import Path

import pytest

from kogpt2_gluon.corpus.store import Corpus
from kogpt2_gluon.tokens.tokenizer import Tokenizer
from tests.helpers import ROOT, run
from tests.tokens.morpheme_helpers import SENTENCES
from tests.tokens.tokenizer_helpers import make_corpus

pytestmark = pytest.mark.skipif(importlib.util.find_spec("mxnet") is None, reason="networks need MXNet")
SMALL = ["model.units=16", "training.batch_size=2", "training.total_batch_size=2", "training.ops=stock"]


@pytest.mark.slow
def test_the_table_is_of_the_tokenizers_that_it_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("kiwipiepy", reason="cuts at morphemes")
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    program = importlib.import_module("morphemes")
    documents = [f"{line} {number}번째 글이다" for number in range(300) for line in SENTENCES]
    corpus = make_corpus(tmp_path, documents, test_share=0.1)
    words = [corpus, "--dir", tmp_path / "made", "--vocab-size", 480, "--updates", 2, "--rounds", 1, "--json"]
    words += ["--encode-mb", 0.01, *(word for each in SMALL for word in ("--set", each))]
    done = run(sys.executable, ROOT / "benchmarks" / "morphemes.py", *words)
    rows = {row["name"]: row for row in json.loads(done.stdout)["rows"]}
    assert list(rows) == list(program.CONTESTANTS)
    texts = list(Corpus.open(corpus).documents("test"))
    for name, file in (
        ("KoGPT-2's BPE", "KoGPT2sBPE/tokenizer.model"),
        ("byte-level BPE", "bytelevelBPE/tokenizer.json"),
    ):
        tokenizer = Tokenizer.load(tmp_path / "made" / file)
        tokens = sum(len(tokenizer.encode(text)) for text in texts)
        assert rows[name]["tokens_a_word"] == pytest.approx(tokens / sum(len(text.split()) for text in texts))
        assert rows[name]["tokens_a_byte"] == pytest.approx(tokens / sum(len(text.encode()) for text in texts))
    assert rows["byte-level BPE at morphemes"]["tokens_a_byte"] > rows["byte-level BPE"]["tokens_a_byte"]
    assert all(0 < row["bits_per_raw_byte"] < 10 and row["same_time_updates"] >= 2 for row in rows.values())
    table = program.table([program.Row(**row) for row in rows.values()])
    assert table.count("\n") == 1 + len(rows) and "| KoGPT-2's BPE |" in table
