"""The two kinds of places for a mirror of checkpoints: a folder, and a prefix of S3.

Both hold ``step-NNNNNNNN/`` with the files of a checkpoint, and the text files ``latest`` and ``best``, as a folder of
checkpoints does. A checkpoint is whole or absent in both: in a folder it gets its name once all of it is on disk; in S3
its manifest.json is uploaded last, and one without a manifest does not count.
"""

from __future__ import annotations

import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path

import xxhash

from kogpt2_gluon.errors import DataError, DiskFullError, RecipeError
from kogpt2_gluon.runs.checkpoint_folder import FOLDER
from kogpt2_gluon.runs.manifest import MANIFEST, FileFacts, same_as_written
from kogpt2_gluon.storage.disk import free_bytes
from kogpt2_gluon.storage.files import (
    commit_folder,
    copy_file,
    move,
    remove_file,
    remove_folder,
    remove_partials,
    write_file,
)
from kogpt2_gluon.storage.s3_parts import Content, part_size_for
from kogpt2_gluon.storage.s3_prefix import CHECK, S3Prefix
from kogpt2_gluon.storage.s3_url import is_s3_url
from kogpt2_gluon.wording import gigabytes

UNFINISHED = ".unfinished"  # a copy under way, which the next attempt goes on with
SMALL = 64 << 20  # bytes; the text files of a checkpoint have far less


class Place(ABC):
    """Where a mirror keeps checkpoints. Errors are DataError, RecipeError, DiskFullError or OSError.

    Attributes
    ----------
    name : str
        As a user knows it.
    """

    name: str

    @abstractmethod
    def checkpoints(self) -> list[str]:
        """Lists the names of the checkpoints that are there whole, the one of most steps first."""

    @abstractmethod
    def read(self, name: str) -> bytes | None:
        """Reads a small file, such as ``latest`` or ``step-00000010/state.json``; None if there is none."""

    @abstractmethod
    def write(self, name: str, content: bytes) -> None:
        """Writes a small file, which is there whole or as it was."""

    @abstractmethod
    def remove_file(self, name: str) -> None:
        """Removes a small file, if it is there."""

    @abstractmethod
    def put(self, source: Path, files: dict[str, FileFacts]) -> int:
        """Copies a checkpoint that is not there, or not whole; returns the bytes that were sent.

        Files of it that an interrupted call left are not sent again. FileNotFoundError, naming a file of `source`, if
        that is gone; DataError if a file differs from its hashes.
        """

    @abstractmethod
    def sizes(self, name: str) -> dict[str, int]:
        """Lists the files of a checkpoint that is there, with their bytes."""

    @abstractmethod
    def fetch(self, name: str, folder: Path, files: Iterable[str]) -> None:
        """Copies files of a checkpoint into an existing folder. The caller compares their hashes."""

    @abstractmethod
    def move(self, name: str, aside: str) -> None:
        """Moves a checkpoint into the folder `aside`, where it keeps its name."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Removes a checkpoint: from the first moment on it does not count any more."""

    @abstractmethod
    def tidy(self, wanted: str) -> None:
        """Removes what interrupted calls left of all checkpoints but `wanted`."""

    @abstractmethod
    def check_writable(self) -> None:
        """Raises an error if nothing can be written there; leaves nothing."""


def place_of(mirror: str) -> Place:
    """Returns the place that ``checkpoint.mirrors`` names."""
    return S3Place(mirror) if is_s3_url(mirror) else FolderPlace(Path(mirror))


def is_a_checkpoint(name: str) -> bool:
    """Returns True for the name of a checkpoint's folder."""
    return FOLDER.fullmatch(name) is not None


def by_step(names: Iterable[str]) -> list[str]:
    """Sorts names of checkpoints, the one of most steps first."""
    return sorted(names, key=lambda name: int(name.removeprefix("step-")), reverse=True)


class FolderPlace(Place):
    """A mirror in a folder, on this machine or mounted from another one."""

    def __init__(self, folder: Path) -> None:
        self._folder, self.name = folder, str(folder)
        self._used = False  # True once something was seen there: it cannot be empty again

    def checkpoints(self) -> list[str]:
        try:
            found = by_step(each.name for each in self._folder.iterdir() if is_a_checkpoint(each.name))
        except FileNotFoundError:
            found = []
        if self._used and not found:
            raise DataError(f"{self.name}: its checkpoints are gone; is it still mounted?")
        self._used = self._used or bool(found)
        return found

    def read(self, name: str) -> bytes | None:
        try:
            with (self._folder / name).open("rb") as file:
                content = file.read(SMALL + 1)
        except (FileNotFoundError, NotADirectoryError):
            return None
        if len(content) > SMALL:
            raise DataError(f"{self._folder / name}: above {SMALL:,} bytes, which nothing of that name has")
        return content

    def write(self, name: str, content: bytes) -> None:
        write_file(self._folder / name, content)

    def remove_file(self, name: str) -> None:
        remove_file(self._folder / name)

    def put(self, source: Path, files: dict[str, FileFacts]) -> int:
        self._folder.mkdir(parents=True, exist_ok=True)
        partial, sent = self._folder / f".{source.name}.{_mark_of(files)}{UNFINISHED}", 0
        partial.mkdir(exist_ok=True)
        missing = [name for name, facts in files.items() if not same_as_written(partial / name, facts)]
        self._check_room(source.name, sum(files[name].size for name in missing))
        for name in missing:
            copy_file(source / name, partial / name)
            if not same_as_written(partial / name, files[name]):
                (partial / name).unlink()
                where = partial.parent if same_as_written(source / name, files[name]) else source
                raise DataError(f"{where}: {source.name}/{name} differs from its hashes after it was copied")
            sent += files[name].size
        copy_file(source / MANIFEST, partial / MANIFEST)
        commit_folder(partial, self._folder / source.name)
        self._used = True
        return sent

    def _check_room(self, name: str, size: int) -> None:
        free = free_bytes(self._folder)
        if free < size:
            raise DiskFullError(
                f"{self.name}: {name} needs {gigabytes(size)} more, and {gigabytes(free)} are free there"
            )

    def sizes(self, name: str) -> dict[str, int]:
        return {file.name: file.stat().st_size for file in (self._folder / name).iterdir() if file.is_file()}

    def fetch(self, name: str, folder: Path, files: Iterable[str]) -> None:
        for each in files:
            copy_file(self._folder / name / each, folder / each)

    def move(self, name: str, aside: str) -> None:
        (self._folder / aside).mkdir(exist_ok=True)
        move(self._folder / name, self._folder / aside / name)

    def remove(self, name: str) -> None:
        remove_folder(self._folder / name)

    def tidy(self, wanted: str) -> None:
        resumable = [path.name for path in self._folder.glob(f".{wanted}.*{UNFINISHED}")]
        remove_partials(self._folder)
        for path in self._folder.glob(f".*{UNFINISHED}"):
            if path.name not in resumable:
                shutil.rmtree(path)
        for path in self._folder.glob(f"{CHECK}*"):
            path.rmdir()

    def check_writable(self) -> None:
        place = self._folder.absolute()
        while not place.exists() and place != place.parent:
            place = place.parent
        try:
            Path(tempfile.mkdtemp(prefix=CHECK, dir=place)).rmdir()
        except OSError as error:
            raise RecipeError(f"{self.name}: cannot be written to ({error.strerror})") from None


class S3Place(Place):
    """A mirror below ``s3://bucket/prefix``."""

    def __init__(self, url: str) -> None:
        self._objects = S3Prefix(url)
        self.name = self._objects.url

    def checkpoints(self) -> list[str]:
        return by_step(name for name, files in self._folders().items() if MANIFEST in files)

    def _folders(self) -> dict[str, dict[str, int]]:
        """Lists the files below each checkpoint's name, with their bytes."""
        found: dict[str, dict[str, int]] = {}
        for name, size in self._objects.sizes().items():
            folder, _, file = name.partition("/")
            if is_a_checkpoint(folder):
                found.setdefault(folder, {})[file] = size
        return found

    def sizes(self, name: str) -> dict[str, int]:
        return self._folders().get(name, {})

    def read(self, name: str) -> bytes | None:
        return self._objects.read(name, SMALL)

    def write(self, name: str, content: bytes) -> None:
        self._objects.write(name, content)

    def remove_file(self, name: str) -> None:
        self._objects.remove([name])

    def put(self, source: Path, files: dict[str, FileFacts]) -> int:
        manifest, sent = (source / MANIFEST).read_bytes(), 0
        for name, facts in files.items():
            with (source / name).open("rb") as file:
                sent += self._objects.upload(file, _content_of(source / name, facts), f"{source.name}/{name}")
        for name in self.sizes(source.name):
            if name not in files and name != MANIFEST:
                self._objects.remove([f"{source.name}/{name}"])
        self._objects.write(f"{source.name}/{MANIFEST}", manifest)
        return sent

    def fetch(self, name: str, folder: Path, files: Iterable[str]) -> None:
        for each in files:
            self._objects.download(f"{name}/{each}", folder / each)

    def move(self, name: str, aside: str) -> None:
        files = self._in_order(name)
        for file in reversed(files):  # its manifest last
            self._objects.copy(f"{name}/{file}", f"{aside}/{name}/{file}")
        self._objects.remove(f"{name}/{file}" for file in files)

    def remove(self, name: str) -> None:
        self._objects.remove(f"{name}/{file}" for file in self._in_order(name))

    def _in_order(self, name: str) -> list[str]:
        """Lists the files of a checkpoint, its manifest first."""
        return sorted(self.sizes(name), key=lambda file: file != MANIFEST)

    def tidy(self, wanted: str) -> None:
        for name, upload in self._objects.unfinished():
            folder = name.partition("/")[0]
            if name.startswith(CHECK) or (is_a_checkpoint(folder) and folder != wanted):
                self._objects.abort(name, upload)
        for folder, files in self._folders().items():
            if MANIFEST not in files and folder != wanted:
                self._objects.remove(f"{folder}/{file}" for file in files)

    def check_writable(self) -> None:
        self._objects.check_writable()


def _mark_of(files: dict[str, FileFacts]) -> str:
    """Names the content of all files of a checkpoint."""
    return xxhash.xxh3_128_hexdigest(repr(sorted(files.items())).encode())[:12]


def _content_of(path: Path, facts: FileFacts) -> Content:
    """Describes a file for an upload; each block is compared with its hash before it is sent."""
    mark = f"xxh3-128 {facts.block_bytes} {xxhash.xxh3_128_hexdigest(','.join(facts.hashes).encode())}"
    if not facts.block_bytes:  # an older checkpoint has one hash of the whole file
        if not same_as_written(path, facts):
            raise DataError(f"{path}: differs from its hash; it is not copied to a mirror")
        return Content(facts.size, part_size_for(facts.size, 1), mark, lambda start, body: None)

    def check(start: int, body: bytes) -> None:
        for at in range(0, max(1, len(body)), facts.block_bytes):
            block = body[at : at + facts.block_bytes]
            if xxhash.xxh3_128_hexdigest(block) != facts.hashes[(start + at) // facts.block_bytes]:
                raise DataError(f"{path}: differs from its hash at byte {start + at:,}; it is not copied to a mirror")

    return Content(facts.size, part_size_for(facts.size, facts.block_bytes), mark, check)
