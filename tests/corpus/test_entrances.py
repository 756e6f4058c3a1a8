"""Every entrance of text, every form of a file, every encoding, in one table: what is read, and what is refused.

A new form, kind or encoding that has no sample here fails the first test.
"""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Callable, Optional

import boto3
import moto
import pytest

from kogpt2_gluon.corpus.admission import admit
from kogpt2_gluon.corpus.cleaning import clean
from kogpt2_gluon.corpus.documents import read_documents
from kogpt2_gluon.corpus.encodings import ENCODINGS
from kogpt2_gluon.corpus.first_look import look
from kogpt2_gluon.corpus.formats import KINDS, kind_of
from kogpt2_gluon.corpus.forms import BINARY_FORMS, FORMS, TEXT_FORMS
from kogpt2_gluon.corpus.records import Document
from kogpt2_gluon.corpus.sources import local_source
from kogpt2_gluon.corpus.store import Corpus
from kogpt2_gluon.errors import DataError, KoGPT2Error
from kogpt2_gluon.machine.worker import Worker
from kogpt2_gluon.reading.text.files import TextChoice, TextFiles, list_text_files
from kogpt2_gluon.reading.text.held_out import TextOptions, open_held_out_text
from kogpt2_gluon.recipe import parse_recipe
from kogpt2_gluon.storage import s3
from kogpt2_gluon.tokens.tokenizer import Tokenizer
from kogpt2_gluon.training.dry_run import check as check_data
from tests.corpus.form_samples import BINARY, TEXTS, WRITTEN, arrow_tables, paragraphs

# The user's word for each kind, and what its texts look like where that is not what WRITTEN makes.
WORDS = {**{name: name for name in KINDS}, "FIELD": "text", "separator:TEXT": "separator:<끝>"}
OWN_TEXT: dict[str, Callable[[list[str]], str]] = {"blank-line": paragraphs, "separator:<끝>": "\n<끝>\n".join}
# What a kind makes of them, where that is not the texts themselves.
EXPECTED = {"file": ["\n".join(TEXTS)], "wikitext": [f"제목\n{each}" for each in TEXTS]}
LOOSE = {("wikitext", "text"), ("file", "wikitext")}  # read as well, but what comes out is not the texts
PATHS = {"json-object": "document[].paragraph[].form"}  # where a field is a path
MARKS = {"utf-8": b"\xef\xbb\xbf", "utf-16-le": b"\xff\xfe", "utf-16-be": b"\xfe\xff", "utf-32-le": b"\xff\xfe\0\0"}
STORED = {
    "utf-8": "utf-8",
    "utf-8 with mark": "utf-8",
    "cp949": "cp949",
    "utf-16-le": "utf-16-le",
    "utf-16-le with mark": "utf-16-le",
    "utf-16-be": "utf-16-be",
    "utf-16-be with mark": "utf-16-be",
    "utf-32-le with mark": "utf-32-le",
}
LINE_ENDS = ("\n", "\r\n", "\r")


def stored(text: str, how: str, line_end: str = "\n") -> bytes:
    encoding = STORED[how]
    return (MARKS[encoding] if "mark" in how else b"") + text.replace("\n", line_end).encode(encoding)


def cases() -> Iterator[tuple[str, str, str]]:
    """Every word for documents, every form of text that its kind reads, and the text."""
    for kind, word in WORDS.items():
        for form in kind_of(word).forms:
            if form in TEXT_FORMS:
                path = PATHS.get(form, word) if kind == "FIELD" else word
                if (word, form) not in LOOSE:
                    yield path, form, OWN_TEXT.get(word, WRITTEN[form])(TEXTS)


def test_the_table_is_whole() -> None:
    assert set(WRITTEN) == set(TEXT_FORMS) and set(BINARY) == set(BINARY_FORMS)
    assert {word for word, *_ in cases()} == {*WORDS.values(), *PATHS.values()}
    assert set(STORED.values()) >= set(ENCODINGS) - {"johab", "utf-16", "utf-32"}


# --- the entrances: each returns the documents that it reads from a file, or raises

Entrance = Callable[[Path, str], Optional[list[str]]]


def by_clean(path: Path, documents: str) -> list[str]:
    out = path.parent.with_name("corpus")
    shutil.rmtree(out, ignore_errors=True)
    clean([path], out, documents, test_share=0)
    return list(Corpus.open(out).documents("train"))


def _documents(files: TextFiles, documents: str) -> list[str]:
    items = (item for source in files.sources for item in read_documents(source, documents))
    return [item.text for item in items if isinstance(item, Document)]


def by_text_at_the_start(path: Path, documents: str) -> list[str]:
    return _documents(list_text_files(TextChoice((str(path),), documents), Worker()), documents)


def by_text_at_a_refresh(path: Path, documents: str) -> list[str]:
    """The file is new in a later epoch: refused, it is left out with a remark, and the run goes on."""
    first = path.parent.with_name("first")
    first.mkdir(exist_ok=True)
    form = "json-object" if documents in PATHS.values() else kind_of(documents).forms[0]
    (first / "old").write_text(OWN_TEXT.get(documents, WRITTEN[form])(["처음부터 있던 글이다."] * 3), encoding="utf-8")
    before = list_text_files(TextChoice((str(first),), documents), Worker())
    after = list_text_files(TextChoice((str(first), str(path)), documents), Worker(), before)
    new = [source for source in after.sources if source.name == str(path)]
    if not new:
        raise DataError(next(remark for remark in after.remarks if str(path) in remark))
    return _documents(TextFiles(tuple(new)), documents)


def by_dry_run(path: Path, documents: str) -> None:
    data = {"source": "text", "train": str(path), "tokenizer": str(MODEL[0]), "seq_length": 8, "documents": documents}
    check_data(parse_recipe({"data": data, "model": {"vocab_size": 1200}}))


def by_evaluate(path: Path, documents: str) -> list[str]:
    text, _ = open_held_out_text(path, TextOptions(documents), Tokenizer.load(MODEL[0]), 8)
    for _ in text.batches(64):
        pass
    assert not text.describe_left_out()
    return [""] * text.documents


def by_s3(path: Path, documents: str) -> list[str]:
    boto3.client("s3").put_object(Bucket="texts", Key=f"raw/{path.name}", Body=path.read_bytes())
    out = path.parent.with_name("corpus")
    shutil.rmtree(out, ignore_errors=True)
    clean([f"s3://texts/raw/{path.name}"], out, documents, test_share=0)
    return list(Corpus.open(out).documents("train"))


ENTRANCES: dict[str, Entrance] = {
    "clean": by_clean,
    "text, start": by_text_at_the_start,
    "text, refresh": by_text_at_a_refresh,
    "dry run": by_dry_run,
    "evaluate": by_evaluate,
    "s3": by_s3,
}
MODEL: list[Path] = []


@pytest.fixture(autouse=True)
def world(shards: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[None]:
    MODEL[:] = [shards / "tokenizer.model"]
    if "s3" not in request.node.name:
        yield
        return
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    s3._make_client.cache_clear()
    with moto.mock_aws():
        boto3.client("s3").create_bucket(Bucket="texts")
        yield
    s3._make_client.cache_clear()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


@pytest.mark.parametrize("entrance", ENTRANCES)
def test_every_kind_is_read_in_every_encoding(folder: Path, entrance: str) -> None:
    for word, form, written in cases():
        ways = [(how, "\n") for how in STORED] + [(how, end) for how in ("utf-8", "utf-16-be") for end in LINE_ENDS[1:]]
        for number, (how, line_end) in enumerate(ways if entrance != "s3" else ways[::4]):
            # No suffix helps: the content says what a file is. Every other one is compressed as well.
            path = folder / f"{form}-{number}"
            data = stored(written, how, line_end)
            path.write_bytes(gzip.compress(data) if number % 2 else data)
            assert look(local_source(path)).form == form, (word, form, how, line_end)
            found = ENTRANCES[entrance](path, word)
            if entrance == "evaluate":
                assert found is not None and len(found) == len(EXPECTED.get(word, TEXTS)), (word, form, how)
            elif found is not None:
                assert found == EXPECTED.get(word, TEXTS), (word, form, how, line_end)
            path.unlink()


@pytest.mark.parametrize("entrance", ENTRANCES)
def test_tables_that_are_not_text_are_read_at_every_entrance(folder: Path, entrance: str) -> None:
    made = arrow_tables(TEXTS)
    if not made:
        pytest.skip("pyarrow is not installed")
    assert set(made) == set(kind_of("text").forms) - set(TEXT_FORMS)
    for form, content in made.items():
        path = folder / form
        path.write_bytes(content)
        assert look(local_source(path)).form == form
        found = ENTRANCES[entrance](path, "text")
        assert found is None or (len(found) == len(TEXTS) if entrance == "evaluate" else found == TEXTS), form


@pytest.mark.parametrize("entrance", ENTRANCES)
def test_every_other_form_is_refused_by_name(folder: Path, entrance: str) -> None:
    samples = {form: [make(TEXTS).encode()] for form, make in WRITTEN.items()} | BINARY
    for form, contents in samples.items():
        for documents in ("line", "wikipedia"):
            if form in kind_of(documents).forms or form == "empty":
                continue
            for number, content in enumerate(contents):
                path = folder / f"{form}-{number}.txt"
                path.write_bytes(content)
                with pytest.raises(KoGPT2Error) as refused:
                    ENTRANCES[entrance](path, documents)
                message = str(refused.value)
                assert FORMS[form].what in message and path.name in message, (form, message)
                assert message.count("\n") == 0 and "{" not in message, message
                path.unlink()


def _is_text(content: bytes) -> bool:
    return b"\n" in content and min(content) >= 9


@pytest.mark.parametrize("suffix", ["", ".txt", ".json", ".csv", ".gz", ".tar"])
def test_content_decides_not_the_suffix(folder: Path, suffix: str) -> None:
    samples = {form: [make(TEXTS).encode()] for form, make in WRITTEN.items()} | BINARY
    for form, contents in samples.items():
        for content in contents:
            path = folder / f"a{suffix}"
            path.write_bytes(content)
            if form in ("binary", "unknown", "empty", "shard") and suffix == ".gz" and not _is_text(content):
                with pytest.raises(DataError, match=r"a\.gz: (damaged|truncated)"):
                    look(local_source(path))
            else:
                assert look(local_source(path)).form == form, (form, suffix)


def test_a_corpus_that_is_none_is_named_as_what_it_is(folder: Path) -> None:
    """`kogpt2 tokenizer` and `kogpt2 shard` take a cleaned corpus."""
    samples = {form: make(TEXTS).encode() for form, make in WRITTEN.items()}
    samples |= {form: contents[0] for form, contents in BINARY.items() if form not in ("empty", "archive-part")}
    for form, content in samples.items():
        path = folder / "data"
        path.write_bytes(content)
        for named in (path, folder):
            with pytest.raises(KoGPT2Error, match="not a cleaned corpus") as refused:
                Corpus.open(named)
            assert FORMS[form].what in str(refused.value), form
        if "--documents" in FORMS[form].way:
            assert f"kogpt2 clean {folder} --out CORPUS (" in str(refused.value)
    for named, words in (
        ("s3:/texts/corpus", "kogpt2 files download s3://texts/corpus"),
        ("nowhere", "no such folder"),
    ):
        with pytest.raises(KoGPT2Error, match=words):
            Corpus.open(Path(named))


def test_all_refused_files_are_counted_and_the_others_named_as_a_way(folder: Path) -> None:
    for n in range(40):
        (folder / f"{n:02d}.txt").write_text(f"{n}번째 글이다.\n", encoding="utf-8")
    for n in range(3):
        (folder / f"x{n}.pdf").write_bytes(BINARY["pdf"][0])
    found = admit([local_source(path) for path in sorted(folder.iterdir())], KINDS["line"])
    assert len(found.sources) == 40 and len(found.refused) == 3
    with pytest.raises(DataError, match=r"x0\.pdf: a PDF; .*; 2 more cannot be read; 40 others can: --exclude"):
        found.check()


def test_any_shape(folder: Path) -> None:
    """Text that looks like something else at first sight."""
    plain = {
        "news in brackets": "[속보] 오늘 비가 온다.\n[단독] 내일은 갠다.\n" * 9,
        "a reference": "[1] 김가나, 2020.\n[2] 이다라, 2021.\n" * 5,
        "braces": "{중괄호} 안의 글이다.\n" * 9,
        "commas": "".join(f"{n}번째, 그리고, 또 하나.\n" for n in range(30)),
        "one tab": "제목\t부제\n" + "본문은 길고 탭이 없다.\n" * 20,
        "less than": "a<b 이고 c>d 이다.\n" * 9,
        "a name": "ID3 태그와 PAR1 파일, RIFF, GIF89a 이야기.\n" * 5,
        "BZh": "BZh9 는 압축의 표시이다.\n" * 5,
        "one word": "가",
    }
    for name, text in plain.items():
        path = folder / "a"
        path.write_text(text, encoding="utf-8")
        assert look(local_source(path)).form == "text", name
    shaped = {
        '{"text": "가"}': "json-lines",
        '\n\n{"a": 1}\n{"a": 2}\n': "json-lines",
        '{broken\n{"a": 1}\n{"a": 2}\n{"a": 3}\n': "json-lines",
        '{\n "data": [\n  {"a": 1}\n ]\n}\n': "json-object",
        '{"data": [{"a": 1}]}': "json-object",
        "[]": "json-array",
        '["가", "나"]': "json-array",
        "[1, 2]": "json-array",
        '[[{"sentence": "가"}]]': "json-array",
        '[{"a": "' + "가" * 100_000: "json-array",
        "id\ttext\n" + "1\t가\n" * 9: "tsv",
        ",text,label\n" + '0,"가, 나",1\n' * 9: "csv",
        "<html><head>": "html",
        "\ufeff<!doctype html>": "html",
        ' \n<doc id="5">\n': "doc-files",
        "<mediawiki>\n": "xml-dump",
        "<?xml version='1.0'?><a>": "xml",
        " \n\t\r\n": "empty",
    }
    for text, form in shaped.items():
        path.write_text(text, encoding="utf-8")
        assert look(local_source(path)).form == form, text[:40]
