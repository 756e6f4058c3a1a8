"""Documents: what one is in a source file, and how a cleaned corpus lies on disk.

A document is what the user says it is, never a guess:

- ``line``: every line of a text file;
- ``blank-line``: lines up to the next blank one (empty, or ASCII white space alone);
- any other word is a FIELD: the text under that key in every record of a JSON lines file.

A cleaned corpus is a folder: ``train/corpus-00000.txt``, ``corpus-00001.txt``, ... and likewise ``test/``, plain UTF-8,
one document a line (stored ``line``) or documents parted by one blank line (stored ``blank-line``), and
``corpus.json``, which says which, from what and how many.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, BinaryIO, Callable, Iterator, NamedTuple, Optional, Union

from kogpt2_gluon.data.files import open_source, text_suffix
from kogpt2_gluon.errors import DataError, RecipeError

JSON_SUFFIXES = (".jsonl", ".json", ".ndjson")
SPLITS = ("train", "test")
CORPUS_FORMAT = "kogpt2-corpus"
CORPUS_VERSION = 1
CORPUS_FILE = "corpus.json"
FILE_SIZE = 256 << 20  # bytes after which the next document begins a new file
LARGEST_DOCUMENT = 1 << 30  # bytes; a longer one means that blank lines were promised and are not there
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Document(NamedTuple):
    """The text of one document and its place.

    Lines of `text` are parted by ``\\n``. `line` counts from 1, `offset` is the byte where the document (for a FIELD:
    its record) begins, after decompression. `bad_utf8` has the byte offsets of lines left out as not UTF-8.
    """

    text: str
    path: Path
    line: int
    offset: int
    bad_utf8: tuple[int, ...] = ()


class Rejection(NamedTuple):
    """A document that could not be read, why, and where.

    `reason` is ``bad_utf8`` (then `bad_utf8` has the byte offset of each bad line's first bad byte), ``bad_json``,
    ``empty`` (a blank line between records), ``missing_field`` or ``field_not_text``.
    """

    reason: str
    path: Path
    line: int
    offset: int
    bad_utf8: tuple[int, ...] = ()


def stored_mode(documents: str) -> str:
    """How documents of this kind are stored once clean: one a line only if they are lines."""
    return "line" if documents == "line" else "blank-line"


def check_documents(paths: list[Path], documents: str) -> None:
    """Raises before anything is read if a file cannot hold such documents."""
    if not documents.strip():
        raise RecipeError("--documents is empty; say line, blank-line or the name of a JSON field")
    for path in paths:
        is_json = text_suffix(path) in JSON_SUFFIXES
        if documents in ("line", "blank-line") and is_json:
            raise DataError(f"{path}: JSON lines; name the field that holds the text: --documents FIELD")
        if documents not in ("line", "blank-line") and not is_json:
            raise DataError(
                f"{path}: --documents {documents} reads that field of JSON lines ({', '.join(JSON_SUFFIXES)}); "
                "for plain text say line or blank-line"
            )


def read_documents(
    path: Path, documents: str, on_read: Optional[Callable[[int], None]] = None
) -> Iterator[Union[Document, Rejection]]:
    """Every document of a source file, in order, or why it could not be read.

    Lines end at ``\\n`` alone (``\\r\\n`` is tolerated), and a byte order mark at the start is no text. `documents` is
    ``line``, ``blank-line`` or the name of a JSON field; `on_read` gets the size of each block read from disk.
    Memory is one document. Raises DataError if the file is missing or its compressed data is damaged.
    """
    check_documents([path], documents)
    with open_source(path, on_read) as stream:
        if documents == "line":
            yield from _read_lines(path, stream)
        elif documents == "blank-line":
            yield from _read_paragraphs(path, stream)
        else:
            yield from _read_field(path, stream, documents)


def _numbered_lines(stream: BinaryIO) -> Iterator[tuple[int, int, bytes]]:
    """(line number, byte offset, bytes without the line end) of every line."""
    offset = 0
    for number, raw in enumerate(stream, 1):
        line = raw.rstrip(b"\r\n")
        if number == 1 and line.startswith(BYTE_ORDER_MARK):
            yield number, len(BYTE_ORDER_MARK), line[len(BYTE_ORDER_MARK) :]
        else:
            yield number, offset, line
        offset += len(raw)


def _read_lines(path: Path, stream: BinaryIO) -> Iterator[Union[Document, Rejection]]:
    for number, offset, line in _numbered_lines(stream):
        try:
            yield Document(line.decode(), path, number, offset)
        except UnicodeDecodeError as error:
            yield Rejection("bad_utf8", path, number, offset, (offset + error.start,))


def _read_paragraphs(path: Path, stream: BinaryIO) -> Iterator[Union[Document, Rejection]]:
    lines: list[str] = []
    bad: list[int] = []
    first, start, size = 0, 0, 0

    def finish() -> Union[Document, Rejection]:
        if lines:
            return Document("\n".join(lines), path, first, start, tuple(bad))
        return Rejection("bad_utf8", path, first, start, tuple(bad))

    for number, offset, line in _numbered_lines(stream):
        if not line.strip():
            if lines or bad:
                yield finish()
                lines, bad, size = [], [], 0
            continue
        if not (lines or bad):
            first, start = number, offset
        try:
            lines.append(line.decode())
        except UnicodeDecodeError as error:
            bad.append(offset + error.start)
        size += len(line)
        if size > LARGEST_DOCUMENT:
            raise DataError(
                f"{path}: no blank line in {size:,} bytes from line {first} on; if its documents are lines, "
                "say --documents line"
            )
    if lines or bad:
        yield finish()


def _read_field(path: Path, stream: BinaryIO, field: str) -> Iterator[Union[Document, Rejection]]:
    for number, offset, line in _numbered_lines(stream):
        if not line.strip():
            yield Rejection("empty", path, number, offset)
            continue
        try:
            record = json.loads(line.decode())
        except UnicodeDecodeError as error:
            yield Rejection("bad_utf8", path, number, offset, (offset + error.start,))
        except (ValueError, RecursionError):
            yield Rejection("bad_json", path, number, offset)
        else:
            if not isinstance(record, dict) or field not in record:
                yield Rejection("missing_field", path, number, offset)
            elif not isinstance(record[field], str):
                yield Rejection("field_not_text", path, number, offset)
            else:
                yield Document(record[field], path, number, offset)


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
        if split not in self._streams or self.files[split][-1]["bytes"] >= self._file_size:
            self._begin_file(split)
        file, stream = self.files[split][-1], self._streams[split]
        # The blank line stands between two documents, so that a file neither begins nor ends with one.
        parting = b"\n" if self._mode == "blank-line" and file["documents"] else b""
        file["bytes"] += stream.write(parting + document + b"\n")
        file["documents"] += 1

    def _begin_file(self, split: str) -> None:
        if split in self._streams:
            self._streams[split].close()
        name = f"corpus-{len(self.files[split]):05d}.txt"
        self._streams[split] = (self._folder / split / name).open("xb", buffering=1 << 20)
        self.files[split].append({"name": name, "documents": 0, "bytes": 0})

    def close(self) -> None:
        """Closes the open files; more than once does no harm."""
        for stream in self._streams.values():
            stream.close()

    def finish(self, about: dict[str, Any]) -> None:
        """Writes `corpus.json` with `about` (sources, counts, ...) between the format and the list of files."""
        self.close()
        head = {"format": CORPUS_FORMAT, "version": CORPUS_VERSION, "documents": self._mode}
        text = json.dumps({**head, **about, "files": self.files}, indent=2, ensure_ascii=False) + "\n"
        # A file name that is not UTF-8 reaches us as lone surrogates; escaped they are still JSON.
        (self._folder / CORPUS_FILE).write_bytes(text.encode("utf-8", "backslashreplace"))


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
