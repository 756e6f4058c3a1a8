"""How a cleaned corpus lies on disk.

A cleaned corpus is a folder: ``train/corpus-00000.txt``, ``corpus-00001.txt``, ... and likewise ``test/``, plain UTF-8,
one document a line (stored ``line``) or documents parted by one blank line (stored ``blank-line``), and
``corpus.json``, which says which, from what and how many. Beside them ``dropped.jsonl`` has samples of what cleaning
dropped or changed, ``bad_utf8.tsv`` the places that were not UTF-8, and ``cleaning.html`` a picture of the losses.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from kogpt2_gluon.errors import DataError, RecipeError

SPLITS = ("train", "test")
CORPUS_FORMAT = "kogpt2-corpus"
CORPUS_VERSION = 1
CORPUS_FILE = "corpus.json"
FILE_SIZE = 256 << 20  # bytes after which the next document begins a new file


def stored_bytes(documents: list[bytes], mode: str) -> bytes:
    """Clean documents (UTF-8, no empty lines, no line end at the end) as files hold them, one after another.

    Stored ``line`` each is its text and a line end, stored ``blank-line`` also a line end before it: what
    `framing_bytes` counts.
    """
    if not documents:
        return b""
    if mode == "line":
        return b"\n".join(documents) + b"\n"
    return b"\n" + b"\n\n".join(documents) + b"\n"


def framing_bytes(mode: str) -> int:
    """Bytes that `stored_bytes` adds to each document."""
    return 1 if mode == "line" else 2


class CorpusWriter:
    """Fills the folder of a corpus: splits, files, and at last `corpus.json`."""

    def __init__(self, folder: Path, mode: str, file_size: int = FILE_SIZE) -> None:
        assert mode in ("line", "blank-line"), mode
        self._folder, self._mode, self._file_size = folder, mode, file_size
        self._streams: dict[str, BinaryIO] = {}
        self.files: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
        for split in SPLITS:
            (folder / split).mkdir()

    def add(self, split: str, document: bytes) -> None:
        """Appends a clean document: UTF-8, no empty lines, no line end at its end."""
        data = stored_bytes([document], self._mode)
        self.add_stored(split, np.frombuffer(data, np.uint8), np.array([len(data)]))

    def add_stored(self, split: str, data: npt.NDArray[np.uint8], sizes: npt.NDArray[np.int64]) -> None:
        """Appends documents as `stored_bytes` joins them: their bytes, and the size of each there."""
        while len(sizes):
            if split not in self._streams or self.files[split][-1]["bytes"] >= self._file_size:
                self._begin_file(split)
                if self._mode == "blank-line":  # a file neither begins nor ends with a blank line
                    data, sizes = data[1:], sizes.copy()
                    sizes[0] -= 1
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
        """Closes the open files; more than once does no harm."""
        for stream in self._streams.values():
            _close(stream)

    def finish(self, about: dict[str, Any]) -> None:
        """Writes `corpus.json` with `about` (sources, counts, ...) between the format and the list of files."""
        self.close()
        head = {"format": CORPUS_FORMAT, "version": CORPUS_VERSION, "documents": self._mode}
        text = json.dumps({**head, **about, "files": self.files}, indent=2, ensure_ascii=False) + "\n"
        # A file name that is not UTF-8 reaches us as lone surrogates; escaped they are still JSON.
        (self._folder / CORPUS_FILE).write_bytes(text.encode("utf-8", "backslashreplace"))


def _close(stream: BinaryIO) -> None:
    """Puts a file on disk as soon as it is whole: not all of them are left to the end."""
    if not stream.closed:
        stream.flush()
        os.fsync(stream.fileno())
        stream.close()


class Corpus:
    """A cleaned corpus on disk. `mode` is how its documents are stored, `about` is its `corpus.json`."""

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        self.folder, self.about = folder, about
        self.mode: str = about["documents"]

    @classmethod
    def open(cls, folder: Path) -> Corpus:
        """Opens the folder `kogpt2 clean` wrote. DataError if it is not one, is empty, or a file changed its size."""
        corpus = cls(folder, _read_about(folder))
        for split in SPLITS:
            for file in corpus.about["files"][split]:
                path = folder / split / file["name"]
                size = path.stat().st_size if path.is_file() else -1
                if size != file["bytes"]:
                    state = "missing" if size < 0 else f"{size:,} bytes long"
                    raise DataError(
                        f"{path}: {state}, but {CORPUS_FILE} says {file['bytes']:,} bytes; clean the corpus again"
                    )
        if not any(corpus.about["files"].values()):
            raise DataError(f"{folder}: an empty corpus")
        return corpus

    def files(self, split: str) -> list[Path]:
        """The text files of a split in order; several processes can share them out."""
        assert split in SPLITS, split
        return [self.folder / split / file["name"] for file in self.about["files"][split]]

    def count(self, split: str) -> int:
        """Documents of a split."""
        return sum(file["documents"] for file in self.about["files"][split])

    def size(self, split: str) -> int:
        """Bytes of a split's text files."""
        return sum(file["bytes"] for file in self.about["files"][split])

    def documents(self, split: str) -> Iterator[str]:
        """Every document of a split in order; the lines of one are parted by ``\\n``."""
        for path in self.files(split):
            yield from read_stored(path, self.mode)

    def lines(self, split: str) -> Iterator[str]:
        """Every line of a split in order, document borders forgotten."""
        for document in self.documents(split):
            yield from document.split("\n")


def read_stored(path: Path, mode: str) -> Iterator[str]:
    """The documents of one file of a cleaned corpus, stored as `mode`. DataError if it is not UTF-8 after all."""
    lines: list[str] = []
    try:
        with path.open(encoding="utf-8", newline="\n") as stream:
            for line in stream:
                text = line.rstrip("\n")
                if mode == "line":
                    yield text
                elif text:
                    lines.append(text)
                elif lines:
                    yield "\n".join(lines)
                    lines = []
    except UnicodeDecodeError:
        raise DataError(f"{path}: not UTF-8, so not as it was cleaned; clean the corpus again") from None
    if lines:
        yield "\n".join(lines)


def _read_about(folder: Path) -> dict[str, Any]:
    path = folder / CORPUS_FILE
    if folder.is_file():
        raise RecipeError(f"{folder}: raw text; kogpt2 clean makes a corpus of it")
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; `kogpt2 clean` makes a corpus")
    if not path.is_file():
        raise DataError(f"{folder}: not a cleaned corpus (it has no {CORPUS_FILE}); `kogpt2 clean` makes one")
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path}: not JSON: {error}") from None
    if not isinstance(about, dict) or about.get("format") != CORPUS_FORMAT:
        raise DataError(f"{path}: not the description of a cleaned corpus")
    if about.get("version") != CORPUS_VERSION:
        raise DataError(f"{path}: format version {about.get('version')}, but this release reads {CORPUS_VERSION}")
    if about.get("documents") not in ("line", "blank-line") or not _lists_files(about.get("files")):
        raise DataError(f"{path}: damaged: it does not say how documents are stored, and where")
    return about


def _lists_files(files: Any) -> bool:
    return isinstance(files, dict) and all(
        isinstance(files.get(split), list)
        and all(isinstance(file, dict) and {"name", "documents", "bytes"} <= set(file) for file in files[split])
        for split in SPLITS
    )
