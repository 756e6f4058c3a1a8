"""Encodings: judged from bytes alone, decided by the run where a file leaves two open, recoded without loss."""

from __future__ import annotations

import io
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kogpt2_gluon.corpus import encodings as encodings_module
from kogpt2_gluon.corpus.admission import Admission, admit
from kogpt2_gluon.corpus.cleaning import clean
from kogpt2_gluon.corpus.documents import read_blocks
from kogpt2_gluon.corpus.encodings import Recoded, judge_encoding
from kogpt2_gluon.corpus.first_look import HEAD_BYTES, MOST_BYTES, look
from kogpt2_gluon.corpus.formats import KINDS
from kogpt2_gluon.corpus.sources import Source, local_source
from kogpt2_gluon.corpus.store import Corpus
from kogpt2_gluon.errors import DataError, RecipeError

SENTENCES = [
    "오늘은 날씨가 맑아서 강변을 걸었다.",
    "이 영화는 정말 재미있게 봤어요 ㅋㅋㅋ",
    "1997년 12월 3일, 국제통화기금(IMF)과 합의했다.",
    "가격은 ￦3,500이고 “할인”은 없다…",
    "大韓民國의 국호는 대한민국이다.",
    "짱임 ㅋㅋㅋ",
    "뭐야",
]
FOREIGN = {
    "今日は天気がいいので、川辺を散歩しました。\n": ("shift_jis", "euc_jp"),
    "今天天气很好，所以我在河边散步。\n": ("gbk",),
    "今天天氣很好，所以我在河邊散步。\n": ("big5",),
    "Сегодня хорошая погода, и я гулял у реки.\n": ("cp1251", "koi8-r"),
    "Il fait beau, été à la forêt où naïf garçon.\n": ("cp1252", "latin-1"),
    "วันนี้อากาศดี\n": ("cp874",),
}
CAFE = b"caf\xc3\xa9"  # café in UTF-8; in CP949 its last two bytes are a syllable


@pytest.mark.parametrize("encoding", ["utf-8", "cp949", "utf-16-le", "utf-16-be", "utf-32-le"])
def test_korean_text_is_known_by_its_bytes(encoding: str) -> None:
    draw = random.Random(1)
    for count in (1, 2, 5, 40):
        for _ in range(30):
            text = "".join(draw.choice(SENTENCES) + draw.choice(["\n", "\r\n", "\n\n"]) for _ in range(count))
            assert judge_encoding(text.encode(encoding)).encoding == encoding, text


def test_a_sample_cut_amid_a_character_is_judged_as_the_whole() -> None:
    text = "\n".join(SENTENCES * 3)
    for encoding in ("utf-8", "cp949", "utf-16-le", "utf-16-be"):
        data = text.encode(encoding)
        for end in range(len(data) - 9, len(data)):
            assert judge_encoding(data[:end]).encoding == encoding, (encoding, end)


def test_other_languages_are_not_taken_for_korean() -> None:
    for text, others in FOREIGN.items():
        for encoding in ("utf-8", "utf-16-le", "utf-16-be"):
            assert judge_encoding(text.encode(encoding) * 20).encoding == encoding, text
        for encoding in others:
            assert judge_encoding(text.encode(encoding) * 20).encoding == "unknown", (text, encoding)


def test_damage_does_not_change_the_encoding() -> None:
    lines = [line.encode() for line in SENTENCES * 9]
    for place in (0, 10, 40):
        damaged = list(lines)
        damaged[place] = damaged[place][:-1] + b"\xff"
        assert judge_encoding(b"\n".join(damaged)).encoding == "utf-8"
    assert judge_encoding("한 줄에 긴 글이 있다. ".encode() * 40 + b"\xff\xfe").encoding == "utf-8"
    assert judge_encoding(b"\xff\xfe"[:1] + b"\n").encoding == "utf-8"  # counted where it is read
    old = [line.encode("cp949") for line in SENTENCES * 9]
    old[3] += b"\xff"
    assert judge_encoding(b"\n".join(old)).encoding == "cp949"
    assert judge_encoding("옛날 편지이다.\n".encode("iso2022_kr")).encoding == "iso2022_kr"
    assert judge_encoding("더 옛날 편지이다.\n".encode("johab") * 20).encoding == "johab"


def test_data_is_not_a_text_with_dirt() -> None:
    """Compiled programs and catalogues of messages are mostly words, with zeros between them."""
    words = b"\0".join(f"message number {n}".encode() for n in range(200))
    for data in (words, b"\xcb\r\r\n\0\0\0\0" + words, "가나다 라마바 사\0".encode() * 99, bytes(range(32)) * 9):
        assert judge_encoding(data).encoding == "", data[:20]
    dirty = "가끔 \x00 이런 글자가 있다. \x07\n".encode() * 2 + "그 밖에는 없다.\n".encode() * 99
    assert judge_encoding(dirty).encoding == "utf-8"


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.lists(st.sampled_from([*SENTENCES, "\r", "\n", "\r\n", "\U0001f600", "\ufeff"]), max_size=20),
    st.sampled_from(["utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "cp949", "johab"]),
    st.integers(1, 9),
    st.sampled_from(["\n", "\r"]),
)
def test_any_text_is_recoded_whole(texts: list[str], encoding: str, step: int, line_end: str) -> None:
    text = "".join(texts).encode(encoding, "ignore").decode(encoding)
    expected = text if line_end == "\n" else text.replace("\r\n", "\n").replace("\r", "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encodings_module, "_RECODED_SIZE", step)
        stream = io.BufferedReader(Recoded(io.BytesIO(text.encode(encoding)), encoding, line_end), 7)
        assert stream.read() == expected.encode()


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.binary(max_size=60), st.sampled_from(["utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "cp949", "johab"]))
def test_any_bytes_are_recoded_and_what_is_no_character_is_marked(data: bytes, encoding: str) -> None:
    recoded = Recoded(io.BytesIO(data), encoding).read()
    try:
        assert recoded == data.decode(encoding).encode()
    except UnicodeDecodeError:
        assert b"\xff" in recoded
    judge_encoding(data)  # and never an exception


@pytest.mark.parametrize(
    "encoding, line_end", [("cp949", "\n"), ("utf-16-be", "\r\n"), ("utf-8", "\r"), ("utf-16-le", "\r")]
)
def test_reading_resumes_at_any_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str, line_end: str
) -> None:
    from kogpt2_gluon.corpus import records

    monkeypatch.setattr(records, "BLOCK_BYTES", 64)
    path = tmp_path / "a.txt"
    path.write_bytes("".join(f"{n} {line}{line_end}" for n, line in enumerate(SENTENCES * 4)).encode(encoding))
    (source,) = admit([local_source(path)], KINDS["line"]).sources
    assert (source.encoding, source.line_end) == (encoding, "\r" if line_end == "\r" else "\n")
    assert Source.from_row(source.to_row()).open().read() == source.open().read()
    blocks = list(read_blocks(source, KINDS["line"]))
    assert len(blocks) > 5
    for number, block in enumerate(blocks):
        assert list(read_blocks(source, KINDS["line"], None, block.next_start)) == blocks[number + 1 :]


# --- the evidence of a run


def admitted(folder: Path, files: dict[str, bytes], encoding: str = "auto") -> Admission:
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return admit([local_source(folder / name) for name in files], KINDS["line"], encoding)


def test_small_cp949_files_among_others_are_read(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for n in range(8):
        text = f"{n}번째 수필이다.\n봄이 왔다. {n}\n"
        (tmp_path / "in" / f"수필{n}.txt").write_bytes(text.encode("cp949" if n % 2 else "utf-8"))
    report = clean([tmp_path / "in"], tmp_path / "out", "line", 0.0)
    assert not report.documents.dropped
    kept = set(Corpus.open(tmp_path / "out").documents("train"))
    assert kept == {line for n in range(8) for line in (f"{n}번째 수필이다.", f"봄이 왔다. {n}")}
    assert "4 of 8 files read as cp949: " in report.summary()
    about = Corpus.open(tmp_path / "out").about["sources"]
    assert [source.get("encoding") for source in about] == [None, "cp949"] * 4


def test_a_file_that_could_be_both_is_read_as_most_others_are(tmp_path: Path) -> None:
    old, new = ("봄이 왔다.\n".encode(encoding) for encoding in ("cp949", "utf-8"))
    among_new = admitted(tmp_path, {"a": new, "b": new, "c": old, "cafe": CAFE, "ascii": b"abc\n"})
    assert [source.encoding for source in among_new.sources] == ["utf-8", "utf-8", "cp949", "utf-8", "utf-8"]
    assert any("1 short files could be cp949 too" in note for note in among_new.notes)
    among_old = admitted(tmp_path, {"a": old, "b": old, "c": new, "cafe": CAFE, "ascii": b"abc\n"})
    assert [source.encoding for source in among_old.sources] == ["cp949", "cp949", "utf-8", "cp949", "cp949"]
    assert any("1 files could be utf-8 or cp949" in note and "cafe" in note for note in among_old.notes)
    alone = admitted(tmp_path, {"cafe": CAFE})
    assert [source.encoding for source in alone.sources] == ["utf-8"]


def test_a_large_file_that_begins_with_ascii_is_looked_into(tmp_path: Path) -> None:
    line = b"an English preface of a Korean book, which goes on and on\n"
    for encoding, begins in (("cp949", HEAD_BYTES), ("cp949", MOST_BYTES), ("utf-8", 2 * MOST_BYTES)):
        path = tmp_path / "a"
        path.write_bytes(line * (begins // len(line) + 9) + "그리고 본문이 온다.\n".encode(encoding) * 60_000)
        found = look(local_source(path))
        assert (found.form, found.encoding, found.is_sure) == ("text", encoding, True)


def test_an_encoding_that_is_named(tmp_path: Path) -> None:
    files = {"a": "봄이 왔다.\n".encode("johab") * 3, "b": "꽃이 피었다.\n".encode("johab") * 3}
    assert [source.encoding for source in admitted(tmp_path, files, "johab").sources] == ["johab"] * 2
    wide = {"a": "봄이 왔다.\n".encode("utf-16"), "b": "꽃이 피었다.\n".encode("utf-16-be") * 9}
    assert [source.encoding for source in admitted(tmp_path, wide, "utf-16").sources] == ["utf-16-le", "utf-16-be"]
    new = {"a": "봄이 왔다.\n".encode() * 9}
    for encoding in ("cp949", "utf-16", "utf-16-be", "utf-32", "johab"):
        (_, fault), *_ = admitted(tmp_path, new, encoding).refused
        assert f"it looks like utf-8, and is not a text in {encoding}; say --encoding auto" in str(fault)
    # Said to be UTF-8, a file is read as that, and what is not is counted.
    report = clean([tmp_path / "a"], tmp_path / "out", "line", 0.0, encoding="utf-8")
    assert sum(report.documents.kept.values()) == 1
    with pytest.raises(RecipeError, match="--encoding klingon: say auto, utf-8, cp949"):
        admitted(tmp_path, new, "klingon")


def test_places_that_cannot_be_decoded_are_counted_by_file(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number, name in enumerate(("a", "b", "c")):
        good = [f"{name} {n}번째 줄이다.".encode("cp949") for n in range(20)]
        bad = [b"\xb0\xff \xc5\xff"] * number
        (folder / name).write_bytes(b"\n".join(good + bad) + b"\n")
    report = clean([tmp_path / "in"], tmp_path / "out", "line", 0.0)
    assert report.documents.dropped == {"bad_utf8": 3}
    assert f"by source: {folder / 'c'} 2, {folder / 'b'} 1" in report.summary()


def test_cr_alone_ends_lines_only_where_nothing_else_does(tmp_path: Path) -> None:
    for data, expected in (
        ("가\r나\r다".encode("cp949"), ["가", "나", "다"]),
        ("가\r나\r".encode("utf-16-be"), ["가", "나"]),
        ("가\r\n나\r\n".encode(), ["가", "나"]),
        ("가 나\r".encode(), ["가 나"]),
    ):
        (tmp_path / "a").write_bytes(data * 1)
        found = clean([tmp_path / "a"], tmp_path / "out", "line", 0.0, overwrite=True)
        assert list(Corpus.open(tmp_path / "out").documents("train")) == expected, data
        assert found.documents.read == len(expected)


def test_a_mixture_says_what_was_left_out(tmp_path: Path) -> None:
    new, old = ([f"{n}번째 줄의 글이다.".encode(encoding) for n in range(20)] for encoding in ("utf-8", "cp949"))
    (tmp_path / "a").write_bytes(b"\n".join(new + old[:6]))
    report = clean([tmp_path / "a"], tmp_path / "out", "line", 0.0)
    assert report.documents.dropped == {"bad_utf8": 6} and "not UTF-8 at 6 places" in report.summary()


def test_a_damaged_archive_is_not_decoded(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\x1f\x8b\x08\0" + bytes(range(256)) * 20)
    with pytest.raises(DataError, match=r"a: damaged, or not \.gz data"):
        look(local_source(tmp_path / "a"))
