"""benchmarks/corpus_mixes.py: every mix is the same training but for its data, and every figure is the verbs' own."""

from __future__ import annotations

import importlib
import json
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from kogpt2_gluon.demo.sentences.sample_text import write_sample_corpus
from kogpt2_gluon.recipe import load_recipe
from tests.helpers import ROOT, kogpt2, run

TINY = [
    "model.units=32", "model.num_heads=2", "model.num_layers=1", "model.vocab_size=1200", "training.threads=1",
    "tracking.tensorboard=false",
]  # fmt: skip


@pytest.fixture(scope="module")
def mixes() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        yield importlib.import_module("corpus_mixes")


def write_domains(mixes: ModuleType, folder: Path) -> None:
    """The three files, each of its form, of made sentences."""
    folder.mkdir()
    for seed, (name, domain) in enumerate(mixes.DOMAINS.items(), 1):
        text = folder / f"{name}.txt"
        write_sample_corpus(text, num_bytes=60_000 * seed, seed=seed)
        lines = text.read_text(encoding="utf-8").splitlines()
        if domain.documents == "text":
            lines = [json.dumps({"text": line}) for line in lines]
        if domain.documents == "blank-line":
            lines = "\n\n".join("\n".join(lines[at : at + 5]) for at in range(0, len(lines), 5)).split("\n")
        (folder / domain.file).write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_shares_of_a_mix(mixes: ModuleType) -> None:
    sizes = {"reviews": 700, "technical": 200, "treebank": 100}
    assert mixes.weights_of(mixes.MIXES["by size"], sizes) == pytest.approx(
        {"reviews": 0.7, "technical": 0.2, "treebank": 0.1}
    )
    assert set(mixes.weights_of(mixes.MIXES["equal thirds"], sizes).values()) == {1 / 3}
    assert mixes.weights_of(mixes.MIXES["treebank alone"], sizes) == {"treebank": 1.0}


def test_the_table_and_the_picture_show_all_rows(mixes: ModuleType) -> None:
    rows = [
        mixes.Row("a", {"reviews": 2.5}, dict(zip(mixes.DOMAINS, (1.5, 2.25, 2.5))), {"0-shot nsmc accuracy": 0.5}),
        mixes.Row("b", {"treebank": 0.3}, dict(zip(mixes.DOMAINS, (1.75, 2.0, 2.0))), {"0-shot nsmc accuracy": 0.625}),
    ]
    head, rule, *lines = (
        [cell.strip() for cell in line.strip("|").split("|")] for line in mixes.table(rows).splitlines()
    )
    assert head == ["mix", *mixes.DOMAINS, "mean", "times read", "0-shot nsmc accuracy"] and len(rule) == len(head)
    assert lines[0] == ["a", "**1.500**", "2.250", "2.500", "2.083", "reviews 2.5", "0.500"]
    assert lines[1] == ["b", "1.750", "**2.000**", "**2.000**", "1.917", "treebank 0.3", "0.625"]
    picture = ET.fromstring(mixes.draw(rows))
    dots = picture.findall("{http://www.w3.org/2000/svg}circle")
    places = [(float(dot.get("cx")), float(dot.get("cy"))) for dot in dots]
    assert len(places) == 6 and places[0][1] < places[3][1]
    assert [x for x, _ in places[:3]] == sorted(x for x, _ in places[:3]) and places[4][0] == places[5][0]


def test_its_recipe_is_whole(mixes: ModuleType) -> None:
    recipe = load_recipe(str(mixes.RECIPE))
    assert recipe.name == "mix" and len(recipe.data.train) == 3
    assert recipe.training.num_steps * recipe.tokens_per_step == 3_072_000
    for word in ("Result", "Time", "Command"):
        assert word in recipe.about


@pytest.mark.slow
def test_two_mixes_from_text_to_table(mixes: ModuleType, tmp_path: Path) -> None:
    write_domains(mixes, tmp_path / "text")
    settings = [word for setting in TINY for word in ("--set", setting)]
    command = [sys.executable, ROOT / "benchmarks" / "corpus_mixes.py", tmp_path / "text", "--dir", tmp_path / "work"]
    command += ["--tokens", 8192, "--only", "treebank alone", "--only", "by size", *settings]
    found = json.loads(run(*command, "--json", "--out", tmp_path / "mixes.svg").stdout)
    assert [row["mix"] for row in found["rows"]] == ["treebank alone", "by size"]
    assert sum(found["rows"][0]["passes"].values()) > 0 and set(found["rows"][0]["passes"]) == {"treebank"}
    for row in found["rows"]:
        folder = tmp_path / "work" / "runs-4" / row["mix"].replace(" ", "-")
        for name, bits in row["bits_per_raw_byte"].items():
            text = tmp_path / "work" / "corpora" / name / "test"
            assert json.loads(kogpt2("evaluate", folder, text, "--json").stdout)["bits_per_raw_byte"] == pytest.approx(
                bits, rel=1e-5
            )
    recipes = [load_recipe(str(path)) for path in sorted((tmp_path / "work").glob("runs-4/*/recipe.yaml"))]
    assert len({repr((recipe.model, recipe.training)) for recipe in recipes}) == 1
    again = run(*command, timeout=60)  # nothing is trained again
    assert again.stdout.count("\n") == 4
