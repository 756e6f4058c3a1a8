"""Text sources: which files are meant, what they hold once unpacked, and where damage lies."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import tracemalloc
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from kogpt2_gluon.corpus.packing import PACKED_SIZE
from kogpt2_gluon.corpus.sources import list_sources, local_source
from kogpt2_gluon.errors import DataError
from kogpt2_gluon.storage.s3_url import is_s3_url, split_s3_url

PACKERS = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstandard.compress}


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def content(path: Path) -> bytes:
    with local_source(path).open() as stream:
        return stream.read()


def test_sources_are_listed_in_order_without_hidden_ones(tmp_path: Path) -> None:
    for name in ("b/2.txt", "b/1.txt", "a.txt", ".hidden/x.txt", "b/.part", "c.txt"):
        write(tmp_path / name, b"x")
    (tmp_path / "b" / "up").symlink_to(tmp_path)
    found = list_sources([tmp_path])
    assert [source.name for source in found] == [
        str(tmp_path / name) for name in ("a.txt", "b/1.txt", "b/2.txt", "c.txt")
    ]
    assert [source.name for source in list_sources([str(tmp_path / "b" / ".part")])] == [str(tmp_path / "b" / ".part")]
    with pytest.raises(DataError, match="nowhere: no such file"):
        list_sources([tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty: a folder without any file"):
        list_sources([tmp_path / "empty"])


def test_a_source_says_its_size_and_whether_it_changed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl.GZ", b"12345")
    source = local_source(path)
    assert (source.size, source.suffix, source.path) == (5, ".jsonl", path)
    assert local_source(path) == source
    os.utime(path, ns=(0, 1))
    assert local_source(path) != source


def test_the_kogpt2_layout_is_plain_text(tmp_path: Path) -> None:
    names = ["wiki_news_corpus_aa", "wiki_news_corpus_ab", "wiki_news_corpus_zz"]
    for name in reversed(names):
        write(tmp_path / "train" / name, f"{name}의 글\n".encode())
    sources = list_sources([tmp_path / "train"])
    assert [Path(source.name).name for source in sources] == names
    assert [source.open().read().decode() for source in sources] == [f"{name}의 글\n" for name in names]


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xb0\xa1.txt")  # 가 in CP949
    write(tmp_path / name, "가나다".encode())
    (source,) = list_sources([tmp_path])
    assert os.fsencode(source.name).endswith(b"\xb0\xa1.txt")
    assert source.open().read().decode() == "가나다"


@pytest.mark.parametrize("suffix", PACKERS)
def test_compressed_sources(tmp_path: Path, suffix: str) -> None:
    pack, text = PACKERS[suffix], "가나다 라마바\n".encode() * 50_000
    path = write(tmp_path / f"a.txt{suffix}", pack(text))
    blocks: list[int] = []
    with local_source(path).open(blocks.append) as stream:
        assert stream.read() == text
    assert sum(blocks) == path.stat().st_size
    two = write(tmp_path / f"two.txt{suffix}", pack(text) + pack(b"") + pack(b"end"))
    assert content(two) == text + b"end"


def test_a_multistream_dump_of_many_small_streams(tmp_path: Path) -> None:
    """Wikipedia's multistream dumps are thousands of bz2 streams, one after the other."""
    parts = [f"{number} 쪽\n".encode() * (number % 7) for number in range(300)]
    path = write(tmp_path / "a.xml.bz2", b"".join(map(bz2.compress, parts)))
    assert path.stat().st_size > 2 * PACKED_SIZE
    assert content(path) == b"".join(parts)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.sampled_from(sorted(PACKERS)), st.lists(st.binary(max_size=30_000), min_size=1, max_size=4))
def test_members_read_in_any_steps(tmp_path_factory: pytest.TempPathFactory, suffix: str, members: list[bytes]) -> None:
    path = write(tmp_path_factory.mktemp("a") / f"a{suffix}", b"".join(map(PACKERS[suffix], members)))
    pieces = []
    with local_source(path).open() as stream:
        while piece := stream.read(997):
            pieces.append(piece)
    assert b"".join(pieces) == b"".join(members)


def test_padding_and_skippable_frames(tmp_path: Path) -> None:
    padded = write(tmp_path / "a.xz", lzma.compress(b"one") + b"\0" * 8 + lzma.compress(b"two") + b"\0" * 4)
    skippable = b"\x50\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"about"
    framed = write(tmp_path / "a.zst", skippable + zstandard.compress(b"one") + skippable + zstandard.compress(b"two"))
    for path in (padded, framed):
        assert content(path) == b"onetwo"


@pytest.mark.parametrize("suffix", PACKERS)
def test_damaged_compressed_sources(tmp_path: Path, suffix: str) -> None:
    text = "".join(f"{number * number} 문장\n" for number in range(30_000)).encode()
    packed = PACKERS[suffix](text)
    cut = write(tmp_path / f"cut{suffix}", packed[:-7])
    bent = write(
        tmp_path / f"bent{suffix}", packed[: len(packed) // 2] + b"\xaa" * 64 + packed[len(packed) // 2 + 64 :]
    )
    other = write(tmp_path / f"other{suffix}", bytes(range(256)) * 20)
    empty = write(tmp_path / f"empty{suffix}", b"")
    for path, words in (
        (cut, f"truncated.*byte {len(packed) - 7:,}$"),
        (bent, "damaged.*near compressed byte"),
        (other, "damaged"),
        (empty, "truncated"),
    ):
        with pytest.raises(DataError, match=f"{path.name}: {words}"):
            content(path)


@pytest.mark.parametrize("suffix", PACKERS)
def test_compressed_data_is_known_by_its_content(tmp_path: Path, suffix: str) -> None:
    """A browser unpacks a file and leaves its name; a script forgets the suffix."""
    for name in ("named.txt", "no_suffix", "other.bz2", "other.gz"):
        assert content(write(tmp_path / name, PACKERS[suffix]("가나다\n".encode() * 99))) == "가나다\n".encode() * 99
    assert content(write(tmp_path / f"plain.txt{suffix}", "이미 풀린 글\n".encode())) == "이미 풀린 글\n".encode()


@pytest.mark.parametrize("suffix", PACKERS)
def test_a_bomb_is_unpacked_in_small_steps(tmp_path: Path, suffix: str) -> None:
    """Hundreds of MB of zeros in a file of some kB: reading a little must not unpack it all."""
    path = write(tmp_path / f"bomb{suffix}", PACKERS[suffix](bytes(32 << 20)) * 16)
    assert path.stat().st_size < 1 << 20
    tracemalloc.start()
    with local_source(path).open() as stream:
        assert stream.read(100) == bytes(100)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 160 << 20


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", b"x")
    source = local_source(path)
    path.unlink()
    with pytest.raises(DataError, match=r"a\.txt: cannot be read: No such file"):
        source.open()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(DataError, match="dangling: no such file"):
        list_sources([tmp_path])


def test_s3_urls_with_one_slash_or_two() -> None:
    """pathlib makes s3:/bucket of s3://bucket."""
    for url in ("s3://bucket/a/b", Path("s3://bucket/a/b"), "s3:/bucket/a/b"):
        assert is_s3_url(url)
        assert split_s3_url(url) == ("bucket", "a/b")
    assert split_s3_url("s3://bucket") == ("bucket", "")
    assert not is_s3_url("s3/bucket")
    assert not is_s3_url(Path("/data/s3:/x"))
