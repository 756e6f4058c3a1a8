"""Which files are read: patterns, what folders hold besides text, what is damaged, parts of archives."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import unicodedata
import zipfile
from pathlib import Path

import boto3
import moto
import pytest
import zstandard

from kogpt2_gluon.corpus.admission import admit
from kogpt2_gluon.corpus.cleaning import clean, pipeline
from kogpt2_gluon.corpus.formats import KINDS
from kogpt2_gluon.corpus.sources import choose_sources, list_sources
from kogpt2_gluon.corpus.store import Corpus
from kogpt2_gluon.errors import DataError
from kogpt2_gluon.storage import s3
from tests.corpus.form_samples import TEXTS, tar, text
from tests.helpers import kogpt2

GOOD = text(TEXTS).encode()


def write(folder: Path, **files: bytes) -> Path:
    for name, data in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def names(folder: Path, **patterns: list[str]) -> list[str]:
    return [os.path.relpath(source.name, folder) for source in choose_sources([folder], **patterns).sources]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tree = {
        "a.txt": GOOD,
        "b.md": GOOD,
        "drafts/c.txt": GOOD,
        "drafts/old/d.txt": GOOD,
        "_SUCCESS": b"",
        "_metadata/x.txt": GOOD,
        ".DS_Store": b"\0\0\0\1",
        "__MACOSX/._a.txt": b"\0",
        "empty.txt": b"",
    }
    for name, data in tree.items():
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "in"


def test_what_systems_leave_in_folders_is_passed_over_and_counted(folder: Path, tmp_path: Path) -> None:
    choice = choose_sources([folder])
    assert names(folder) == ["a.txt", "b.md", "drafts/c.txt", "drafts/old/d.txt"]
    assert dict(choice.passed_over) == {"hidden": 4, "empty": 1}  # a folder counts once
    # What is named itself is meant.
    assert [source.size for source in list_sources([folder / "_metadata" / "x.txt", folder / "empty.txt"])] == [
        len(GOOD),
        0,
    ]
    report = clean([folder], tmp_path / "out", "line", 0.0, exclude=["*.md"], max_dropped=1)
    assert "files passed over: 1 empty, 1 excluded, 4 hidden" in report.summary()
    assert Corpus.open(tmp_path / "out").about["passed_over"] == {"empty": 1, "excluded": 1, "hidden": 4}
    page = (tmp_path / "out" / "cleaning.html").read_text(encoding="utf-8")
    assert "files passed over: 1 empty, 1 excluded, 4 hidden" in page
    for only in ("_SUCCESS", ".DS_Store"):
        lone = write(tmp_path / f"lone{only}", **{only: b"x"})
        with pytest.raises(DataError, match=r"a folder without any file to read \(1 hidden\)"):
            choose_sources([lone])


@pytest.mark.parametrize(
    "patterns, expected",
    [
        ({"include": ["*.txt"]}, ["a.txt", "drafts/c.txt", "drafts/old/d.txt"]),
        ({"include": ["*.md", "c.*"]}, ["b.md", "drafts/c.txt"]),
        ({"exclude": ["drafts/*"]}, ["a.txt", "b.md"]),
        ({"exclude": ["*/old/*", "*.md"]}, ["a.txt", "drafts/c.txt"]),
        ({"include": ["drafts/*"], "exclude": ["d.txt"]}, ["drafts/c.txt"]),
        ({"include": ["[ab].*"]}, ["a.txt", "b.md"]),
    ],
)
def test_patterns(folder: Path, patterns: dict[str, list[str]], expected: list[str]) -> None:
    assert names(folder, **patterns) == expected


def test_patterns_fit_names_however_they_are_spelled(tmp_path: Path) -> None:
    """A Mac stores Hangul as single letters."""
    (tmp_path / unicodedata.normalize("NFD", "뉴스.txt")).write_bytes(GOOD)
    (tmp_path / "수필.txt").write_bytes(GOOD)
    for form in ("NFC", "NFD"):
        assert len(names(tmp_path, include=[unicodedata.normalize(form, "뉴*")])) == 1
        assert len(names(tmp_path, exclude=[unicodedata.normalize(form, "수필.*")])) == 1


def test_patterns_that_leave_nothing_say_so(folder: Path) -> None:
    with pytest.raises(
        DataError, match=r"--include, --exclude: no file is left to read \(1 empty, 4 hidden, 4 not inc"
    ):
        choose_sources([folder], include=["*.jsonl"])
    with pytest.raises(DataError, match="no file is left to read"):
        choose_sources([folder / "a.txt"], exclude=["*.txt"])


def test_objects_are_chosen_as_files_are(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    s3._make_client.cache_clear()
    with moto.mock_aws():
        client = boto3.client("s3")
        client.create_bucket(Bucket="texts")
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                client.put_object(Bucket="texts", Key=f"raw/{path.relative_to(folder)}", Body=path.read_bytes())
        choice = choose_sources(["s3://texts/raw"], ["*.txt"], ["drafts/old/*"])
        assert [source.name for source in choice.sources] == ["s3://texts/raw/a.txt", "s3://texts/raw/drafts/c.txt"]
        assert dict(choice.passed_over) == {"hidden": 4, "empty": 1, "not included": 1, "excluded": 1}
        assert choose_sources(["s3://texts/raw/_metadata/x.txt"]).sources[0].size == len(GOOD)
    s3._make_client.cache_clear()


def test_a_pipe_is_refused_instead_of_read_in_part(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="pipe: a pipe or device, which can be read only once; write it to a file"):
        list_sources([tmp_path / "pipe"])
    with pytest.raises(DataError, match="a pipe or device"):
        list_sources(["/dev/null"])


# --- damage


DAMAGED = {
    "cut.gz": gzip.compress(GOOD * 50)[:-9],
    "cut.bz2": bz2.compress(GOOD * 50)[:-9],
    "cut.xz": lzma.compress(GOOD * 50)[:-9],
    "cut.zst": zstandard.compress(os.urandom(5000).hex().encode())[:-9],
    "rows": b"PAR1\x15\x04\x15\0" + bytes(range(256)),
    "paper.pdf": b"%PDF-1.4\n",
    "greek": "Ηλιόλουστη μέρα\n".encode("iso8859-7") * 20,
}


@pytest.mark.parametrize("processes", [1, 2])
def test_what_is_damaged_is_skipped_and_named(tmp_path: Path, processes: int) -> None:
    source, out = (
        write(tmp_path / "in", **{"a.txt": GOOD, "z.txt": GOOD.replace("번째".encode(), b"")}),
        tmp_path / "out",
    )
    for name, data in DAMAGED.items():
        (source / name).write_bytes(data)
    (source / "gone").symlink_to(tmp_path / "nowhere")
    with pytest.raises(
        DataError, match=r"; \d more cannot be read; 2 others can: --exclude 'PATTERN' or --skip-damaged"
    ):
        clean([source], out, "line", 0.0)
    report = clean([source], out, "line", 0.0, processes=processes, skip_damaged=True)
    assert {Path(name).name for name in report.intake.damaged} == {*DAMAGED, "gone"}
    assert report.documents.kept["train"] >= 2 * len(TEXTS)
    assert "sources skipped, or their rest, because they cannot be read: 8" in report.summary()
    about = Corpus.open(out).about["damaged"]
    page = (out / "cleaning.html").read_text(encoding="utf-8")
    assert all(str(source / name) in about and name in page for name in DAMAGED)
    assert "truncated" in about[str(source / "cut.gz")] and "a PDF" in about[str(source / "paper.pdf")]


def test_a_resumed_cleaning_remembers_what_was_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for number in range(4):
        lines = "".join(f"{number}-{n}번째 글이다. 봄이 왔다.\n" for n in range(4000)).encode()
        (source / f"{number}.gz").write_bytes(gzip.compress(lines)[: -9 if number == 1 else None])
    monkeypatch.setattr("kogpt2_gluon.corpus.cleaning.parts.PART_BYTES", 1)
    expected = clean([source], tmp_path / "whole", "line", 0.0, skip_damaged=True)
    assembled = pipeline._assemble
    monkeypatch.setattr(pipeline, "_assemble", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        clean([source], tmp_path / "out", "line", 0.0, skip_damaged=True)
    monkeypatch.setattr(pipeline, "_assemble", assembled)
    with pytest.raises(DataError, match=r"1\.gz: truncated: .*\(--skip-damaged passed over it; say it again\)"):
        clean([source], tmp_path / "out", "line", 0.0)
    again = clean([source], tmp_path / "out", "line", 0.0, skip_damaged=True)
    assert again.intake.damaged == expected.intake.damaged and len(again.intake.damaged) == 1
    files = [Corpus.open(tmp_path / name).files("train")[0].read_bytes() for name in ("whole", "out")]
    assert files[0] == files[1]


def test_nothing_but_damage_is_an_error(tmp_path: Path) -> None:
    source = write(tmp_path / "in", **{name: data for name, data in DAMAGED.items() if "cut" not in name})
    with pytest.raises(DataError, match=r"greek: not UTF-8.*; 2 more cannot be read$"):
        clean([source], tmp_path / "out", "line", 0.0, skip_damaged=True)


# --- parts of archives


def _zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.txt", os.urandom(30_000).hex())
    return buffer.getvalue()


@pytest.mark.parametrize(
    "whole, data, parts",
    [
        ("corpus.tar", tar([text(TEXTS)] * 60), ["aa", "ab", "ac"]),
        ("corpus.tar", tar(TEXTS * 9), ["000", "001", "002"]),
        ("corpus.tar.gz", gzip.compress(tar([os.urandom(9000).hex()] * 9)), ["part0", "part1", "part2"]),
        ("data.zip", _zip(), ["part0", "part1073741824", "part2147483648"]),
        ("data.zip", _zip(), ["001", "002", "003"]),
        ("news.txt.gz", gzip.compress(os.urandom(30_000).hex().encode()), ["aa", "ab", "ac"]),
    ],
)
def test_parts_of_a_split_archive_are_named_as_such(tmp_path: Path, whole: str, data: bytes, parts: list[str]) -> None:
    folder, size = tmp_path / "in", -(-len(data) // 3)
    write(folder, **{f"{whole}.{part}": data[n * size : (n + 1) * size] for n, part in enumerate(parts)})
    (folder / "notes.txt").write_bytes(GOOD)
    found = admit(choose_sources([folder]).sources, KINDS["line"])
    assert [source.name for source in found.sources] == [str(folder / "notes.txt")]
    assert len(found.refused) == 3
    assert all(
        "a part of a split archive; --documents line does not read it" in str(fault) for _, fault in found.refused
    )
    # The command of the message makes the whole again.
    command = str(found.refused[0][1]).partition("unpack the whole: ")[2]
    assert command.endswith(f"> {folder / whole}") and os.system(command) == 0
    assert (folder / whole).read_bytes() == data


def test_parts_of_a_text_are_text(tmp_path: Path) -> None:
    """Parts that `split -l` makes, and those of the KoGPT-2 corpus."""
    files = {f"{stem}{part}": GOOD for stem in ("news.txt.", "wiki_news_corpus_", "b.part") for part in ("aa", "ab")}
    found = admit(choose_sources([write(tmp_path, **files)]).sources, KINDS["line"])
    assert len(found.sources) == 6 and not found.refused


def test_the_verb_chooses_and_skips(folder: Path, tmp_path: Path) -> None:
    (folder / "paper.pdf").write_bytes(b"%PDF-1.4\n")
    (folder / "old.txt").write_bytes("오래된 글이다.\n".encode("cp949"))
    command = ["clean", folder, "--documents", "line", "--out", tmp_path / "out", "--max-dropped", "1"]
    assert "--skip-damaged goes on with them" in kogpt2(*command, code=3).stderr
    done = kogpt2(*command, "--skip-damaged", "--exclude", "drafts/*", "--exclude", "*.md")
    assert "files passed over: 1 empty, 3 excluded, 4 hidden" in done.stdout and "paper.pdf: a PDF" in done.stdout
    assert "1 of 2 files read as cp949" in done.stdout
    about = json.loads((tmp_path / "out" / "corpus.json").read_text(encoding="utf-8"))
    assert [Path(source["path"]).name for source in about["sources"]] == ["a.txt", "old.txt"]
