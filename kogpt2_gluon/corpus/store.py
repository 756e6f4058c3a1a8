"""A cleaned corpus on disk: its folder, written and read.

The folder has ``train/corpus-00000.txt``, ``corpus-00001.txt``, ... and likewise ``test/``: plain UTF-8 in one of the
layouts of `kogpt2_gluon.corpus.layout`. ``corpus.json`` says which layout, from which sources, and how many documents.
``dropped.jsonl`` has samples of what cleaning dropped or changed, ``bad_utf8.tsv`` the places that were not UTF-8, and
``cleaning.html`` shows the losses on one page.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from kogpt2_gluon.corpus.layout import LAYOUTS, Layout
from kogpt2_gluon.corpus.not_a_corpus import not_a_corpus
from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.storage.files import fsync_stream
from kogpt2_gluon.storage.links import file_in, leads_out, read_file

SPLITS = ("train", "test")
CORPUS_FORMAT = "kogpt2-corpus"
CORPUS_VERSION = 1
CORPUS_FILE = "corpus.json"
FILE_SIZE = 256 << 20  # bytes after which the next document begins a new file
READ_BYTES = 256 << 10  # bytes of a corpus file read at a time


class StoredBlock(NamedTuple):
    """Whole documents of a corpus file, as stored: the piece of work of one process at a time."""

    path: Path
    layout: Layout
    data: bytes

    def documents(self) -> list[bytes]:
        """Returns the documents of the block as UTF-8, with ``\\n`` between the lines of one.

        DataError if the block is not UTF-8.
        """
        try:
            self.data.decode()
        except UnicodeDecodeError:
            raise DataError(f"{self.path}: not UTF-8, so not as it was cleaned; clean the corpus again") from None
        return self.layout.split(self.data)


class CorpusWriter:
    """Fills the folder of a corpus: splits, files, and last `corpus.json`."""

    def __init__(self, folder: Path, layout: Layout, file_size: int = FILE_SIZE) -> None:
        self._folder, self._layout, self._file_size = folder, layout, file_size
        self._streams: dict[str, BinaryIO] = {}
        self.files: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
        for split in SPLITS:
            (folder / split).mkdir()

    def add(self, split: str, document: bytes) -> None:
        """Appends a clean document: UTF-8, no empty lines, no line end at its end."""
        data = self._layout.join([document])
        self.add_stored(split, np.frombuffer(data, np.uint8), np.array([len(data)]))

    def add_stored(self, split: str, data: npt.NDArray[np.uint8], sizes: npt.NDArray[np.int64]) -> None:
        """Appends documents as `Layout.join` stores them: their bytes, and the size of each in them."""
        while len(sizes):
            if split not in self._streams or self.files[split][-1]["bytes"] >= self._file_size:
                self._begin_file(split)
                if lead := len(self._layout.lead):  # a file neither begins nor ends with a blank line
                    data, sizes = data[lead:], sizes.copy()
                    sizes[0] -= lead
            file = self.files[split][-1]
            ends = np.cumsum(sizes)
            count = min(len(sizes), 1 + int(np.searchsorted(ends, self._file_size - file["bytes"])))
            end = int(ends[count - 1])
            self._streams[split].write(data[:end].data)
            file["bytes"] += end
            file["documents"] += count
            data, sizes = data[end:], sizes[count:]

    def _begin_file(self, split: str) -> None:
        if split in self._streams:
            _close(self._streams[split])
        name = f"corpus-{len(self.files[split]):05d}.txt"
        self._streams[split] = (self._folder / split / name).open("xb", buffering=1 << 20)
        self.files[split].append({"name": name, "documents": 0, "bytes": 0})

    def close(self) -> None:
        """Closes the open files; a second call does nothing."""
        for stream in self._streams.values():
            _close(stream)

    def finish(self, about: dict[str, Any]) -> None:
        """Writes `corpus.json` with `about` (sources, counts, ...) between the format and the list of files."""
        self.close()
        head = {"format": CORPUS_FORMAT, "version": CORPUS_VERSION, "documents": self._layout.name}
        text = json.dumps({**head, **about, "files": self.files}, indent=2, ensure_ascii=False) + "\n"
        # A file name that is not UTF-8 arrives as lone surrogates; escaped, they are still JSON.
        (self._folder / CORPUS_FILE).write_bytes(text.encode("utf-8", "backslashreplace"))


def _close(stream: BinaryIO) -> None:
    """Forces a whole file onto the disk at once, so that the end does not have to wait for all of them."""
    if not stream.closed:
        fsync_stream(stream)
        stream.close()


class Corpus:
    """A cleaned corpus on disk. `layout` is how its documents are stored, `about` is its `corpus.json`."""

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        self.folder, self.about = folder, about
        self.layout = LAYOUTS[about["documents"]]

    @classmethod
    def open(cls, folder: Path) -> Corpus:
        """Opens the folder of a corpus. DataError if it is not one, is empty, or a file has changed its size."""
        corpus = cls(folder, _read_about(folder))
        for split in SPLITS:
            for file in corpus.about["files"][split]:
                path = folder / split / file["name"]
                size = path.stat().st_size if file_in(path.parent, file["name"]) else -1
                if size != file["bytes"]:
                    state = "missing" if size < 0 else f"{size:,} bytes long"
                    raise DataError(
                        f"{path}: {state}, but {CORPUS_FILE} says {file['bytes']:,} bytes; clean the corpus again"
                    )
                if leads_out(path):
                    raise DataError(f"{path}: a link out of the corpus's folder; put the file itself there")
        if not any(corpus.about["files"].values()):
            raise DataError(f"{folder}: an empty corpus")
        return corpus

    def files(self, split: str) -> list[Path]:
        """Returns the text files of a split in order; several processes can share them."""
        assert split in SPLITS, split
        return [self.folder / split / file["name"] for file in self.about["files"][split]]

    def count(self, split: str) -> int:
        """Returns the number of documents in a split."""
        return sum(file["documents"] for file in self.about["files"][split])

    def size(self, split: str) -> int:
        """Returns the bytes of a split's text files."""
        return sum(file["bytes"] for file in self.about["files"][split])

    def blocks(self, split: str) -> Iterator[StoredBlock]:
        """Yields a split in blocks of whole documents, in order: READ_BYTES each, or one document if that is longer."""
        border = self.layout.border
        for path in self.files(split):
            parts: list[bytes] = []  # since the last border; its bytes are searched once, however long a document is
            with path.open("rb", buffering=0) as file:
                while data := file.read(READ_BYTES):
                    # A border may lie across two reads, and then ends with the first byte of this one.
                    across = bool(parts) and len(border) == 2 and parts[-1][-1:] + data[:1] == border
                    end = data.rfind(border) + len(border)
                    if end < len(border):
                        end = 1 if across else 0
                    if end:
                        yield StoredBlock(path, self.layout, b"".join([*parts, data[:end]]))
                        parts = []
                    parts.append(data[end:])
            if any(parts):
                yield StoredBlock(path, self.layout, b"".join(parts))

    def documents(self, split: str) -> Iterator[str]:
        """Yields every document of a split in order; the lines of one are separated by ``\\n``."""
        for block in self.blocks(split):
            for document in block.documents():
                yield document.decode()

    def lines(self, split: str) -> Iterator[str]:
        """Yields every line of a split in order, without regard to documents."""
        for document in self.documents(split):
            yield from document.split("\n")


def open_train_splits(folders: Sequence[Path]) -> list[Corpus]:
    """Opens corpora that something is learnt from.

    Raises DataError if one is none or its train split is empty, RecipeError if one is named twice.
    """
    corpora = [Corpus.open(folder) for folder in folders]
    for corpus in corpora:
        if not corpus.count("train"):
            raise DataError(f"{corpus.folder}: its train split is empty; clean it again with a smaller --test-share")
    if len({corpus.folder.resolve() for corpus in corpora}) < len(corpora):
        raise RecipeError(f"{', '.join(map(str, folders))}: one corpus is named twice; name each once")
    return corpora


def split_layout(folder: Path) -> Layout | None:
    """Returns how the documents of a split's folder are stored, or None if it is not the folder of a corpus's split."""
    folder = folder.resolve()
    if folder.name not in SPLITS:
        return None
    try:
        about = json.loads((folder.parent / CORPUS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return _layout_of(about.get("documents")) if isinstance(about, dict) else None


def _layout_of(name: Any) -> Layout | None:
    return LAYOUTS.get(name) if isinstance(name, str) else None


def _read_about(folder: Path) -> dict[str, Any]:
    path = folder / CORPUS_FILE
    if not path.is_file():
        raise not_a_corpus(folder, CORPUS_FILE)
    try:
        about = json.loads(read_file(path).decode())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON: {error}") from None
    if not isinstance(about, dict) or about.get("format") != CORPUS_FORMAT:
        raise DataError(f"{path}: not the description of a cleaned corpus")
    if about.get("version") != CORPUS_VERSION:
        raise DataError(f"{path}: format version {about.get('version')}, but this release reads {CORPUS_VERSION}")
    if _layout_of(about.get("documents")) is None or not _lists_files(about.get("files")):
        raise DataError(f"{path}: damaged: it does not say how documents are stored, and where")
    return about


def _lists_files(files: Any) -> bool:
    return isinstance(files, dict) and all(
        isinstance(files.get(split), list) and all(map(_is_file, files[split])) for split in SPLITS
    )


def _is_file(file: Any) -> bool:
    """Returns True for the entry of a file: a name, not a path, which could lead out of the corpus, and counts."""
    if not isinstance(file, dict) or not isinstance(file.get("name"), str):
        return False
    return Path(file["name"]).name == file["name"] and all(
        type(file.get(count)) is int and file[count] >= 0 for count in ("documents", "bytes")
    )
