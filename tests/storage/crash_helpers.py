"""Makes a chosen file operation fail, so that a test can let a program die at each of them in turn."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable

import pytest

from kogpt2_gluon.storage import files

Operation = tuple[Any, str]  # where a function is looked up, and its name there
FILE_OPERATIONS: list[Operation] = [
    (Path, "mkdir"),
    (Path, "open"),
    (Path, "rename"),
    (Path, "replace"),
    (os, "fsync"),
    (files, "exchange"),
    (shutil, "copyfile"),
    (shutil, "copymode"),
]


class PowerCut(BaseException):
    """Nothing of ours catches it to clean up after itself, except to let it pass."""


class Crash:
    """Lets the `at`-th call of the wrapped operations fail, before or after its work; `calls` counts them."""

    def __init__(
        self,
        patch: pytest.MonkeyPatch,
        at: int,
        after: bool,
        error: type[BaseException],
        operations: list[Operation] = FILE_OPERATIONS,
    ) -> None:
        self.calls, self._at, self._after, self._error = 0, at, after, error
        for owner, name in operations:
            patch.setattr(owner, name, self._wrap(getattr(owner, name)))

    def _wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **named: Any) -> Any:
            self.calls += 1
            fails = self.calls == self._at
            if fails and not self._after:
                raise self._error()
            result = function(*arguments, **named)
            if fails:
                raise self._error()
            return result

        return wrapped


def without_clean_up(patch: pytest.MonkeyPatch) -> None:
    """Nothing is removed from now on, as when the machine dies before a program can tidy up."""
    patch.setattr(shutil, "rmtree", lambda *_, **__: None)
    patch.setattr(Path, "unlink", lambda *_, **__: None)


def count_operations(action: Callable[[], Any], operations: list[Operation] = FILE_OPERATIONS) -> int:
    """Runs `action`; returns how many of the operations it needs."""
    with pytest.MonkeyPatch.context() as patch:
        crash = Crash(patch, at=0, after=False, error=OSError, operations=operations)
        action()
        return crash.calls


@contextmanager
def recorded(folder: Path) -> Iterator[list[str]]:
    """Yields a list that fills with what is done below `folder`: "sync NAME", "name NAME", in order.

    Temporary names are shown as ``*``, and `folder` itself as ``.``.
    """
    done: list[str] = []

    def shown(path: Path) -> str:
        parts = path.resolve().relative_to(folder.resolve()).parts
        return "/".join("*" if part.startswith(".") else part for part in parts) or "."

    with pytest.MonkeyPatch.context() as patch:
        fsync, rename, replace = os.fsync, Path.rename, Path.replace

        def recorded_fsync(descriptor: int) -> None:
            done.append(f"sync {shown(Path(f'/proc/self/fd/{descriptor}').readlink())}")
            fsync(descriptor)

        def recorded_rename(function: Callable[..., Any]) -> Callable[..., Any]:
            def wrapped(path: Path, target: Path) -> Any:
                done.append(f"name {shown(target)}")
                return function(path, target)

            return wrapped

        patch.setattr(os, "fsync", recorded_fsync)
        patch.setattr(files, "exchange", recorded_rename(files.exchange))
        patch.setattr(Path, "rename", recorded_rename(rename))
        patch.setattr(Path, "replace", recorded_rename(replace))
        yield done
