"""benchmarks/bits_per_byte.py: all rows are of the same text, and each is what its model's own figures give."""

from __future__ import annotations

import bz2
import importlib
import importlib.util
import json
import lzma
import random
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner

from kogpt2_gluon.corpus.store import Corpus
from tests.convert.convert_helpers import with_rows
from tests.helpers import ROOT

pytestmark = pytest.mark.skipif(importlib.util.find_spec("mxnet") is None, reason="networks need MXNet")


@pytest.fixture(scope="module")
def modules() -> Iterator[tuple[ModuleType, ModuleType]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        yield importlib.import_module("bits_per_byte"), importlib.import_module("compressors")


@pytest.fixture(scope="module")
def network(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random network over the tokens of the shards."""
    tokenizer = (shards / "tokenizer.model").read_bytes()
    return with_rows(tmp_path_factory.mktemp("network"), tokenizer, 1200).path


def printed(program: ModuleType, *arguments: object, code: int = 0) -> str:
    done = CliRunner().invoke(program.main, [str(argument) for argument in arguments])
    assert done.exit_code == code, done.output
    return done.stdout if code == 0 else done.output


def test_all_rows_are_of_one_text(modules: tuple[ModuleType, ModuleType], shards: Path, network: Path) -> None:
    from kogpt2_gluon.inference.evaluation import evaluate_checkpoint

    program, _ = modules
    arguments = [shards / "corpus", "--shards", shards, "--order", 2, "--network", network, "--stride", 16, "--json"]
    found = json.loads(printed(program, *arguments))
    documents = [document.encode() for document in Corpus.open(shards / "corpus").documents("test")]
    raw = sum(map(len, documents))
    assert (found["documents"], found["raw_bytes"]) == (len(documents), raw)
    rows = {row["model"]: row for row in found["rows"]}
    train, test = (program.read_split(Corpus.open(shards / "corpus"), split) for split in ("train", "test"))
    assert test == b"".join(document + b"\n" for document in documents)
    for name, size in (("gzip -9", lambda text: zlib.compress(text, 9)), ("bz2 -9", bz2.compress)):
        bits = 8 * (len(size(train + test)) - len(size(train)))
        assert rows[name]["bits_per_raw_byte"] == pytest.approx(bits / raw) and rows[name]["bits_per_byte"] is None
    for stride in (32, 16):
        [row] = [row for name, row in rows.items() if f"stride {stride} of 32" in name]
        score = evaluate_checkpoint(network, shards / "corpus" / "test", stride=stride)
        for name in ("bits_per_raw_byte", "bits_per_byte"):
            assert row[name] == pytest.approx(getattr(score, name), rel=1e-5)
    ngram = rows["Kneser-Ney 2-gram of tokens"]
    per_byte = score.normalized_bytes / score.raw_bytes
    assert ngram["bits_per_raw_byte"] == pytest.approx(ngram["bits_per_byte"] * per_byte + ngram["restoring"])
    assert ngram["restoring"] == score.restoring_bits / raw


def test_the_table_names_the_best_first_and_what_is_left_out(
    modules: tuple[ModuleType, ModuleType], shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, compressors = modules
    chosen = {name: compressors.COMPRESSORS[name] for name in ("gzip -9", "bz2 -9")}
    monkeypatch.setattr(compressors, "COMPRESSORS", {**chosen, "other": (compressors.xz_size, "no_such_module")})
    lines = printed(program, shards / "corpus").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")][1:]
    assert {row[0] for row in rows} == set(chosen)
    assert [float(row[2]) for row in rows] == sorted(float(row[2]) for row in rows)
    said = CliRunner().invoke(program.main, [str(shards / "corpus")]).output
    assert "left out: other, which needs no_such_module: pip install 'kogpt2-gluon[bench]'" in said


def test_shards_of_another_text_are_refused(
    modules: tuple[ModuleType, ModuleType], shards: Path, tmp_path: Path
) -> None:
    from kogpt2_gluon.corpus.cleaning import clean

    (tmp_path / "text").write_text("".join(f"문장 {number}\n" for number in range(400)), encoding="utf-8")
    clean([tmp_path / "text"], tmp_path / "corpus", "line", test_share=0.2)
    said = printed(modules[0], tmp_path / "corpus", "--shards", shards, "--no-compressors", code=3)
    assert "error:" in said and "shard the corpus again" in said


def sizes_of(module: ModuleType) -> list[str]:
    return [name for name, (_, needs) in module.COMPRESSORS.items() if importlib.util.find_spec(needs)]


def test_a_compressor_learns_from_the_training_text(modules: tuple[ModuleType, ModuleType]) -> None:
    """Coding a text a second time costs less, and never less than nothing."""
    _, compressors = modules
    text = "".join(f"{number * 7919 % 1000} 번째 문장이다.\n" for number in range(300)).encode()
    for name in sizes_of(compressors):
        size = compressors.COMPRESSORS[name][0]
        coded = compressors.coded_after(size, text, text)
        assert coded.alone == 8 * size(text, 2 * len(text))
        assert 0 <= coded.bits < 0.75 * coded.alone, name


def test_xz_has_room_for_all_of_the_text(modules: tuple[ModuleType, ModuleType]) -> None:
    _, compressors = modules
    noise, filters = random.Random(0).randbytes(70_000), [{"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": 1 << 16}]
    assert compressors.xz_size(noise * 2, len(noise) * 2) < 0.6 * len(
        lzma.compress(noise * 2, lzma.FORMAT_RAW, filters=filters)
    )


def sentences(length: int) -> bytes:
    """Made text of so many bytes, without a word that is cut."""
    draw, lines, size = random.Random(0), [], 0
    while size < length:
        lines.append(f"{draw.randrange(10**6)} 번째 {draw.choice('가나다라마바사')} 문장이다.\n".encode())
        size += len(lines[-1])
    return b"".join(lines)[:length]


def test_nothing_is_gained_where_nothing_can_be_learnt(modules: tuple[ModuleType, ModuleType]) -> None:
    """Noise after a text costs its size."""
    _, compressors = modules
    noise = random.Random(1).randbytes(8000)
    for name in sizes_of(compressors):
        coded = compressors.coded_after(compressors.COMPRESSORS[name][0], sentences(60_000), noise)
        assert 0.98 * 8 * len(noise) < coded.bits < 1.3 * 8 * len(noise), name


@pytest.mark.parametrize("power", [16, pytest.param(20, marks=pytest.mark.slow)])
def test_a_power_of_two_between_the_two_texts_changes_nothing(
    modules: tuple[ModuleType, ModuleType], power: int
) -> None:
    """Windows and models that grow with each text's own length would make the longer one cheaper than it is."""
    _, compressors = modules
    below = (1 << power) - 4096
    text = sentences(below + 3000)
    for name in sizes_of(compressors):
        size = compressors.COMPRESSORS[name][0]
        across = compressors.coded_after(size, text[: below - 1000], text[below - 1000 : below + 3000])
        before = compressors.coded_after(size, text[: below - 5000], text[below - 5000 : below - 1000])
        assert across.bits == pytest.approx(before.bits, rel=0.2), name
