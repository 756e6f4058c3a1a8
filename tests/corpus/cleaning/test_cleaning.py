"""Cleaning: what happens to a line, and that every document and line is kept or counted."""

from __future__ import annotations

import gzip
import json
import lzma
import unicodedata
from pathlib import Path

import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kogpt2_gluon.corpus.cleaning import BAD_UTF8_FILE, CleaningReport, clean, normalize_line, split_of
from kogpt2_gluon.corpus.documents import read_documents
from kogpt2_gluon.corpus.records import Document
from kogpt2_gluon.corpus.store import Corpus
from kogpt2_gluon.errors import DataError, RecipeError
from tests.corpus.cleaning.cleaning_helpers import folder_in_memory
from tests.helpers import REAL_TEXT

KOREAN = REAL_TEXT / "lm"
needs_korean = pytest.mark.skipif(not KOREAN.is_dir(), reason="the real Korean text (../shared/korean) is not here")
PACKERS = {".gz": gzip.compress, ".xz": lzma.compress, ".zst": zstandard.compress}

# Line ends, blanks, invisibles, decomposed Hangul, emoji; and bytes that are not UTF-8: a surrogate, an overlong form,
# a sign cut short.
HOSTILE_TEXT = [
    "\n",
    "\n\n",
    "\r\n",
    "\r",
    " ",
    "\t",
    "\0",
    "\x85",
    "\xa0",
    "\u3000",
    "\u2028",
    "\u3164",
    "\ufeff",
    "\u200b",
]
HOSTILE_TEXT += [
    "a",
    "<s>",
    "가",
    "나다 라",
    "가" * 3000,
    unicodedata.normalize("NFD", "한글"),
    "\u1100",
    "\u1161",
    "\ufffe",
]
HOSTILE_TEXT += ["👨\u200d👩", "\u200d", "❤\ufe0f", "\ufe0f", "🏴", "\U000e0067", "\U000e007f", "=", "\u0338", "\u2adc"]
HOSTILE = [text.encode() for text in HOSTILE_TEXT] + [b"\xff", b"\xed\xa0\x80", b"\xc0\xaf", b"\xea\xb0"]
hostile_text = st.lists(st.one_of(st.sampled_from(HOSTILE_TEXT), st.characters()), max_size=30).map("".join)
hostile_bytes = st.lists(st.one_of(st.sampled_from(HOSTILE), st.binary(max_size=4)), max_size=40).map(b"".join)


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def check_counts(report: CleaningReport, out: Path) -> None:
    """Read = kept + every reason; and what is kept is what lies on disk."""
    corpus = Corpus.open(out)
    for count in (report.documents, report.lines):
        assert count.read == sum(count.kept.values()) + sum(count.dropped.values())
        assert all(number > 0 for number in count.dropped.values())
    for split in ("train", "test"):
        stored = list(corpus.documents(split))
        assert len(stored) == report.documents.kept[split] == corpus.count(split)
        assert len(list(corpus.lines(split))) == report.lines.kept[split]
        assert sum(len(text.replace("\n", "").encode()) for text in stored) == report.bytes_kept[split]
        assert sum(path.stat().st_size for path in corpus.files(split)) == corpus.size(split)


# --- one line


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("아무 것도 고칠 것이 없다.", "아무 것도 고칠 것이 없다."),
        (unicodedata.normalize("NFD", "한글 맞춤법"), "한글 맞춤법"),
        ("\u1112\u200b\u1161\u11ab", "한"),  # jamo that only meet when the zero-width space has gone
        ("\ufeff  가\t\u3000\xa0나\u2028다 \r", "가 나 다"),
        ("가\x00나\x07\x7f\x9f다", "가나다"),
        ("가\x85나\x1c다\x0b라", "가 나 다 라"),  # controls that are white space part words
        ("soft\xadhyphen \u202eabc\u202c \ufffe\U0001ffff", "softhyphen abc"),
        ("ㅋㅋ\u3164\u3164ㅋ", "ㅋㅋ ㅋ"),
        ("가\u200d나\u200c다\ufe0f", "가나다"),
        (
            "👨\u200d👩\u200d👧 ❤\ufe0f 🏳\ufe0f\u200d🌈 1\ufe0f\u20e3",
            "👨\u200d👩\u200d👧 ❤\ufe0f 🏳\ufe0f\u200d🌈 1\ufe0f\u20e3",
        ),
        ("👍🏽\u200d 👍\u200d\u200d👍", "👍🏽 👍👍"),
        ("🏴\U000e0067\U000e0062\U000e0077\U000e007f \U000e0067x", "🏴\U000e0067\U000e0062\U000e0077\U000e007f x"),
        ("ａｂｃ ㎏ ㈜ ① \ue000 \ufffd", "ａｂｃ ㎏ ㈜ ① \ue000 \ufffd"),  # the tokenizer's business
        ("half \ud83d pair", "half pair"),
        (" \u200b\xa0\n", ""),
    ],
)
def test_normalize_line(line: str, expected: str) -> None:
    assert normalize_line(line) == expected


@settings(deadline=None, derandomize=True, max_examples=300)
@given(hostile_text)
@example("=\u200b\u0338\ufe0f\u200d👍")
@example("ㄱ\ufe0f\u200d👍")
def test_normalize_line_is_final(text: str) -> None:
    line = normalize_line(text)
    assert normalize_line(line) == line
    assert unicodedata.is_normalized("NFC", line)
    assert line == " ".join(line.split())
    assert not any(unicodedata.category(sign) in ("Cc", "Cs") for sign in line)
    line.encode()


# --- the whole


def test_the_kind_of_document_is_never_guessed(tmp_path: Path) -> None:
    text, records = write(tmp_path / "a.txt", b"a\n"), write(tmp_path / "b.JSONL.xz", lzma.compress(b'{"t": "a"}\n'))
    with pytest.raises(DataError, match=r"b\.JSONL\.xz: JSON lines; --documents line does not read it; name the field"):
        clean([text, records], tmp_path / "out", "line")
    with pytest.raises(
        DataError, match=r"a\.txt: plain text; --documents t does not read it; say what a document is: --documents line"
    ):
        clean([text, records], tmp_path / "out", "t")
    assert clean([records], tmp_path / "out", "t").documents.kept["train"] == 1


@settings(deadline=None, derandomize=True, max_examples=150)
@given(hostile_bytes, st.sampled_from(["line", "blank-line"]), st.sampled_from([0.0, 0.5]))
@example(b"", "line", 0.5)
@example(b"\n \n", "blank-line", 0.5)
@example(b"\xff\n\xff", "blank-line", 0.5)
@example(b"\n\na\na\n\xc2\xa0\na\nb\n\na\nb\n", "blank-line", 0.5)
def test_hostile_text_reconciles(data: bytes, documents: str, test_share: float) -> None:
    with folder_in_memory() as name:
        source, out = write(Path(name) / "source", data), Path(name) / "out"
        try:
            report = clean([source], out, documents, test_share, encoding="utf-8", max_dropped=1)
        except DataError as error:
            assert "no document is left" in str(error)
            assert not out.exists()
            texts = [item.text for item in read_documents(source, documents) if isinstance(item, Document)]
            assert not any(normalize_line(line) for text in texts for line in text.split("\n"))
            return
        check_counts(report, out)
        if documents == "line":
            if b"\r" in data[:-1] and b"\n" not in data:
                data = data.replace(b"\r", b"\n")
            assert report.documents.read == len(data.split(b"\n")) - (data[-1:] in (b"", b"\n"))
            assert report.documents.read == report.lines.read
        kept = [text for split in ("train", "test") for text in Corpus.open(out).documents(split)]
        assert len(set(kept)) == len(kept)
        for text in kept:
            lines = text.split("\n")
            assert all(line and normalize_line(line) == line for line in lines)
            assert all(line != after for line, after in zip(lines, lines[1:]))
        # A corpus is a fixed point: cleaned again, nothing goes and nothing changes split.
        stored = [path for split in ("train", "test") for path in Corpus.open(out).files(split)]
        again = clean(stored, Path(name) / "again", documents, test_share, encoding="utf-8")
        assert not again.documents.dropped and not again.lines.dropped
        assert again.documents.kept == report.documents.kept
        # Each place named is where the decoder stops: everything before it on its line is UTF-8.
        for _, offset in report.bad_utf8_places:
            line_start = data.rfind(b"\n", 0, offset) + 1
            data[line_start:offset].decode()
            with pytest.raises(UnicodeDecodeError):
                data[line_start : data.find(b"\n", offset) if b"\n" in data[offset:] else None].decode()


@settings(deadline=None, derandomize=True, max_examples=50)
@given(st.lists(st.one_of(hostile_text, st.text(st.characters(categories=["Cs", "Cc", "Lo"])), st.none()), max_size=8))
def test_hostile_records_reconcile(texts: list[str | None]) -> None:
    with folder_in_memory() as name:
        records = [{"text": "first"}, *({"text": text} for text in texts)]
        source = write(Path(name) / "a.json", "\n".join(json.dumps(record) for record in records).encode())
        report = clean([source], Path(name) / "out", "text", 0.5, max_dropped=1)
        check_counts(report, Path(name) / "out")
        assert report.documents.read == len(records)
        assert report.documents.dropped["null_field"] == texts.count(None)


def test_bad_utf8_is_named_and_never_fatal(tmp_path: Path) -> None:
    source = write(tmp_path / "a.txt", b"".join(b"line %d\n" % n + (b"\xff\n" if n % 2 else b"") for n in range(20)))
    report = clean([source], tmp_path / "out", "line", test_share=0)
    assert report.documents.dropped == {"bad_utf8": 10}
    rows = [row.split("\t") for row in (tmp_path / "out" / BAD_UTF8_FILE).read_text().splitlines()]
    assert len(rows) == 10
    assert all(path == str(source) and source.read_bytes()[int(offset)] == 0xFF for path, offset in rows)
    assert "not UTF-8 at 10 places" in report.summary()
    assert f"{source} byte 14" in report.summary()


def test_documents_of_several_lines(tmp_path: Path) -> None:
    source = write(tmp_path / "a.txt", "하나\n하나\n둘\n\xa0\n둘\n\n하나\n둘\n\n\n셋\n".encode())
    report = clean([source], tmp_path / "out", "blank-line", test_share=0)
    assert list(Corpus.open(tmp_path / "out").documents("train")) == ["하나\n둘", "셋"]
    assert list(Corpus.open(tmp_path / "out").lines("train")) == ["하나", "둘", "셋"]
    assert (tmp_path / "out" / "train" / "corpus-00000.txt").read_text(encoding="utf-8") == "하나\n둘\n\n셋\n"
    assert report.documents.dropped == {"duplicate": 1}
    assert report.lines.dropped == {"repeated": 2, "empty": 1, "duplicate": 2}
    assert "no document fell to the test split" not in report.summary()


def test_the_split_depends_on_the_document_alone(tmp_path: Path) -> None:
    texts = [f"문서 {number}" for number in range(4000)]
    one = write(tmp_path / "one.txt", "\n".join(texts).encode())
    two = write(tmp_path / "two.txt", "\n".join(f" {text}\t" for text in reversed(texts[::3])).encode())
    clean([one], tmp_path / "1", "line", test_share=0.1)
    clean([two], tmp_path / "2", "line", test_share=0.1)
    test = set(Corpus.open(tmp_path / "1").documents("test"))
    assert set(Corpus.open(tmp_path / "2").documents("test")) == test & set(texts[::3])
    assert test == {text for text in texts if split_of(text.encode(), 0.1) == "test"}
    assert 320 < len(test) < 480  # 400 expected, standard deviation 19


def test_the_same_source_gives_the_same_bytes_compressed_or_not(tmp_path: Path) -> None:
    data = "가 나\n다\n".encode() * 10 + b"\xff\n"
    folders = []
    for suffix, pack in {"": bytes, **PACKERS}.items():
        write(tmp_path / f"in{suffix}" / f"a.txt{suffix}", pack(data))
        seen: list[tuple[int, int]] = []
        out = tmp_path / f"out{suffix}"
        clean([tmp_path / f"in{suffix}"], out, "line", 0.5, progress=lambda *at, seen=seen: seen.append(at))
        assert seen[-1][0] == seen[-1][1] == (tmp_path / f"in{suffix}" / f"a.txt{suffix}").stat().st_size
        folders.append({str(file.relative_to(out)): file.read_bytes() for file in out.rglob("corpus-*")})
    assert all(folder == folders[0] for folder in folders)


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    source, out = write(tmp_path / "a.txt", b"new\n"), tmp_path / "out"
    out.mkdir()  # an empty folder may be filled
    clean([source], out, "line", test_share=0)
    with pytest.raises(RecipeError, match="a finished corpus; say --overwrite"):
        clean([source], out, "line")
    write(source, b"newer\n")
    clean([source], out, "line", test_share=0, overwrite=True)
    assert list(Corpus.open(out).documents("train")) == ["newer"]
    with pytest.raises(DataError, match="no document is left"):  # and a failure leaves the old one
        clean([write(tmp_path / "b.txt", b"\n")], out, "line", overwrite=True)
    assert list(Corpus.open(out).documents("train")) == ["newer"]
    with pytest.raises(RecipeError, match="it holds a source"):
        clean([out / "train" / "corpus-00000.txt"], out, "line", overwrite=True)
    write(out / "spm.model", b"precious")
    with pytest.raises(RecipeError, match=r"not just a corpus \(spm\.model\)"):
        clean([source], out, "line", overwrite=True)
    with pytest.raises(RecipeError, match="exists and is not a folder"):
        clean([source], source, "line", overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "b.txt", "out"]


@pytest.mark.parametrize("share", [1.0, -0.1, float("nan")])
def test_a_share_is_a_share(tmp_path: Path, share: float) -> None:
    with pytest.raises(RecipeError, match="--test-share"):
        clean([write(tmp_path / "a.txt", b"a")], tmp_path / "out", "line", test_share=share)


def test_what_is_not_a_corpus(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        Corpus.open(tmp_path / "nowhere")
    with pytest.raises(DataError, match="not a cleaned corpus"):
        Corpus.open(tmp_path)
    clean([write(tmp_path / "a.txt", b"a\nb\n")], tmp_path / "out", "line", test_share=0)
    about = json.loads((tmp_path / "out" / "corpus.json").read_text())
    assert about["documents"] == "line"
    assert about["counts"]["documents"] == {"read": 2, "kept": {"train": 2, "test": 0}, "dropped": {}}
    for change, words in [
        ({"version": 99}, "format version 99"),
        ({"format": "x"}, "not the description"),
        ({"files": {}}, "damaged"),
        ({"files": {"train": [], "test": []}}, "an empty corpus"),
    ]:
        (tmp_path / "out" / "corpus.json").write_text(json.dumps({**about, **change}))
        with pytest.raises(DataError, match=words):
            Corpus.open(tmp_path / "out")
    (tmp_path / "out" / "corpus.json").write_text(json.dumps(about))
    with (tmp_path / "out" / "train" / "corpus-00000.txt").open("ab") as stream:
        stream.truncate(3)
    with pytest.raises(DataError, match=r"corpus-00000\.txt: 3 bytes long, but corpus\.json says 4"):
        Corpus.open(tmp_path / "out")


# --- real text


@needs_korean
def test_real_reviews(tmp_path: Path) -> None:
    source = KOREAN / "nsmc_raw_reviews.txt"
    report = clean([source], tmp_path / "out", "line")
    check_counts(report, tmp_path / "out")
    lines = source.read_bytes().splitlines()
    reviews = [line for line in lines if line]
    assert report.documents.read == report.lines.read == len(lines) == 389_967
    assert report.documents.dropped["empty"] == 8_382
    assert report.documents.dropped["duplicate"] >= len(reviews) - len(set(reviews))
    assert round(100 * report.documents.dropped["duplicate"] / len(reviews), 2) == 1.34
    assert 0.009 < report.documents.kept["test"] / sum(report.documents.kept.values()) < 0.011


@needs_korean
@pytest.mark.parametrize(
    ("name", "documents", "read", "lines"),
    [("tech_docs_ko.jsonl", "text", 1_117, 72_856), ("kaist_treebank_docs.txt", "blank-line", 97, 27_363)],
)
def test_real_documents(tmp_path: Path, name: str, documents: str, read: int, lines: int) -> None:
    report = clean([KOREAN / name], tmp_path / "out", documents, test_share=0.1)
    check_counts(report, tmp_path / "out")
    assert (report.documents.read, report.lines.read) == (read, lines)
    assert report.documents.kept["test"] > 0
    assert sum(report.documents.kept.values()) == read
