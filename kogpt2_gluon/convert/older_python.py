"""Source text of this package, rewritten for Python 3.8: the newest Python of AWS's containers with MXNet.

The package is written for Python 3.9 and later. What serves a network needs only other names for Python 3.8. They
replace the newer ones in place, so comments and the numbers of lines are kept: generic types (``dict[str, int]``,
``Mapping`` of ``collections.abc``) become those of ``typing``, and ``functools.cache``, ``str.removeprefix`` and
``str.removesuffix`` what they are short for.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import NamedTuple

OLDEST = (3, 8)
ALIAS = "_typing"
GENERIC = {"dict": "Dict", "frozenset": "FrozenSet", "list": "List", "set": "Set", "tuple": "Tuple", "type": "Type"}
NEWER = frozenset(("Annotated",))  # typing has them from 3.9 on
METHODS = {
    "removeprefix": "(lambda text, part: text[len(part) :] if text.startswith(part) else text)",
    "removesuffix": "(lambda text, part: text[: len(text) - len(part)] if text.endswith(part) else text)",
}


class _Edit(NamedTuple):
    """Bytes of the source to replace: `length` of them, from `column` of `line` (from 1) on."""

    line: int
    column: int
    length: int
    new: str


def for_older_python(source: str) -> str:
    """Returns the text of a module that does the same on Python 3.8 and later.

    ValueError if it has syntax that 3.8 does not know.
    """
    try:
        tree = ast.parse(source, feature_version=OLDEST)
    except SyntaxError as error:
        raise ValueError(f"line {error.lineno}: {error.msg}") from None
    edits = [edit for node in ast.walk(tree) for edit in _edits(node)]
    if any(edit.new.startswith(ALIAS) for edit in edits):
        edits.append(_import_of_typing(tree))
    lines = [line.encode() for line in source.splitlines(keepends=True)]
    # From the end on, so that the places of the others stay; of those at one place, the one of the inner node first.
    for line, column, length, new in sorted(reversed(edits), key=lambda edit: edit[:2], reverse=True):
        old = lines[line - 1]
        lines[line - 1] = old[:column] + new.encode() + old[column + length :]
    return b"".join(lines).decode()


def _edits(node: ast.AST) -> Iterator[_Edit]:
    """Yields what to replace in a node itself, not in the nodes below it."""
    if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id in GENERIC:
        name = node.value
        yield _Edit(name.lineno, name.col_offset, len(name.id), f"{ALIAS}.{GENERIC[name.id]}")
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in METHODS:
        (part,) = node.args
        if node.func.end_lineno != part.lineno:
            raise ValueError(f"line {part.lineno}: {node.func.attr} must be in the line of its argument")
        assert node.func.end_col_offset is not None
        dot = node.func.end_col_offset - len(f".{node.func.attr}")
        yield _Edit(node.lineno, node.col_offset, 0, f"{METHODS[node.func.attr]}(")
        yield _Edit(part.lineno, dot, part.col_offset - dot, ", ")
    elif isinstance(node, ast.Attribute) and ast.unparse(node) == "functools.cache":
        yield _Edit(node.lineno, node.col_offset, len("functools.cache"), "functools.lru_cache(maxsize=None)")
    elif isinstance(node, ast.ImportFrom) and node.module == "collections.abc":
        if "Set" in {each.name for each in node.names}:
            raise ValueError(f"line {node.lineno}: Set of collections.abc is another one in typing; take AbstractSet")
        yield _Edit(node.lineno, node.col_offset, len("from collections.abc"), "from typing")
    elif isinstance(node, ast.ImportFrom) and node.module == "typing" and NEWER & {each.name for each in node.names}:
        yield _Edit(node.lineno, node.col_offset, len("from typing"), "from typing_extensions")  # has all of them


def _import_of_typing(tree: ast.Module) -> _Edit:
    """The import, in the line of the one from __future__, which must be the first."""
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module == "__future__":
            assert node.end_col_offset is not None
            return _Edit(node.lineno, node.end_col_offset, 0, f"; import typing as {ALIAS}")
    raise ValueError("line 1: without `from __future__ import annotations` Python 3.8 evaluates each annotation")
