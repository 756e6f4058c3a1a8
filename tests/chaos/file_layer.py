"""Counts the file operations of this process below a folder, and does something in front of a chosen one of them.

It is armed inside a process that trains (trainer.py), in front of everything that Python calls: opening a
file to write, each write that reaches the operating system, fsync, renames, new and removed names. So a test can count
the operations of a run, and then kill a real process, fill its disk or fail a call at each of them in turn.
"""

from __future__ import annotations

import builtins
import contextlib
import io
import os
import re
import signal
import subprocess
import threading
import time
from typing import Any, Callable

NAMES = ("rename", "replace", "mkdir", "rmdir", "unlink", "remove", "truncate", "link", "symlink")
HIDDEN = re.compile(r"\.([\w.-]+?)\.[0-9a-f]{12}\.partial")


class FileLayer:
    """Counts and disturbs the operations on the files below a folder.

    Parameters
    ----------
    folder : str
        Operations on paths outside of it are neither counted nor disturbed.
    do : str
        One of :data:`ACTIONS`, with `given` as its arguments.
    at : int, optional
        The number of the operation, from 1, in front of which `do` is done; 0: in front of every one.
    log : str, optional
        A file that gets a line for each operation, with the (monotonic) time.
    without : str, optional
        A folder in the folder that does not count.
    exchanges : bool, optional
        False: this file system cannot exchange two names.
    """

    def __init__(
        self,
        folder: str,
        do: str = "nothing",
        at: int = 0,
        log: str = "",
        without: str = "",
        exchanges: bool = True,
        **given: Any,
    ) -> None:
        self.folder, self._without = _path_of(folder), _path_of(without) if without else ""
        self._at, self._given, self.exchanges = at, given, exchanges
        self._action = ACTIONS[do]
        self._calls, self._lock, self._inside = 0, threading.Lock(), threading.local()
        self.unforced: set[str] = set()  # files that were written and not yet forced onto the disk
        self._log = os.open(log, os.O_CREAT | os.O_APPEND | os.O_WRONLY) if log else -1
        self.descriptor_flags = os.O_WRONLY | os.O_RDWR | os.O_CREAT

    def before(self, kind: str, *paths: Any, write: Callable[[float], int] | None = None) -> None:
        """Is called in front of an operation; `write` makes a part of a write."""
        mine = [path for path in map(_path_of, paths) if path and self._has(path)]
        if not mine or getattr(self._inside, "value", False):
            return
        self._inside.value = True  # what an action does to files is not counted
        try:
            with self._lock:
                self._calls += 1
                number = self._calls
                if self._log >= 0:
                    shown = " ".join(HIDDEN.sub(r".\1.*", os.path.relpath(path, self.folder)) for path in mine)
                    os.write(self._log, f"{time.monotonic():.6f} {kind} {shown}\n".encode())
            if number == self._at or not self._at:
                self._action(self, number, kind, write, **self._given)
            self._note(kind, mine)
        finally:
            self._inside.value = False

    def _note(self, kind: str, paths: list[str]) -> None:
        """Keeps account of what is not yet on the disk."""
        if kind == "write":
            self.unforced.add(paths[0])
        elif kind == "fsync":
            self.unforced.discard(paths[0])
        elif kind in ("rename", "replace") and len(paths) == 2:
            for path in [each for each in self.unforced if _is_in(each, paths[0])]:
                self.unforced.remove(path)
                self.unforced.add(paths[1] + path[len(paths[0]) :])

    def _has(self, path: str) -> bool:
        return _is_in(path, self.folder) and not (self._without and _is_in(path, self._without))


def _is_in(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder + os.sep)


def _path_of(path: Any) -> str:
    """Returns the absolute path of a name or of an open file; "" if there is none."""
    if isinstance(path, tuple):  # a name in an open folder
        name, folder = path
        return os.path.join(_path_of(folder), os.fspath(name)) if folder is not None else _path_of(name)  # noqa: PTH118
    if isinstance(path, int):
        try:
            return os.readlink(f"/proc/self/fd/{path}")  # noqa: PTH115
        except OSError:
            return ""
    return os.path.abspath(os.fsdecode(path))  # noqa: PTH100


# ---- what is done ----------------------------------------------------------------------------------------------------


def _nothing(layer: FileLayer, number: int, kind: str, write: Any) -> None:
    pass


def _kill(layer: FileLayer, number: int, kind: str, write: Any, torn: float = 0.0) -> None:
    """Kills this process (-9), after the share `torn` of a write is made."""
    if write and torn:
        write(torn)
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def _cut_power(layer: FileLayer, number: int, kind: str, write: Any) -> None:
    """Kills this process, and takes back what it wrote without forcing it onto the disk, as a power cut may."""
    for path in layer.unforced:
        with contextlib.suppress(FileNotFoundError):
            os.truncate(path, 0)
    _kill(layer, number, kind, write)


def _touch(layer: FileLayer, number: int, kind: str, write: Any, file: str) -> None:
    _REAL["open"](file, "ab").close()


def _fill(layer: FileLayer, number: int, kind: str, write: Any, file: str) -> None:
    """Fills the disk of `file` with it."""
    with _REAL["open"](file, "ab", buffering=0) as stream:
        size = 1 << 20
        while size:
            try:
                stream.write(bytes(size))
            except OSError:
                size //= 2


def _run(layer: FileLayer, number: int, kind: str, write: Any, argv: list[str]) -> None:
    """Runs a command, such as a remount."""
    subprocess.run(argv, capture_output=True, check=False)


def _chmod(layer: FileLayer, number: int, kind: str, write: Any, path: str, mode: int) -> None:
    os.chmod(path, mode)  # noqa: PTH101


def _fail(layer: FileLayer, number: int, kind: str, write: Any, error: int) -> None:
    """Fails the operation, as a file server that went away or came back does."""
    raise OSError(error, os.strerror(error), layer.folder)


def _wait(layer: FileLayer, number: int, kind: str, write: Any, seconds: float) -> None:
    time.sleep(seconds)


def _signal(layer: FileLayer, number: int, kind: str, write: Any, number_of_signal: int) -> None:
    os.kill(os.getpid(), number_of_signal)


ACTIONS: dict[str, Callable[..., None]] = {
    "nothing": _nothing,
    "kill": _kill,
    "cut-power": _cut_power,
    "fill": _fill,
    "touch": _touch,
    "run": _run,
    "chmod": _chmod,
    "fail": _fail,
    "wait": _wait,
    "signal": _signal,
}


# ---- how it gets in front --------------------------------------------------------------------------------------------

_REAL: dict[str, Any] = {"open": io.open}


def arm(layer: FileLayer) -> None:
    """Puts the layer in front of this process's file operations, for good."""
    for name in NAMES:
        setattr(os, name, _named(layer, name, getattr(os, name)))
    for name in ("fsync", "fdatasync", "ftruncate", "write", "pwrite"):
        setattr(os, name, _descriptor(layer, name, getattr(os, name)))
    os.open = _os_open(layer, os.open)  # type: ignore[assignment]
    builtins.open = io.open = _open(layer)  # type: ignore[assignment]
    # shutil copies from one descriptor to another; without this call it writes as everybody does.
    import shutil

    shutil._USE_CP_SENDFILE = False  # type: ignore[attr-defined]
    from kogpt2_gluon.storage import files  # it calls the system without Python's help

    exchange = files.exchange if layer.exchanges else lambda one, other: False
    files.exchange = _named(layer, "exchange", exchange)


def _named(layer: FileLayer, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def wrapped(path: Any, *others: Any, dir_fd: int | None = None, **named: Any) -> Any:
        layer.before(name, (path, dir_fd), *[each for each in others if isinstance(each, (str, os.PathLike))])
        return function(path, *others, **({} if dir_fd is None else {"dir_fd": dir_fd}), **named)

    return wrapped


def _descriptor(layer: FileLayer, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def wrapped(descriptor: Any, *others: Any) -> Any:
        number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
        layer.before(name, number)
        return function(descriptor, *others)

    return wrapped


def _os_open(layer: FileLayer, function: Callable[..., int]) -> Callable[..., int]:
    def wrapped(path: Any, flags: int, *others: Any, dir_fd: int | None = None, **named: Any) -> int:
        if flags & layer.descriptor_flags:
            layer.before("open", (path, dir_fd))
        return function(path, flags, *others, dir_fd=dir_fd, **named)

    return wrapped


def _open(layer: FileLayer) -> Callable[..., Any]:
    class Raw(io.FileIO):
        """A file each of whose writes the layer sees."""

        def write(self, content: Any, /) -> int:
            whole = memoryview(content).cast("B")

            def part(share: float) -> int:
                return io.FileIO.write(self, whole[: int(len(whole) * share)])

            layer.before("write", self.fileno(), write=part)
            return io.FileIO.write(self, whole)

    def wrapped(file: Any, mode: str = "r", buffering: int = -1, *rest: Any, **named: Any) -> Any:
        if isinstance(file, int) or not set(mode) & set("wxa+") or not layer._has(_path_of(file)):
            return _REAL["open"](file, mode, buffering, *rest, **named)
        layer.before("open", file)
        raw = Raw(file, mode.replace("b", "").replace("t", ""))
        if buffering == 0:
            return raw
        binary: Any = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        if "b" in mode:
            return binary
        text = io.TextIOWrapper(binary, *rest, line_buffering=buffering == 1, **named)  # encoding, errors, newline
        text.mode = mode  # type: ignore[misc]
        return text

    return wrapped
