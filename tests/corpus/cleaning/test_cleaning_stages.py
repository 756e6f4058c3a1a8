"""The stages of a cleaning: duplicate lines, near duplicates, splits, samples, and hostile text from end to end."""

from __future__ import annotations

import gzip
import json
import os
import random
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kogpt2_gluon.corpus.cleaning import clean, load_options, split_of
from kogpt2_gluon.corpus.sources import Source
from kogpt2_gluon.corpus.store import Corpus
from kogpt2_gluon.errors import DataError, RecipeError
from tests.corpus.cleaning.cleaning_helpers import (
    WORDS,
    check_counts,
    folder_in_memory,
    small_parts,
    write,
    write_documents,
)
from tests.helpers import kogpt2


def lines_model(texts: list[str], shortest: int) -> list[str]:
    """Lines that an earlier remaining document has go, then documents that are equal to earlier ones."""
    texts = list(dict.fromkeys(texts))
    first: dict[str, int] = {}
    for number, text in enumerate(texts):
        for line in text.split("\n"):
            first.setdefault(line, number)
    edited = [
        "\n".join(line for line in text.split("\n") if len(line) < shortest or first[line] == number)
        for number, text in enumerate(texts)
    ]
    return [text for text in dict.fromkeys(edited) if text]


line_texts = st.sampled_from(["가", "나다", "long line", "another long one", "긴 줄이 여기 있다", "x"])


@settings(deadline=None, derandomize=True, max_examples=30)
@given(st.lists(st.lists(line_texts, min_size=1, max_size=6), min_size=1, max_size=30), st.sampled_from([60, 10**6]))
def test_duplicate_lines_against_a_model(texts: list[list[str]], part_bytes: int) -> None:
    cleaned = ["\n".join(line for i, line in enumerate(text) if not i or line != text[i - 1]) for text in texts]
    options = load_options(None, ["duplicate_lines.enabled=true", "duplicate_lines.min_chars=5"])
    with folder_in_memory() as name, pytest.MonkeyPatch.context() as patch:
        small_parts(patch, 50, part_bytes)
        source = write(Path(name) / "a.txt", "\n\n".join("\n".join(text) for text in texts).encode())
        report = clean([source], Path(name) / "out", "blank-line", 0, options=options)
        check_counts(report, Path(name) / "out")
        assert list(Corpus.open(Path(name) / "out").documents("train")) == lines_model(cleaned, 5)
        assert report.documents.read == len(texts)


def test_lines_of_a_line_corpus_and_the_split_after_them(tmp_path: Path) -> None:
    """One-line documents that lose their line are gone; the split is that of the text as it is written."""
    texts = [f"제목 {number % 40}\n본문의 긴 줄 {number % 37}\n끝 {number}" for number in range(300)]
    source = write(tmp_path / "a.txt", "\n\n".join(texts).encode())
    options = load_options(None, ["duplicate_lines.enabled=true", "duplicate_lines.min_chars=7"])
    report = clean([source], tmp_path / "out", "blank-line", 0.3, options=options)
    corpus = Corpus.open(tmp_path / "out")
    assert report.lines.dropped == {"duplicate_lines": 300 - 37}
    for split in ("train", "test"):
        assert all(split_of(text.encode(), 0.3) == split for text in corpus.documents(split))
    samples = [row for row in report.samples if row["reason"] == "duplicate_lines"]
    assert len(samples) == 20 and all(str(row["before"]).startswith("본문의 긴 줄 ") for row in samples)


def test_near_duplicates_go_and_are_shown(tmp_path: Path) -> None:
    words = random.Random(5)
    texts = [" ".join(words.choices(WORDS, k=80)) for _ in range(50)]
    copies = [text + " 끝" for text in texts[:10]]
    source = write(tmp_path / "a.txt", "\n".join([*texts, *copies]).encode())
    report = clean([source], tmp_path / "out", "line", 0, options=load_options(None, ["near_duplicates.enabled=true"]))
    check_counts(report, tmp_path / "out")
    assert report.documents.dropped == report.lines.dropped == {"near_duplicate": 10}
    assert list(Corpus.open(tmp_path / "out").documents("train")) == texts
    rows = [json.loads(row) for row in (tmp_path / "out" / "dropped.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 10 and all(row["jaccard"] >= 0.8 and row["kept_in"] == str(source) for row in rows)


def test_samples_and_counts_by_source(tmp_path: Path) -> None:
    one = write(tmp_path / "one.jsonl", "\n".join(json.dumps({"text": f"글 {n % 60}"}) for n in range(100)).encode())
    two = write(tmp_path / "two.jsonl", b'{"text": 3}\n{broken\n{"text": "\\ud800 half"}\n\n' + one.read_bytes())
    report = clean([one, two], tmp_path / "out", "text", 0)
    check_counts(report, tmp_path / "out")
    assert [source.documents.read for source in report.sources] == [100, 104]
    assert report.sources[0].documents.dropped == {"duplicate": 40}
    assert report.sources[1].documents.dropped == {"duplicate": 100, "field_not_text": 1, "bad_json": 1, "empty": 1}
    assert [source.changed["normalize"] for source in report.sources] == [0, 1]
    assert [source.documents.kept["train"] for source in report.sources] == [60, 1]
    rows = [json.loads(row) for row in (tmp_path / "out" / "dropped.jsonl").read_text(encoding="utf-8").splitlines()]
    assert rows == report.samples
    duplicates = [row["before"] for row in rows if row["reason"] == "duplicate"]
    assert len(duplicates) == len(set(duplicates)) == 20
    assert {(row["reason"], row["line"]) for row in rows if "line" in row} == {
        ("field_not_text", 1),
        ("bad_json", 2),
        ("empty", 4),
    }
    assert [row["before"] for row in rows if row["reason"] == "normalize"] == ["\ud800 half"]


# --- the splits by folder


def test_split_by_folder(tmp_path: Path) -> None:
    layout = tmp_path / "test" / "data"  # a name above the nearest one says nothing
    write(layout / "train" / "wiki_news_corpus_aa", "가\n나\n다\n".encode())
    write(layout / "train" / "wiki_news_corpus_ab", "라\n".encode())
    write(layout / "test" / "wiki_news_corpus_aa", "나\n마\n".encode())
    report = clean([layout], tmp_path / "out", "line", split="folder")
    check_counts(report, tmp_path / "out")
    corpus = Corpus.open(tmp_path / "out")
    assert list(corpus.documents("test")) == ["나", "마"]  # read first, so the train split loses its copy
    assert list(corpus.documents("train")) == ["가", "다", "라"]
    assert corpus.about["split"] == "folder"
    loose = write(tmp_path / "loose.txt", b"x")
    with pytest.raises(RecipeError, match=r"--split folder, but no folder above it is called train or test"):
        clean([Path(os.path.relpath(loose))], tmp_path / "out2", "line", split="folder")


# --- hostile text, from end to end


def hostile_sources(folder: Path) -> Path:
    records = ["\ud800 half a pair \udfff", "a\0b\0", unicodedata.normalize("NFD", "한글 맞춤법"), "", "\0", "\u3164"]
    records += [
        "가" * 3_400_000,
        "\n".join(["줄"] * 1000),
        "x\n" * 1000,
        "\ufdfa" * 1000,
        "ㅋ" * 100_000,
        "<" * 100_000,
    ]
    data = "\n".join(json.dumps({"text": text}) for text in records) + "\n" + "[" * 5000 + '\n{"text": {}}\n'
    write(folder / "a.jsonl", data.encode())
    write(folder / "b.jsonl", b"")
    write(folder / "c.jsonl", b"\xef\xbb\xbf")
    write(folder / "d.jsonl", b"\n\n\n")
    write(folder / "e.jsonl", b'{"text": "' + b"a" * 10_000_000 + b'"}')
    (folder / "nothing" / "at" / "all").mkdir(parents=True)
    return folder


def test_hostile_text_through_clean_and_shard(tmp_path: Path, small_tokenizer: bytes) -> None:
    from kogpt2_gluon.shards.sharding import shard_corpus

    sources = hostile_sources(tmp_path / "in")
    options = load_options(None, ["duplicate_lines.enabled=true", "near_duplicates.enabled=true"])
    report = clean([sources], tmp_path / "out", "text", 0, options=options)
    check_counts(report, tmp_path / "out")
    assert report.documents.read == 14 + 1 + 3 + 1
    assert report.documents.dropped == {"empty": 3 + 1 + 3, "bad_json": 1, "field_not_text": 1}
    model = write(tmp_path / "tokenizer.model", small_tokenizer)
    manifest = shard_corpus(tmp_path / "out", model, tmp_path / "shards", "train")
    assert manifest.documents == report.documents.kept["train"]
    with pytest.raises(DataError, match="a folder without any file"):
        clean([tmp_path / "in" / "nothing"], tmp_path / "out2", "text")
    with pytest.raises(DataError, match=r"no document is left of 0 \(nothing to read\)"):
        clean([tmp_path / "in" / "b.jsonl"], tmp_path / "out2", "text")
    with pytest.raises(DataError, match=r"no document is left of 3 \(3 empty\)"):
        clean([tmp_path / "in" / "d.jsonl"], tmp_path / "out2", "text", options=options)
    assert not list(tmp_path.glob("out2*"))


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    name = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xb0\xa1.txt")
    write(Path(name), b"a\nb\n\xff\na\n")
    done = kogpt2("clean", name, "--documents", "line", "--out", tmp_path / "out", "--processes", "1")
    assert "not UTF-8 at 1 places" in done.stdout
    assert os.fsencode(name) in (tmp_path / "out" / "bad_utf8.tsv").read_bytes()
    assert Corpus.open(tmp_path / "out").about["sources"][0]["path"] == name


def test_the_verb(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_documents(tmp_path / "in" / split / "a.txt", 200, seed=len(split))
    command = ["clean", tmp_path / "in", "--documents", "blank-line", "--out", tmp_path / "out", "--split", "folder"]
    done = kogpt2(*command, "--filters", "web", "--set", "length.min_chars=2", "--processes", "2")
    assert "dropped: duplicate" in done.stdout and "kept: test" in done.stdout
    said = done.stderr.splitlines()
    assert all(line.startswith("cleaning: ") for line in said) and said[-1].endswith("MB/s")
    page = (tmp_path / "out" / "cleaning.html").read_text(encoding="utf-8")
    assert "duplicate" in page and "train/a.txt" in page and "<script" not in page
    assert Corpus.open(tmp_path / "out").about["options"]["length"]["min_chars"] == 2
    kogpt2(*command, code=2)
    assert "leave one of the two out" in kogpt2(*command, "--test-share", "0.1", code=2).stderr
    kogpt2(*command, "--overwrite", "--restart")
    assert "no preset of that name" in kogpt2(*command, "--filters", "wbe", code=2).stderr
    assert not (tmp_path / "out.work").exists()


def test_a_split_without_documents_is_remarked_on(tmp_path: Path) -> None:
    source = write(tmp_path / "in" / "train" / "a.txt", b"a\nb\n")
    by_folder = clean([source], tmp_path / "one", "line", split="folder")
    assert "fell to the test split: nothing to evaluate on; name sources below a folder test/" in by_folder.summary()
    assert Corpus.open(tmp_path / "one").about["test_share"] is None
    assert "to evaluate on; raise --test-share" in clean([source], tmp_path / "two", "line", 1e-9).summary()
    assert "--test-share" not in clean([source], tmp_path / "none", "line", 0).summary()
    source = write(tmp_path / "in" / "test" / "a.txt", b"a\nb\n")
    only_test = clean([source], tmp_path / "three", "line", split="folder").summary()
    assert "nothing to train on; name sources below a folder train/" in only_test and "evaluate" not in only_test


@pytest.mark.parametrize("out", ["s3://bucket/corpus", "s3:/bucket/corpus"])
def test_no_corpus_is_written_to_s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str) -> None:
    monkeypatch.chdir(tmp_path)
    source = write(tmp_path / "a.txt", b"a\n")
    with pytest.raises(
        RecipeError, match=r"--out s3://bucket/corpus: .* kogpt2 files upload FOLDER s3://bucket/corpus"
    ):
        clean([source], Path(out), "line")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_equal_documents_are_never_in_both_splits(tmp_path: Path) -> None:
    """By folder, too: nearly the same as one held out is as bad as the same."""
    words = random.Random(3)
    texts = [" ".join(words.choices(WORDS, k=80)) for _ in range(40)]
    write(tmp_path / "in" / "test" / "a.txt", "\n".join(texts[:20]).encode())
    train = [*texts, *(text + " 끝" for text in texts[:10])]
    write(tmp_path / "in" / "train" / "a.txt", "\n".join(train).encode())
    options = load_options(None, ["near_duplicates=true"])
    report = clean([tmp_path / "in"], tmp_path / "out", "line", options=options, split="folder")
    check_counts(report, tmp_path / "out")
    corpus = Corpus.open(tmp_path / "out")
    assert list(corpus.documents("test")) == texts[:20] and list(corpus.documents("train")) == texts[20:]
    assert report.documents.dropped == {"duplicate": 20, "near_duplicate": 10}


def test_the_verb_reads_s3_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    boto3 = pytest.importorskip("boto3", reason="reads from S3")
    moto = pytest.importorskip("moto", reason="plays S3")
    from click.testing import CliRunner

    from kogpt2_gluon.cli.main import cli
    from kogpt2_gluon.storage import s3

    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    small_parts(monkeypatch)
    s3._make_client.cache_clear()
    data = {}
    for number in range(3):
        text = write_documents(tmp_path / "local" / f"{number}.txt", 80, number).read_bytes()
        rows = [json.dumps({"text": part.decode(errors="replace")}) for part in text.split(b"\n\n") if part]
        data[f"{number}.jsonl"] = "\n".join(rows).encode()
        (tmp_path / "local" / f"{number}.txt").unlink()
        write(tmp_path / "local" / f"{number}.jsonl", data[f"{number}.jsonl"])
    data["2.jsonl.gz"] = gzip.compress(data.pop("2.jsonl"), mtime=0)
    command = ["clean", "s3://news/raw", "--documents", "text", "--out", str(tmp_path / "out"), "--processes", "1"]
    command += ["--set", "near_duplicates=true", "--set", "duplicate_lines=true"]
    try:
        with moto.mock_aws():
            client = boto3.client("s3")
            client.create_bucket(Bucket="news")
            for name, content in data.items():
                client.put_object(Bucket="news", Key=f"raw/{name}", Body=content)
            with monkeypatch.context() as broken:
                broken.setattr(Source, "open", _fail_at(Source.open, "raw/2.jsonl.gz"))
                failed = CliRunner().invoke(cli, command)
            assert isinstance(failed.exception, DataError) and (tmp_path / "out.work" / "part-00001").is_dir()
            opened: list[str] = []
            monkeypatch.setattr(Source, "open", _fail_at(Source.open, "", opened))
            done = CliRunner().invoke(cli, command, catch_exceptions=False)
            assert done.exit_code == 0 and "s3://news/raw/0.jsonl" not in opened
            client.put_object(Bucket="news", Key="raw/1.jsonl", Body=b"{}")  # no part of a finished corpus any more
            missing = CliRunner().invoke(cli, [*command[:1], "s3://news/none", *command[2:-6], "--overwrite"])
            assert isinstance(missing.exception, DataError) and "s3://news/none: no such object" in str(
                missing.exception
            )
    finally:
        s3._make_client.cache_clear()
    options = load_options(None, ["near_duplicates=true", "duplicate_lines=true"])
    report = clean([tmp_path / "local"], tmp_path / "local-out", "text", options=options)
    check_counts(report, tmp_path / "local-out")
    remote, local = Corpus.open(tmp_path / "out"), Corpus.open(tmp_path / "local-out")
    for split in ("train", "test"):
        assert list(remote.documents(split)) == list(local.documents(split))
    assert remote.about["counts"] == local.about["counts"]
    assert not (tmp_path / "out.work").exists() and "near_duplicate" in done.output


def _fail_at(real: Any, name: str, opened: list[str] | None = None) -> Any:
    def open_source(self: Source, on_read: Any = None) -> Any:
        if opened is not None:
            opened.append(self.name)
        if name and self.name.endswith(name):
            raise DataError(f"{self.name}: the network is gone")
        return real(self, on_read)

    return open_source
