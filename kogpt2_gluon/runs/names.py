"""Names of runs, as short as they can be and still differ."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kogpt2_gluon.pages.labels import elided
from kogpt2_gluon.runs.run_folder import RunFolder
from kogpt2_gluon.wording import width_of

ELLIPSIS = "…"


def names_of(runs: Sequence[RunFolder]) -> list[str]:
    """Returns the shortest ends of the runs' paths that differ."""
    paths = [Path(run.place).parts if run.place.startswith("s3:") else run.path.resolve().parts for run in runs]
    for parts in range(1, max(map(len, paths), default=1) + 1):
        names = ["/".join(path[-parts:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [run.place for run in runs]


def short_names(names: Sequence[str], columns: int) -> list[str]:
    """Returns names of at most `columns` columns, 8 or more, that differ where the names do.

    Folders that all of them have become an ellipsis; then letters that all begin or end with, if a name is still too
    wide; then the middle of a name. If two are the same after that, all get their number in front.
    """
    parted = [name.split("/") for name in names]
    if len(names) > 1 and len({len(parts) for parts in parted}) == 1:
        common = [len(set(column)) == 1 for column in zip(*parted)]
        shorter = ["/".join(_without(parts, common)) for parts in parted]
    else:
        shorter = list(names)
    if len(names) > 1 and any(width_of(name) > columns for name in shorter):
        head = _shared(shorter)
        tail = _shared([name[head:][::-1] for name in shorter])
        shorter = [_cut(name, head, tail, columns) if width_of(name) > columns else name for name in shorter]
    shorter = [elided(name, columns) for name in shorter]
    whole: dict[str, set[str]] = {}
    for short, name in zip(shorter, names):
        whole.setdefault(short, set()).add(name)
    if all(len(same) == 1 for same in whole.values()):
        return shorter
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names), 1)}
    return [_numbered(numbers[name], name, columns) for name in names]


def _numbered(number: int, name: str, columns: int) -> str:
    head = f"{number}{ELLIPSIS}"
    while name and width_of(head + name) > columns:
        name = name[1:]
    return head + name


def _without(parts: Sequence[str], common: Sequence[bool]) -> list[str]:
    """Returns the parts of a path with an ellipsis for each series of those that all paths have."""
    kept: list[str] = []
    for part, shared in zip(parts, common):
        if not shared:
            kept.append(part)
        elif kept[-1:] != [ELLIPSIS]:
            kept.append(part if len(part) <= 2 else ELLIPSIS)
    return kept


def _shared(names: Sequence[str]) -> int:
    """Returns how many letters all names begin with."""
    first, last = min(names), max(names)
    return next((n for n, (a, b) in enumerate(zip(first, last)) if a != b), min(len(first), len(last)))


def _cut(name: str, head: int, tail: int, columns: int) -> str:
    """Returns a name without as many of its first letters as must go, or of its last ones, with an ellipsis for them.

    Only letters of the `head` that all names begin with, or of the `tail` that all end with, go; if they are not
    enough, none does.
    """
    for gone in range(2, head + 1):
        if width_of(name[gone:]) < columns:
            return f"{ELLIPSIS}{name[gone:]}"
    for gone in range(2, tail + 1):
        if width_of(name[:-gone]) < columns:
            return f"{name[:-gone]}{ELLIPSIS}"
    return name
