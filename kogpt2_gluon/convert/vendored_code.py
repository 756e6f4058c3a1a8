"""The files of this package that a module needs, for a place where the package is not installed."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import kogpt2_gluon
from kogpt2_gluon.convert.older_python import for_older_python

PACKAGE = kogpt2_gluon.__name__
OPERATORS = "ops/src"  # C++ and CUDA that `ops/build.py` compiles


def code_files(start: str) -> Iterator[tuple[str, bytes]]:
    """Yields the files that module `start` needs, as (path in the package's parent, content), for Python 3.8 and later.

    These are all modules that it imports, directly or not, at the top or within a function, and the operators' sources.
    """
    root = Path(kogpt2_gluon.__file__).parent
    found: dict[Path, str] = {}
    waiting = [start]
    while waiting:
        name = waiting.pop()
        path = _file_of(root, name)
        if path is None or path in found:
            continue
        source = path.read_text(encoding="utf-8")
        found[path] = source
        waiting += [name.rpartition(".")[0], *_imported(source)]
    for path, source in found.items():
        yield _name(root, path), for_older_python(source).encode()
    for path in (root / OPERATORS).rglob("*"):
        if path.is_file() and not path.name.startswith("."):
            yield _name(root, path), path.read_bytes()


def module_file(name: str) -> bytes:
    """Returns the file of a module of this package as it is, for one that needs no other of them."""
    path = _file_of(Path(kogpt2_gluon.__file__).parent, name)
    assert path, name
    return path.read_bytes()


def _imported(source: str) -> Iterator[str]:
    """Yields the names of what a module imports: of modules, and of their attributes, which may be modules too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{each.name}" for each in node.names)


def _file_of(root: Path, name: str) -> Path | None:
    """The file of a module of this package; None for any other name."""
    top, *parts = name.split(".")
    if top != PACKAGE:
        return None
    path = root.joinpath(*parts)
    files = (path / "__init__.py", path.with_suffix(".py"))
    return next((file for file in files if file.is_file()), None)


def _name(root: Path, path: Path) -> str:
    return path.relative_to(root.parent).as_posix()
