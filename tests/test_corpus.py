"""Text sources, documents and the corpus folder: places are right, damage is named, nothing is half written."""

from __future__ import annotations

import gzip
import lzma
from pathlib import Path

import pytest
import zstandard

from kogpt2_gluon.data.corpus import Corpus, CorpusWriter, Document, Rejection, read_documents
from kogpt2_gluon.data.files import list_sources, open_source, replace_file, replace_folder
from kogpt2_gluon.errors import DataError

PACKERS = {".gz": gzip.compress, ".xz": lzma.compress, ".zst": zstandard.compress}


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


# --- files


def test_sources_are_listed_in_order_without_hidden_ones(tmp_path: Path) -> None:
    for name in ("b/2.txt", "b/1.txt", "a.txt", ".hidden/x.txt", "b/.part", "c.txt"):
        write(tmp_path / name, b"x")
    (tmp_path / "b" / "up").symlink_to(tmp_path)
    names = [str(path.relative_to(tmp_path)) for path in list_sources([tmp_path])]
    assert names == ["a.txt", "b/1.txt", "b/2.txt", "c.txt"]
    assert list_sources([tmp_path / "b" / ".part"]) == [tmp_path / "b" / ".part"]
    with pytest.raises(DataError, match="nowhere: no such file"):
        list_sources([tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty: a folder without any file"):
        list_sources([tmp_path / "empty"])


@pytest.mark.parametrize("suffix", PACKERS)
def test_compressed_sources(tmp_path: Path, suffix: str) -> None:
    pack, text = PACKERS[suffix], "가나다 라마바\n".encode() * 50_000
    path = write(tmp_path / f"a.txt{suffix}", pack(text))
    blocks: list[int] = []
    with open_source(path, blocks.append) as stream:
        assert stream.read() == text
    assert sum(blocks) == path.stat().st_size
    two = write(tmp_path / f"two.txt{suffix}", pack(text) + pack(b"") + pack(b"end"))
    with open_source(two) as stream:
        assert stream.read() == text + b"end"


def test_padding_and_skippable_frames(tmp_path: Path) -> None:
    padded = write(tmp_path / "a.xz", lzma.compress(b"one") + b"\0" * 8 + lzma.compress(b"two") + b"\0" * 4)
    skippable = b"\x50\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"about"
    framed = write(tmp_path / "a.zst", skippable + zstandard.compress(b"one") + skippable + zstandard.compress(b"two"))
    for path in (padded, framed):
        with open_source(path) as stream:
            assert stream.read() == b"onetwo"


@pytest.mark.parametrize("suffix", PACKERS)
def test_damaged_compressed_sources(tmp_path: Path, suffix: str) -> None:
    text = "".join(f"{number * number} 문장\n" for number in range(30_000)).encode()
    packed = PACKERS[suffix](text)
    cut = write(tmp_path / f"cut{suffix}", packed[:-7])
    bent = write(
        tmp_path / f"bent{suffix}", packed[: len(packed) // 2] + b"\xaa" * 64 + packed[len(packed) // 2 + 64 :]
    )
    other = write(tmp_path / f"other{suffix}", b"plain text, wrongly named\n" * 100)
    empty = write(tmp_path / f"empty{suffix}", b"")
    for path, words in (
        (cut, "truncated.*byte"),
        (bent, "damaged.*near compressed byte"),
        (other, "damaged"),
        (empty, "truncated"),
    ):
        with pytest.raises(DataError, match=f"{path.name}: {words}"), open_source(path) as stream:
            stream.read()


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "file", b"old")
    with pytest.raises(KeyboardInterrupt), replace_file(path) as stream:
        stream.write(b"half")
        raise KeyboardInterrupt
    folder = tmp_path / "folder"
    write(folder / "kept", b"old")
    with pytest.raises(ValueError, match="stop"), replace_folder(folder) as partial:
        write(partial / "half", b"new")
        raise ValueError("stop")
    assert path.read_bytes() == b"old"
    assert sorted(entry.name for entry in tmp_path.rglob("*")) == ["file", "folder", "kept"]
    with replace_file(tmp_path / "new" / "deep") as stream:
        stream.write(b"whole")
    with replace_folder(folder) as partial:
        write(partial / "sub" / "new", b"new")
    assert (tmp_path / "new" / "deep").read_bytes() == b"whole"
    assert sorted(entry.name for entry in tmp_path.rglob("*")) == ["deep", "file", "folder", "new", "new", "sub"]


# --- documents


def test_lines_and_their_places(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", b"\xef\xbb\xbf" + "하나\r\n".encode() + b"\n" + b"ab\xff\xfe\n" + "끝".encode())
    assert list(read_documents(path, "line")) == [
        Document("하나", path, 1, 3),
        Document("", path, 2, 11),
        Rejection("bad_utf8", path, 3, 12, (14,)),
        Document("끝", path, 4, 17),
    ]


def test_paragraphs_and_their_places(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", b"\n\nab\ncd\n \t\r\n\n\xff\nef\n\nx\xff\n\n\nlast")
    assert list(read_documents(path, "blank-line")) == [
        Document("ab\ncd", path, 3, 2),
        Document("ef", path, 7, 13, (13,)),
        Rejection("bad_utf8", path, 10, 19, (20,)),
        Document("last", path, 13, 24),
    ]


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


def test_files_roll_between_documents(tmp_path: Path) -> None:
    writer = CorpusWriter(tmp_path, "blank-line", file_size=40)
    documents = [f"{number}\n" + "x" * number for number in range(1, 30)]
    for document in documents:
        writer.add("train", document.encode())
    writer.finish({})
    corpus = Corpus.open(tmp_path)
    assert len(corpus.files("train")) > 5
    assert list(corpus.documents("train")) == documents
    assert list(corpus.documents("test")) == []
