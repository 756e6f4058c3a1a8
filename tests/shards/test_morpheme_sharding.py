"""Sharding with a tokenizer that cuts at morphemes: each process has its own analyzer, and readers notice nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kogpt2_gluon.corpus.store import Corpus
from kogpt2_gluon.shards.shard_set import ShardSet
from kogpt2_gluon.shards.sharding import shard_corpus
from kogpt2_gluon.storage.tokenizer_file import tokenizer_in
from kogpt2_gluon.tokens.tokenizer import Tokenizer
from tests.shards.shard_helpers import read_back
from tests.tokens.morpheme_helpers import SENTENCES, train_small
from tests.tokens.tokenizer_helpers import make_corpus

pytest.importorskip("kiwipiepy", reason="cuts at morphemes")


def test_any_number_of_processes_makes_the_same_shards(tmp_path: Path) -> None:
    tokenizer = train_small(tmp_path / "small", "kiwi")
    documents = [f"{line} {number}번째 글이다" for number in range(60) for line in SENTENCES]
    corpus = make_corpus(tmp_path, documents)
    made = []
    for processes in (1, 2):
        out = tmp_path / f"shards{processes}"
        manifest = shard_corpus(corpus, tokenizer.path, out, "train", processes)
        made.append({path.name: path.read_bytes() for path in out.iterdir()})
        assert manifest.unknown == 0
    assert made[0] == made[1] and any(name.endswith(".ktok") for name in made[0])
    stored = Tokenizer.load(tokenizer_in(tmp_path / "shards2"))
    assert stored.sha256 == tokenizer.sha256
    with ShardSet(tmp_path / "shards2") as shards:
        tokens = read_back(shards)
    ends = np.flatnonzero(tokens == stored.eos_id)
    texts = [stored.decode(part) for part in np.split(tokens, ends[:-1] + 1)]
    assert texts == list(Corpus.open(corpus).documents("train")) and len(texts) == len(documents)
    sizes = sum(len(text.encode()) for text in texts)
    assert manifest.text_bytes == sizes and manifest.words == sum(len(text.split()) for text in texts)
