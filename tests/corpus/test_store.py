"""The corpus folder and the files below it: damage is named, nothing is half written."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kogpt2_gluon.corpus import store
from kogpt2_gluon.corpus.cleaning import clean
from kogpt2_gluon.corpus.layout import LINES, PARAGRAPHS, Layout
from kogpt2_gluon.corpus.store import Corpus, CorpusWriter
from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.storage.files import replace_file, replace_folder


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


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


def test_files_roll_between_documents(tmp_path: Path) -> None:
    writer = CorpusWriter(tmp_path, PARAGRAPHS, file_size=40)
    documents = [f"{number}\n" + "x" * number for number in range(1, 30)]
    for document in documents:
        writer.add("train", document.encode())
    writer.finish({})
    corpus = Corpus.open(tmp_path)
    assert len(corpus.files("train")) > 5
    assert list(corpus.documents("train")) == documents
    assert list(corpus.documents("test")) == []


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    st.lists(st.lists(st.sampled_from(["가", "나다 라", "x" * 9]), min_size=1, max_size=3), max_size=12),
    st.sampled_from([LINES, PARAGRAPHS]),
    st.integers(1, 40),
    st.integers(1, 5),
)
def test_documents_written_in_batches(texts: list[list[str]], layout: Layout, file_size: int, batch: int) -> None:
    """Any batches give the files that one document after another gives."""
    documents = [(" " if layout.is_one_line else "\n").join(lines).encode() for lines in texts]
    with tempfile.TemporaryDirectory() as name:
        folders = [Path(name) / "one", Path(name) / "many"]
        one, many = (CorpusWriter(_made(folder), layout, file_size) for folder in folders)
        for document in documents:
            one.add("test", document)
        for begin in range(0, len(documents), batch):
            stored = [layout.join([document]) for document in documents[begin : begin + batch]]
            assert b"".join(stored) == layout.join(documents[begin : begin + batch])
            sizes = np.array([len(document) for document in stored])
            many.add_stored("test", np.frombuffer(b"".join(stored), np.uint8), sizes)
        for writer in (one, many):
            writer.finish({})
        files = [
            {path.name: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()} for folder in folders
        ]
        assert files[0] == files[1]
        if documents:
            assert [text.encode() for text in Corpus.open(folders[1]).documents("test")] == documents


def read_line_by_line(path: Path, layout: Layout) -> list[str]:
    """The documents of a corpus file, read in the simplest way."""
    documents: list[str] = []
    lines: list[str] = []
    with path.open(encoding="utf-8", newline="\n") as stream:
        for line in stream:
            text = line.rstrip("\n")
            if layout.is_one_line:
                documents.append(text)
            elif text:
                lines.append(text)
            elif lines:
                documents.append("\n".join(lines))
                lines = []
    return [*documents, "\n".join(lines)] if lines else documents


@pytest.mark.parametrize("layout", [LINES, PARAGRAPHS])
@settings(deadline=None, derandomize=True, max_examples=200)
@given(
    files=st.lists(st.lists(st.sampled_from(["가", "a b", " ", "", "\n", "\r", "라" * 9]), max_size=8), max_size=3),
    size=st.integers(1, 12),
)
@example(files=[["a b", "\n", "가"]], size=4)
def test_blocks_are_the_documents(layout: Layout, files: list[list[str]], size: int) -> None:
    """The sizes of files, documents and reads do not matter; some of these files no cleaning would write."""
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        folder = Path(name)
        (folder / "train").mkdir()
        about: dict[str, Any] = {"documents": layout.name, "files": {"train": [], "test": []}}
        for number, documents in enumerate(files):
            path = folder / "train" / f"corpus-{number:05d}.txt"
            text = "".join(f"{document}\n{layout.lead.decode()}" for document in documents)
            path.write_bytes(text[number:].encode())  # the second without its first character
            about["files"]["train"].append({"name": path.name, "documents": 1, "bytes": path.stat().st_size})
        corpus = Corpus(folder, about)
        patch.setattr(store, "READ_BYTES", size)
        blocks = list(corpus.blocks("train"))
        read = [document.decode() for block in blocks for document in block.documents()]
        assert read == [text for path in corpus.files("train") for text in read_line_by_line(path, layout)]
        assert read == list(corpus.documents("train"))
        longest = max((len(document.encode()) for document in read), default=0)
        assert all(len(block.data) <= 2 * size + longest + 8 for block in blocks)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_raw_text_is_no_corpus(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("가")
    with pytest.raises(RecipeError, match="not a cleaned corpus but plain text; make one of it: kogpt2 clean"):
        Corpus.open(tmp_path / "a.txt")


def named(folder: Path, **change: Any) -> Path:
    """A corpus whose first file has another entry in corpus.json."""
    about = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))
    about["files"]["train"][0].update(change)
    (folder / "corpus.json").write_text(json.dumps(about), encoding="utf-8")
    return folder


@pytest.fixture
def small(tmp_path: Path) -> Path:
    (tmp_path / "source.txt").write_text("첫 번째 글이다.\n두 번째 글이다.\n", encoding="utf-8")
    clean([tmp_path / "source.txt"], tmp_path / "corpus", "line", 0)
    return tmp_path / "corpus"


@pytest.mark.parametrize("name", ["../../secret", "/etc/hostname", "..", ".", "", "a/b", 5, None, ["x"]])
def test_a_corpus_names_no_file_outside_its_folder(small: Path, tmp_path: Path, name: Any) -> None:
    (tmp_path / "secret").write_bytes(b"a password\n")
    with pytest.raises(DataError, match=r"corpus\.json: damaged|missing, but corpus\.json") as caught:
        Corpus.open(named(small, name=name, bytes=11))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("change", [{"name": "x" * 300}, {"name": "a\0b"}, {"bytes": "many"}, {"documents": 1.5}])
def test_a_corpus_with_an_odd_entry_is_one_line(small: Path, change: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"corpus\.json"):
        Corpus.open(named(small, **change))


def test_a_corpus_follows_no_link_out_of_its_folder(small: Path, tmp_path: Path) -> None:
    path = Corpus.open(small).files("train")[0]
    path.rename(tmp_path / "elsewhere.txt")
    path.symlink_to(tmp_path / "elsewhere.txt")
    with pytest.raises(DataError, match="a link out of the corpus's folder; put the file itself there"):
        Corpus.open(small)
