"""benchmarks/domain_adaptation.py: from two texts to the table, and the figures are those of `kogpt2 evaluate`."""

from __future__ import annotations

import importlib
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from kogpt2_gluon.demo.sentences.sample_text import write_sample_corpus
from kogpt2_gluon.recipe import load_recipe
from kogpt2_gluon.runs.checkpoint import open_checkpoint
from tests.helpers import ROOT, kogpt2, run

TINY = [
    "model.units=32", "model.num_heads=2", "model.num_layers=1", "model.vocab_size=1200", "model.max_length=32",
    "data.seq_length=32", "training.batch_size=2", "training.total_batch_size=2", "training.threads=1",
    "training.ops=stock", "evaluation.max_sequences=4", "tracking.tensorboard=false", "tracking.sample_prompts=[]",
]  # fmt: skip
TERMS = ("합성곱", "역전파", "하이퍼파라미터")


@pytest.fixture(scope="module")
def benchmark() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        yield importlib.import_module("domain_adaptation")


def write_texts(benchmark: ModuleType, folder: Path) -> None:
    """The two files of made sentences; the domain's have terms in them."""
    folder.mkdir()
    general, domain = (folder / benchmark.TEXTS[name][0] for name in (benchmark.GENERAL, benchmark.DOMAIN))
    write_sample_corpus(general, num_bytes=120_000, seed=1)
    draw, lines = random.Random(1), general.read_text(encoding="utf-8").splitlines()
    texts = [f"{line} {draw.choice(TERMS)}{draw.choice(('', '을', '의', '에서'))} 보자" for line in lines[:500]]
    domain.write_text("\n".join(json.dumps({"text": text}) for text in texts), encoding="utf-8")


def test_the_table_says_what_was_gained_and_forgotten(benchmark: ModuleType) -> None:
    rows = [benchmark.Row("before", None, 2.5, 1.5), benchmark.Row("adapted", 0.25, 2.0, 1.625)]
    _, rule, *lines = benchmark.table(rows).splitlines()
    assert rule.count("|") == lines[0].count("|") == 7
    assert lines == ["| before |  | 2.500 |  | 1.500 |  |", "| adapted | 0.25 | 2.000 | +0.500 | 1.625 | +0.125 |"]


@pytest.mark.parametrize("shares", ["0,much", "1", "-0.1"])
def test_shares_that_are_none(tmp_path: Path, shares: str) -> None:
    done = run(sys.executable, ROOT / "benchmarks" / "domain_adaptation.py", tmp_path, "--shares", shares, code=2)
    assert "Invalid value for '--shares'" in done.stderr


@pytest.mark.slow
def test_from_two_texts_to_the_table(benchmark: ModuleType, tmp_path: Path) -> None:
    write_texts(benchmark, tmp_path / "text")
    sizes = [word for setting in TINY for word in ("--base-set", setting)]
    others = [word for setting in TINY if not setting.startswith("model.") for word in ("--set", setting)]
    command = [sys.executable, ROOT / "benchmarks" / "domain_adaptation.py", tmp_path / "text", "--dir", tmp_path / "w"]
    command += ["--base-steps", 4, "--steps", 3, "--shares", "0,0.25", "--terms", 5, *sizes, *others]
    found = json.loads(run(*command, "--json", "--out", tmp_path / "table.md", timeout=1200).stdout)
    runs = tmp_path / "w" / "runs-3"
    assert [(row["name"], row["share"]) for row in found["rows"]] == [
        ("before", None),
        ("adapted", 0),
        ("adapted", 0.25),
        ("adapted, without the terms", 0.25),
        ("adapted, terms begin as unused tokens", 0.25),
    ]
    terms = (tmp_path / "w" / "terms.txt").read_text(encoding="utf-8")
    assert any(term in terms for term in TERMS)
    scored = json.loads(kogpt2("evaluate", runs / "share-0.25", tmp_path / "w/corpora/reviews/test", "--json").stdout)
    assert found["rows"][2]["general"] == pytest.approx(scored["bits_per_raw_byte"], rel=1e-5)
    recipes = {path.name: load_recipe(str(path / "recipe.yaml")) for path in runs.iterdir()}
    assert isinstance(recipes["share-0.25"].data.train, dict) and len(recipes["share-0.25"].data.train) == 2
    assert len(recipes["share-0"].data.train_sets) == 1
    assert recipes["unused-rows"].training.init_renamed == "none"
    before = open_checkpoint(tmp_path / "w" / "runs" / "base").tokenizer_path.read_bytes()
    assert open_checkpoint(runs / "without-terms").tokenizer_path.read_bytes() == before
    assert open_checkpoint(runs / "share-0").tokenizer_path.read_bytes() != before
    again = run(*command, timeout=600)  # nothing is trained again
    assert again.stdout.strip() == (tmp_path / "table.md").read_text(encoding="utf-8").strip()
