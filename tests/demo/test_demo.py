"""The demo's steps before training, which need no MXNet."""

from __future__ import annotations

from pathlib import Path

from kogpt2_gluon.corpus.store import SPLITS, Corpus
from kogpt2_gluon.demo.demo import _make_shards


def test_the_demo_makes_a_corpus_with_its_page_and_shards(tmp_path: Path) -> None:
    printed: list[str] = []
    _make_shards(tmp_path, 1000, printed.append)
    assert all(Corpus.open(tmp_path / "corpus").count(split) for split in SPLITS)
    page = (tmp_path / "corpus" / "cleaning.html").read_text(encoding="utf-8")
    assert "Cleaning report" in page and "text.txt" in page
    for split in SPLITS:
        assert (tmp_path / "shards" / split / "manifest.json").is_file()
    assert any(line.startswith("train: ") for line in printed)
