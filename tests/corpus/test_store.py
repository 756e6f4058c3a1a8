"""The corpus folder and the files below it: damage is named, nothing is half written."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kogpt2_gluon.corpus.store import Corpus, CorpusWriter, stored_bytes
from kogpt2_gluon.errors import RecipeError
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
    writer = CorpusWriter(tmp_path, "blank-line", file_size=40)
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
    st.sampled_from(["line", "blank-line"]),
    st.integers(1, 40),
    st.integers(1, 5),
)
def test_documents_written_in_batches(texts: list[list[str]], mode: str, file_size: int, batch: int) -> None:
    """Any batches give the files that one document after another gives."""
    documents = [("\n" if mode == "blank-line" else " ").join(lines).encode() for lines in texts]
    with tempfile.TemporaryDirectory() as name:
        folders = [Path(name) / "one", Path(name) / "many"]
        one, many = (CorpusWriter(_made(folder), mode, file_size) for folder in folders)
        for document in documents:
            one.add("test", document)
        for begin in range(0, len(documents), batch):
            stored = [stored_bytes([document], mode) for document in documents[begin : begin + batch]]
            assert b"".join(stored) == stored_bytes(documents[begin : begin + batch], mode)
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


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_raw_text_is_no_corpus(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("가")
    with pytest.raises(RecipeError, match="raw text; kogpt2 clean makes a corpus of it"):
        Corpus.open(tmp_path / "a.txt")
