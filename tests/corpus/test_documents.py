"""Documents: their places are right, blocks lose nothing, and reading resumes where it stopped."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import pickle
from pathlib import Path
from typing import Callable

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kogpt2_gluon.corpus import records as records_module
from kogpt2_gluon.corpus.documents import read_blocks, read_documents
from kogpt2_gluon.corpus.formats import KINDS, kind_of
from kogpt2_gluon.corpus.records import Block, Document, Item, Rejection, make_block
from kogpt2_gluon.corpus.sources import local_source
from kogpt2_gluon.errors import DataError

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.compress,
}
PAGE = """  <page>
    <title>{n}</title><ns>{ns}</ns><id>{n}</id>
    <revision><model>wikitext</model><text xml:space="preserve">{text}</text></revision>
  </page>
"""


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def wikipedia(texts: list[str]) -> bytes:
    escaped = [text.replace("&", "&amp;").replace("<", "&lt;") for text in texts]
    pages = "".join(PAGE.format(n=n, ns=n % 3 // 2, text=text) for n, text in enumerate(escaped))
    return f"<mediawiki>\n  <siteinfo>\n  </siteinfo>\n{pages}</mediawiki>\n".encode()


def namuwiki(texts: list[str]) -> bytes:
    pages = [{"namespace": str(n % 2), "title": "가", "text": text, "contributors": []} for n, text in enumerate(texts)]
    return json.dumps(pages, ensure_ascii=bool(len(texts) % 2), indent=len(texts) % 3 or None).encode()


def modu(texts: list[str]) -> bytes:
    made = [{"id": "a", "paragraph": [{"form": line} for line in text.split("\n")]} for text in texts]
    return json.dumps({"id": "N", "metadata": {"document": "[{"}, "document": made}, ensure_ascii=False).encode()


def json_lines(texts: list[str]) -> bytes:
    return "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()


def array(texts: list[str]) -> bytes:
    return json.dumps([{"text": text} for text in texts], indent=len(texts) % 2 or None).encode()


def csv_table(texts: list[str]) -> bytes:
    out = io.StringIO(newline="")
    csv.writer(out).writerows([("id", "text"), *enumerate(texts)])
    return out.getvalue().encode()


def plain(texts: list[str]) -> bytes:
    return "\n".join(texts).encode()


# name -> (--documents, suffix, how texts become a file)
SOURCES = {
    "line": ("line", ".txt", plain),
    "blank-line": ("blank-line", ".txt", plain),
    "field": ("text", ".jsonl", json_lines),
    "array": ("text", ".json", array),
    "csv": ("text", ".csv", csv_table),
    "wikipedia": ("wikipedia", ".xml", wikipedia),
    "namuwiki": ("namuwiki", ".json", namuwiki),
    "modu": ("modu", ".json", modu),
}
TEXT = st.text(st.sampled_from('가나 \n\t\r"\\{}[],:=|*<>&a1한'), max_size=60)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records_module, "BLOCK_BYTES", 64)


def items_of(blocks: list[Block], documents: str) -> list[Item]:
    return [item for block in blocks for item in kind_of(documents).parse_block(block)]


def test_lines_and_their_places(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", b"\xef\xbb\xbf" + "하나\r\n".encode() + b"\n" + b"ab\xff\xfe\n" + "끝".encode())
    name = str(path)
    assert list(read_documents(path, "line")) == [
        Document("하나", name, 1, 3),
        Document("", name, 2, 11),
        Rejection("bad_utf8", name, 3, 12, (14,)),
        Document("끝", name, 4, 17),
    ]
    assert list(read_documents(write(tmp_path / "b.txt", b"\xef\xbb\xbf"), "line")) == [
        Document("", str(tmp_path / "b.txt"), 1, 3)
    ]
    assert list(read_documents(write(tmp_path / "c.txt", b""), "line")) == []


def test_paragraphs_and_their_places(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", b"\n\nab\ncd\n \t\r\n\n\xff\nef\n\nx\xff\n\n\nlast")
    name = str(path)
    expected = [
        Document("ab\ncd", name, 3, 2),
        Document("ef", name, 7, 13, (13,)),
        Rejection("bad_utf8", name, 10, 19, (20,)),
        Document("last", name, 13, 24),
    ]
    assert list(read_documents(path, "blank-line")) == expected


def test_fields_and_their_places(tmp_path: Path) -> None:
    records = [
        b'{"text": "a\\nb", "n": 1}',
        b"",
        b"{broken",
        b'{"other": "a"}',
        b'{"text": 3}',
        b'["text"]',
        b'{"text": "\xff"}',
        b"[" * 100_000,
        b'{"text": "\\ud800 \\u0000"}',
    ]
    path = write(tmp_path / "a.jsonl.gz", gzip.compress(b"\xef\xbb\xbf" + b"\n".join(records)))
    items = list(read_documents(path, "text"))
    assert [item.reason if isinstance(item, Rejection) else item.text for item in items] == [
        "a\nb",
        "empty",
        "bad_json",
        "missing_field",
        "field_not_text",
        "missing_field",
        "bad_utf8",
        "bad_json",
        "\ud800 \x00",
    ]
    data = gzip.decompress(path.read_bytes())
    assert [item.line for item in items] == list(range(1, 10))
    assert all(data[item.offset :].startswith(record) for item, record in zip(items, records))
    assert items[6].bad_utf8 == (data.index(b"\xff"),)


def test_a_field_may_bear_the_name_of_a_format(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", b'{"modu": "x", "line": "y"}\n')
    assert [item.text for item in read_documents(path, "field:modu") if isinstance(item, Document)] == ["x"]
    assert [item.text for item in read_documents(path, "field:line") if isinstance(item, Document)] == ["y"]


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data(), st.sampled_from(sorted(SOURCES)), st.sampled_from(sorted(PACKERS)), st.lists(TEXT, max_size=12))
def test_any_block_is_a_place_to_begin_again(
    tmp_path: Path, small_blocks: None, data: st.DataObject, kind: str, packing: str, texts: list[str]
) -> None:
    documents, suffix, make = SOURCES[kind]
    path = write(tmp_path / f"a{suffix}{packing}", PACKERS[packing](make(texts)))
    source = local_source(path)
    blocks = list(read_blocks(source, kind_of(documents)))
    assert pickle.loads(pickle.dumps(blocks)) == blocks
    for earlier, later in zip(blocks, blocks[1:]):
        assert earlier.next_start == (later.line, later.offset)
    if blocks:
        place = data.draw(st.integers(0, len(blocks) - 1))
        read: list[int] = []
        rest = list(read_blocks(source, kind_of(documents), read.append, blocks[place].next_start))
        assert rest == blocks[place + 1 :]
        if not packing:
            assert sum(read) == source.size
    whole = items_of(blocks, documents)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records_module, "BLOCK_BYTES", 1 << 20)
        assert items_of(list(read_blocks(source, kind_of(documents))), documents) == whole
    if kind not in ("line", "blank-line"):
        assert len(whole) == len(texts)
    lines = make(texts).split(b"\n")
    for item in whole:
        assert len(b"\n".join(lines[: item.line - 1])) <= item.offset <= len(b"\n".join(lines[: item.line]))


@settings(
    max_examples=200, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.sampled_from([b"a", b"\n", b" ", b"\r\n", b"\xff", b"\t", "가".encode(), b"b" * 30]), max_size=40))
def test_lines_and_paragraphs_of_any_bytes(tmp_path: Path, small_blocks: None, pieces: list[bytes]) -> None:
    data = b"".join(pieces)
    source = local_source(write(tmp_path / "a.txt", data))
    for documents in ("line", "blank-line"):
        assert b"".join(block.data for block in read_blocks(source, kind_of(documents))) == data
    lines = [line.rstrip(b"\r\n") for line in data.splitlines(keepends=True)] if b"\r" not in data else None
    items = items_of(list(read_blocks(source, KINDS["line"])), "line")
    if lines is not None:
        assert [data[item.offset :].startswith(line) for item, line in zip(items, lines)] == [True] * len(lines)
        assert len(items) == len(lines)
    kept = items_of(list(read_blocks(source, KINDS["blank-line"])), "blank-line")
    in_paragraphs = sum(item.text.count("\n") + 1 for item in kept if isinstance(item, Document))
    bad = sum(len(item.bad_utf8) for item in kept)
    assert in_paragraphs + bad == sum(bool(line.strip()) for line in data.split(b"\n"))


@settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data(), st.sampled_from(["wikipedia", "namuwiki", "modu"]), st.lists(TEXT, min_size=1, max_size=6))
def test_a_dump_cut_anywhere_gives_its_first_records_and_an_error(
    tmp_path: Path, small_blocks: None, data: st.DataObject, kind: str, texts: list[str]
) -> None:
    documents, suffix, make = SOURCES[kind]
    path = tmp_path / f"a{suffix}"
    content = make(texts).rstrip()
    whole = list(read_documents(write(path, content), documents))
    write(path, content[: data.draw(st.integers(0, len(content) - 1))])
    items: list[Item] = []
    with pytest.raises(DataError, match=f"^{path}: "):
        items.extend(read_documents(path, documents))
    assert items == whole[: len(items)]
    assert all(item.offset < path.stat().st_size for item in items)


@settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data(), st.sampled_from(sorted(SOURCES)), st.lists(TEXT, min_size=1, max_size=6))
def test_a_changed_byte_does_not_crash(
    tmp_path: Path, small_blocks: None, data: st.DataObject, kind: str, texts: list[str]
) -> None:
    documents, suffix, make = SOURCES[kind]
    content = bytearray(make(texts) or b"x")
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = write(tmp_path / f"a{suffix}", bytes(content))
    try:
        items = list(read_documents(path, documents))
    except DataError as error:
        assert str(error).startswith(f"{path}: ")
    else:
        assert all(0 <= item.offset <= len(content) and item.line >= 1 for item in items)


def test_a_record_without_end_is_refused(tmp_path: Path, small_blocks: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records_module, "LARGEST_DOCUMENT", 4096)
    cases = {
        ("line", "a.txt"): (b"x" * 9000, "no line end in 4,096 bytes"),
        ("blank-line", "b.txt"): (b"xy\n" * 3000, "no blank line in .* say --documents line"),
        ("namuwiki", "c.json"): (b'[{"text": "' + b"x" * 9000, "a record of over 4,"),
        ("modu", "d.json"): (b'{"document": [{"x": "' + b"x" * 9000, "a record of over 4,"),
        ("modu", "e.json"): (b'{"x": "' + b"x" * 9000, 'no JSON object with "document"'),
        ("wikipedia", "f.xml"): (b"<mediawiki><page>" + b"x" * 9000, "no </page> in 4,"),
    }
    for (documents, name), (data, words) in cases.items():
        source = local_source(write(tmp_path / name, data))
        with pytest.raises(DataError, match=f"{name}: {words}"):
            list(read_blocks(source, kind_of(documents)))


def test_resuming_after_the_end_is_refused(tmp_path: Path) -> None:
    source = local_source(write(tmp_path / "a.txt.gz", gzip.compress(b"ab\n")))
    with pytest.raises(DataError, match=r"a\.txt\.gz: ends before byte 9,"):
        list(read_blocks(source, KINDS["line"], start=(2, 9)))


def refused_at_its_opening(data: bytes, documents: str) -> str:
    with pytest.raises(DataError) as caught:
        kind_of(documents).check_opening(make_block("a.txt", 1, 0, data))
    return str(caught.value)


def test_a_field_that_no_record_has_is_reported_at_the_first_block() -> None:
    records = [{"text": "가", "license": "x", "n": 1}] * 12
    lines = "".join(json.dumps(record) + "\n" for record in records).encode()
    found = refused_at_its_opening(lines, "txet")
    assert "no text under 'txet' in its first 12 records" in found
    assert found.endswith("; their fields: text: a text; license: a text; n: a number; did you mean --documents text?")
    assert "no text under 'n'" in refused_at_its_opening(lines, "n")
    assert "not JSON objects" in refused_at_its_opening(b"plain\n" * 12, "text")
    one_bad = b"[]\n" + lines
    for good in (lines, one_bad, lines.replace(b"text", b"body", 11), b'{"body": ""}\n' * 3):
        kind_of("text").check_opening(make_block("a.jsonl", 1, 0, good))
