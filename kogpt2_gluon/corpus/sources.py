"""Text sources: the files, folders and S3 prefixes a user names, each opened as one stream of plain UTF-8 bytes."""

from __future__ import annotations

import fnmatch
import io
import stat
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, BinaryIO, Callable

from kogpt2_gluon.corpus.encodings import Recoded
from kogpt2_gluon.corpus.packing import DECOMPRESSORS, Unpacked, packing_of
from kogpt2_gluon.errors import DataError
from kogpt2_gluon.storage.s3_url import is_s3_url, split_s3_url

READ_SIZE = 1 << 20  # bytes requested from the disk, or given to the reader, at a time


@dataclass(frozen=True)
class Source:
    """One file to read.

    `name` is a path, or ``s3://bucket/key``; `size` is the bytes stored (compressed, if it is); `mark` and `size`
    show whether it is still the same: `mark` is the time of its last change in nanoseconds, or its ETag.
    `encoding` and `line_end` say how its text is stored, `form` is that of its content ("": not looked at). They are
    what a first look found, and no part of its identity.
    """

    name: str
    size: int
    mark: str
    encoding: str = field(default="utf-8", compare=False)
    line_end: str = field(default="\n", compare=False)
    form: str = field(default="", compare=False)

    @property
    def path(self) -> Path | None:
        """The path on a mounted file system; None for an object of S3."""
        return None if self.name.startswith("s3://") else Path(self.name)

    @property
    def suffix(self) -> str:
        """The suffix without that of the compression, in lower case: ``.jsonl`` for ``a.jsonl.gz``."""
        name = PurePath(self.name)
        plain = name.with_suffix("") if name.suffix.lower() in DECOMPRESSORS else name
        return plain.suffix.lower()

    def to_row(self) -> list[Any]:
        """Returns the source for JSON: name, size and mark; encoding and line end only if they are not the usual."""
        row: list[Any] = [self.name, self.size, self.mark]
        usual = self.encoding == "utf-8" and self.line_end == "\n"
        return row if usual else [*row, self.encoding, self.line_end]

    @classmethod
    def from_row(cls, row: Sequence[Any]) -> Source:
        """Returns the source that `to_row` was called on."""
        name, size, mark, *stored = row
        return cls(str(name), int(size), str(mark), *map(str, stored))

    def open(self, on_read: Callable[[int], None] | None = None) -> BinaryIO:
        """Opens a stream of its text as UTF-8 with line ends ``\\n``, from any encoding.

        Gzip, bz2, xz and zstd data, by whatever name, is unpacked while it is read. A character that `encoding` does
        not have becomes a byte that is not UTF-8. All places are bytes of this stream. `on_read` is called with the
        number of bytes of each block read from disk or network. A stream that is neither unpacked nor recoded can
        seek. Raises DataError if the source cannot be opened; reading raises DataError where compressed data is
        truncated or damaged, where the disk fails, or where an object of S3 was replaced since it was listed.
        """
        stream = self.open_stored(on_read)
        if self.encoding == "utf-8" and self.line_end == "\n":
            return stream
        return io.BufferedReader(Recoded(stream, self.encoding, self.line_end), READ_SIZE)

    def open_stored(self, on_read: Callable[[int], None] | None = None) -> BinaryIO:
        """Opens a stream as `open` does, but in the source's own encoding."""
        raw = io.BufferedReader(self._open_raw(on_read), READ_SIZE)
        try:
            packing = packing_of(raw.peek(), self.name)
        except BaseException:
            raw.close()
            raise
        return raw if not packing else io.BufferedReader(Unpacked(self.name, raw, packing), READ_SIZE)

    def first_bytes(self, count: int) -> bytes:
        """Returns the first bytes as stored, compressed or not."""
        with io.BufferedReader(self._open_raw(None)) as raw:
            return raw.read(count)

    def _open_raw(self, on_read: Callable[[int], None] | None) -> io.RawIOBase:
        path = self.path
        if path is None:
            from kogpt2_gluon.storage.s3 import S3Stream

            return S3Stream(*split_s3_url(self.name), self.size, self.mark, on_read)
        try:
            return _CountedFile(path, on_read)
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from None


def local_source(path: str | Path) -> Source:
    """Returns the source for a file. DataError if there is no such file, or it cannot be accessed, or is a pipe."""
    try:
        status = Path(path).stat()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file or folder") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    if stat.S_ISFIFO(status.st_mode) or stat.S_ISSOCK(status.st_mode) or stat.S_ISCHR(status.st_mode):
        raise DataError(f"{path}: a pipe or device, which can be read only once; write it to a file first")
    return Source(str(path), status.st_size, str(status.st_mtime_ns))


@dataclass
class Choice:
    """The sources that arguments name, in order, and what was passed over: how many files for each reason.

    The reasons are ``hidden`` (a name that begins with ``.`` or ``_``, its own or a folder's), ``empty`` (0 bytes),
    ``excluded`` and ``not included`` (by patterns). `faults` are files that are listed but cannot be read.
    """

    sources: list[Source]
    passed_over: Counter[str]
    faults: list[tuple[str, DataError]]


def list_sources(arguments: Iterable[str | Path]) -> list[Source]:
    """Returns the sources of `choose_sources` without patterns. DataError if one of them cannot be read."""
    choice = choose_sources(arguments)
    if choice.faults:
        raise choice.faults[0][1]
    return choice.sources


def choose_sources(arguments: Iterable[str | Path], include: Sequence[str] = (), exclude: Sequence[str] = ()) -> Choice:
    """Returns the files that arguments name, sorted: a file, all files below a folder, all objects below an S3 prefix.

    In folders and below prefixes, names that begin with ``.`` or ``_`` (of files or of folders) and files of 0 bytes
    are passed over; named themselves, they are read. Links are followed, each folder once. With `include`, only files
    that fit one of its patterns are read; files that fit a pattern of `exclude` are not. A pattern fits a file's name,
    or its path below the folder that was named, where ``*`` also stands for ``/``. Raises DataError for a source that
    is missing, or a folder or prefix without files to read.
    """
    choice = Choice([], Counter(), [])
    for argument in arguments:
        before = Counter(choice.passed_over)
        found = list(_found_in(argument, choice))
        if not found:
            passed = choice.passed_over - before
            counts = ", ".join(f"{count:,} {reason}" for reason, count in sorted(passed.items()))
            raise DataError(f"{argument}: a folder without any file to read" + (f" ({counts})" if counts else ""))
        for source, below in found:
            fault = _fault_of_name(below, include, exclude)
            if fault:
                choice.passed_over[fault] += 1
            elif isinstance(source, Source):
                choice.sources.append(source)
            else:
                choice.faults.append(source)
    if not choice.sources and not choice.faults:
        counts = ", ".join(f"{count:,} {reason}" for reason, count in sorted(choice.passed_over.items()))
        raise DataError(f"--include, --exclude: no file is left to read ({counts})")
    return choice


_Found = tuple["Source | tuple[str, DataError]", str]  # a source, or a file with its fault; its path below the argument


def _found_in(argument: str | Path, choice: Choice) -> Iterator[_Found]:
    """Yields what an argument names, but for what is passed over in a folder, which is counted."""
    if is_s3_url(argument):
        yield from _objects_below(argument, choice)
        return
    path = Path(argument)
    if not path.is_dir():
        yield local_source(path), path.name
        return
    for entry in _walk(path, set(), choice):
        below = str(entry.relative_to(path))
        try:
            source = local_source(entry)
        except DataError as error:
            yield (str(entry), error), below
            continue
        if source.size:
            yield source, below
        else:
            choice.passed_over["empty"] += 1


def _objects_below(url: str | Path, choice: Choice) -> Iterator[_Found]:
    from kogpt2_gluon.storage.s3 import list_objects

    bucket, prefix = split_s3_url(url)
    folder = prefix.rstrip("*").rpartition("/")[0] if prefix.endswith("*") else prefix.rstrip("/")
    for item in list_objects(bucket, prefix, hidden=True):
        source = Source(f"s3://{item.bucket}/{item.key}", item.size, item.etag)
        below = item.key[len(folder) :].lstrip("/")
        if not below:  # named itself
            yield source, item.key.rpartition("/")[2]
        elif any(_is_hidden(part) for part in below.split("/")):
            choice.passed_over["hidden"] += 1
        elif not item.size:
            choice.passed_over["empty"] += 1
        else:
            yield source, below


def _walk(folder: Path, seen: set[Path], choice: Choice) -> Iterator[Path]:
    real = folder.resolve()
    if real in seen:  # a link back up
        return
    seen.add(real)
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror}") from None
    for entry in entries:
        if _is_hidden(entry.name):
            choice.passed_over["hidden"] += 1
        elif entry.is_dir():
            yield from _walk(entry, seen, choice)
        else:
            yield entry


def _is_hidden(name: str) -> bool:
    """Returns True for what a system or another program keeps for itself: ``.DS_Store``, ``_SUCCESS``, ``__MACOSX``."""
    return name.startswith((".", "_"))


def _fault_of_name(below: str, include: Sequence[str], exclude: Sequence[str]) -> str:
    """Returns why a file is passed over by its name, or ""."""
    if any(_fits(below, pattern) for pattern in exclude):
        return "excluded"
    if include and not any(_fits(below, pattern) for pattern in include):
        return "not included"
    return ""


def _fits(below: str, pattern: str) -> bool:
    # A Mac spells Korean names in single letters.
    below, pattern = (unicodedata.normalize("NFC", text) for text in (below, pattern))
    return fnmatch.fnmatchcase(below, pattern) or fnmatch.fnmatchcase(below.rpartition("/")[2], pattern)


class _CountedFile(io.FileIO):
    """A file that reports each read from disk, for a progress bar: bytes as stored, compressed or not."""

    def __init__(self, path: Path, on_read: Callable[[int], None] | None) -> None:
        super().__init__(str(path))
        self._path, self._on_read = path, on_read

    def readinto(self, buffer: Any) -> int:
        try:
            count = super().readinto(buffer) or 0
        except OSError as error:
            raise DataError(f"{self._path}: cannot be read: {error.strerror}") from None
        if self._on_read is not None and count:
            self._on_read(count)
        return count
