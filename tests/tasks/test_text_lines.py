"""Lines of downloaded files: what ends a line, and one clear line for whatever is not a text in UTF-8."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.tasks.public import text_lines
from kogpt2_gluon.tasks.public.text_lines import read_lines
from tests.tasks.data_helpers import write

KOREAN = "이 영화는 정말 재미있습니다\t1\n다시 보고 싶지 않은 영화\t0\n" * 20


def fault(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        list(read_lines(path))
    return str(caught.value)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(
    st.lists(st.text(st.characters(blacklist_categories=["Cs", "Cc"], blacklist_characters="\ufeff"), max_size=20)),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
    st.booleans(),
)
def test_lines_come_back_whatever_ends_them(
    tmp_path: Path, lines: list[str], end: str, has_mark: bool, ends_last: bool
) -> None:
    texts = ["영화 제목", *lines, "마지막 줄"]  # enough Hangul that the file is a Korean text
    content = ("\ufeff" if has_mark else "") + end.join(texts) + (end if ends_last else "")
    path = write(tmp_path / "a.tsv", content)
    assert [text for _, text in read_lines(path)] == texts
    assert [number for number, _ in read_lines(path)] == list(range(1, len(texts) + 1))


def test_only_a_line_feed_ends_a_line(tmp_path: Path) -> None:
    odd = "가\x0b나\x0c다\x1c라\x1d마\x1e바\x85사\u2028아\u2029자"
    content = f"{odd}\n{KOREAN}{odd}\n"
    assert [text for _, text in read_lines(write(tmp_path / "a", content))] == content[:-1].split("\n")
    assert [text for _, text in read_lines(write(tmp_path / "b", "가나다\r라마바\r사아자"))] == [
        "가나다",
        "라마바",
        "사아자",
    ]


def test_a_packed_file_is_read_like_the_plain_one(tmp_path: Path) -> None:
    plain = list(read_lines(write(tmp_path / "a.tsv", KOREAN)))
    assert list(read_lines(write(tmp_path / "b.tsv.gz", gzip.compress(KOREAN.encode())))) == plain


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (KOREAN.encode("cp949"), "is CP949, not UTF-8; first: iconv -f cp949 -t utf-8 '"),
        (KOREAN.encode("utf-16"), "is UTF-16-LE, not UTF-8; first: iconv -f utf-16-le"),
        (KOREAN.encode("utf-16-be"), "is UTF-16-BE, not UTF-8"),
        (b"\n\n<!DOCTYPE html>\n<html><head><title>nsmc/ratings_train.txt</title>", "an HTML page; it is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 9\n", "a pointer of Git LFS"),
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"PK\x03\x04\x14\0\0\0\x08\0\x01\x02" + bytes(40), "a zip archive of files"),
        (KOREAN.encode() + b"\xed\xa0\x80\t1\n", "line 41: not UTF-8 (bytes ed a0 80); it is damaged there"),
        (KOREAN.encode() + b"\xec\x9d\n", "line 41: not UTF-8 (bytes ec 9d 0a)"),
        (KOREAN.encode() + "널\0문자\t1\n".encode(), "line 41: has a zero byte"),
    ],
)
def test_what_is_not_utf8_text_is_one_line_with_the_way_out(tmp_path: Path, content: bytes, told: str) -> None:
    path = write(tmp_path / "a file.tsv", content)
    message = fault(path)
    assert message.startswith(str(path)) and told in message


def test_a_folder_or_nothing_is_refused(tmp_path: Path) -> None:
    assert "a folder, where a file is expected" in fault(tmp_path)
    assert "no such file" in fault(tmp_path / "none.tsv")


def test_a_line_without_end_is_not_read_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_lines, "LONGEST_LINE", 1 << 10)
    content = "첫 줄\n" + "가" * 500
    assert "line 2: above 0 MiB" in fault(write(tmp_path / "a.tsv", content))
    assert len(list(read_lines(write(tmp_path / "b.tsv", "첫 줄\n" + "가" * 300)))) == 2
