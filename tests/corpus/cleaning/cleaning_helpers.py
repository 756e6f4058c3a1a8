"""Korean-like documents with duplicates and damage, and what must hold after every cleaning."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import pytest

from kogpt2_gluon.corpus import records as records_module
from kogpt2_gluon.corpus.cleaning import PAGE_FILE, CleaningReport, clean, parts, pipeline
from kogpt2_gluon.corpus.store import Corpus

WORDS = ["영화", "정말", "재미있다", "ㅋㅋ", "배우", "연기", "최고", "별로", "good", "12", "그리고", "나는"]
ALL_STAGES = ["duplicate_lines.enabled=true", "duplicate_lines.min_chars=6", "near_duplicates.enabled=true"]


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def folder_in_memory() -> tempfile.TemporaryDirectory[str]:
    """For tests that clean hundreds of times: on a disk, making things durable takes most of their time."""
    memory = Path("/dev/shm")
    return tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None)


def sentence(words: random.Random) -> str:
    return " ".join(words.choices(WORDS, k=words.randint(1, 12)))


def write_documents(path: Path, count: int, seed: int = 1) -> Path:
    """Documents of some lines, with duplicates of lines and documents, near duplicates, and damage."""
    words = random.Random(seed)
    known = ["\n".join(sentence(words) for _ in range(5)) for _ in range(max(1, count // 10))]
    texts = []
    for _ in range(count):
        kind = words.random()
        text = words.choice(known)
        if kind < 0.6:
            text = "\n".join(sentence(words) for _ in range(words.randint(1, 8)))
        elif kind < 0.8:
            text = text.replace("영화", "배우", 1) + "\n\n" + sentence(words)
        texts.append(text.encode() if kind < 0.98 else b"\xff" + text.encode())
    records = [text + b"\n\n" for text in texts]
    return write(path, b"".join(records))


def small_parts(patch: pytest.MonkeyPatch, block_bytes: int = 2000, part_bytes: int = 8000) -> None:
    patch.setattr(records_module, "BLOCK_BYTES", block_bytes)
    patch.setattr(parts, "PART_BYTES", part_bytes)


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of all files, by name; the page's title and heading, which name the folder, are made the same."""
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    if page := files.get(PAGE_FILE):
        for before, after in ((b"<title>", b": "), (b"<h1>", b"</h1>")):
            assert page.count(before + folder.name.encode() + after) == 1
            page = page.replace(before + folder.name.encode() + after, before + after)
        files[PAGE_FILE] = page
    return files


def check_counts(report: CleaningReport, out: Path) -> None:
    """Read = kept + every reason, in all and by source; what is kept is what lies on disk; the JSON says the same."""
    corpus = Corpus.open(out)
    for source in [report, *report.sources]:
        for count in (source.documents, source.lines):
            assert count.read == sum(count.kept.values()) + sum(count.dropped.values())
            assert all(number > 0 for number in [*count.kept.values(), *count.dropped.values()])
    for split in ("train", "test"):
        stored = list(corpus.documents(split))
        assert len(stored) == report.documents.kept[split] == corpus.count(split)
        assert sum(text.count("\n") + 1 for text in stored) == report.lines.kept[split]
        assert sum(len(text.replace("\n", "").encode()) for text in stored) == report.bytes_kept[split]
        assert sum(path.stat().st_size for path in corpus.files(split)) == corpus.size(split)
        assert sum(source.lines.kept[split] for source in report.sources) == report.lines.kept[split]
    assert corpus.about["counts"]["documents"] == report.documents.to_dict()
    assert [source["counts"] for source in corpus.about["sources"]] == [source.counts() for source in report.sources]


def interrupt(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    """Leaves sources a.txt and b.txt in a folder, and the work folder of a cleaning of both that was interrupted."""
    small_parts(patch)
    sources = [write_documents(folder / f"{name}.txt", 100, ord(name)) for name in "ab"]
    with patch.context() as broken:
        broken.setattr(pipeline, "_assemble", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            clean(sources, folder / "out", "blank-line")
    assert (folder / "out.work" / "part-00000").is_dir()
    return folder
