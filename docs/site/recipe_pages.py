"""The shipped recipes line by line, and the keys of all recipes, as Markdown: made of the files themselves."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import is_dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from kogpt2_gluon.cli.recipe_keys import admitted, written
from kogpt2_gluon.recipe import Recipe, known_keys, load_recipe, value_of

# From the smallest to the largest, then those of tasks: the order in which a newcomer meets them.
FIRST = ("demo", "debug_cpu", "small_cpu", "single_gpu", "kogpt2_base", "kogpt2_medium")


def shipped_recipes(root: Path) -> str:
    """Every recipe of recipes/ as a section: what it says of itself, its keys line by line, and the file."""
    files = [*(root / "recipes").glob("*.yaml"), *(root / "recipes").glob("mixes/*.yaml")]
    files.sort(key=lambda file: (FIRST.index(file.stem) if file.stem in FIRST else len(FIRST), file))
    return "\n\n".join(_section(file, root) for file in files)


def keys_of_recipes(root: Path) -> str:
    """Every key with its default, what it admits and its meaning; a table for each section of a recipe."""
    tables = []
    for name, section in _sections().items():
        rows = [
            (f"`{key}`", f"`{_default(key)}`", _escaped(admitted(entry)), _escaped(entry.metadata["help"]))
            for key, entry in known_keys().items()
            if key.rpartition(".")[0] == name
        ]
        about = " ".join((section.__doc__ or "").split())
        tables.append(f"### {name}\n\n{about}\n\n" + _table(("key", "default", "admits", "meaning"), rows))
    return "\n\n".join(tables)


class Line(NamedTuple):
    """A key as a recipe file has it, or the head of a section."""

    key: str  # dotted; the name of a section for its head; "" for the head of the file
    value: str  # as it is written; "" for a head
    comment: str


def lines_of(text: str) -> list[Line]:
    """The keys of a recipe file in its order, each with its comment.

    A comment belongs to the key on its line. A line that is only a comment belongs to the key before it, if it begins
    further to the right than that key, and otherwise to the next one.
    """
    comments = _Comments(text)
    found = [Line("", "", comments.before_first_key())]
    for name, value in yaml.compose(text, Loader=yaml.SafeLoader).value:
        if name.value in _sections():
            found.append(Line(name.value, "", comments.of(name, name)))
            inner = [(f"{name.value}.{key.value}", key, each) for key, each in value.value]
        else:
            inner = [(name.value, name, value)]
        for dotted, key, node in inner:
            found.append(Line(dotted, text[node.start_mark.index : node.end_mark.index], comments.of(key, node)))
    return found


class _Comments:
    """The comments of a YAML text, by the places that its parser names."""

    def __init__(self, text: str) -> None:
        self.lines = [*text.split("\n"), ""]
        self.taken = 0  # lines whose comments have been given away

    def before_first_key(self) -> str:
        while self.lines[self.taken].startswith("#"):
            self.taken += 1
        return "\n".join(line.lstrip("#").strip() for line in self.lines[: self.taken])

    def of(self, key: yaml.Node, last: yaml.Node) -> str:
        """The comment of a key, which ends with the node `last`."""
        parts = [_comment(line) for line in self.lines[self.taken : key.start_mark.line]]
        end = last.end_mark
        at = end.line if end.column else end.line - 1  # a block of text ends at the beginning of a line
        if end.column:
            parts.append(_comment(self.lines[at][end.column :]))
        # What follows the head of a section is about its first key.
        column = key.start_mark.column if last is not key else math.inf
        self.taken = at + 1
        while self.lines[self.taken].lstrip().startswith("#") and self.lines[self.taken].index("#") > column:
            parts.append(_comment(self.lines[self.taken]))
            self.taken += 1
        return " ".join(part for part in parts if part)


def _comment(line: str) -> str:
    return line.partition("#")[2].strip()


def _section(file: Path, root: Path) -> str:
    recipe, text = load_recipe(str(file)), file.read_text(encoding="utf-8")
    head, *lines = lines_of(text)
    rows, own = [], []  # own words of the file on whole sections
    for key, value, comment in lines:
        if key in _sections():
            own += [f"**`{key}`, in the file:** {_escaped(comment)}"] if comment else []
        elif key not in ("name", "about"):
            meaning = _escaped(known_keys()[key].metadata["help"])
            own_words = f"<br>**In the file:** {_escaped(comment)}" if comment else ""
            rows.append((f"`{key}: {value}`", f"`{_default(key)}`", meaning + own_words))
    shown = "\n".join(f"    {line}" for line in ["```yaml", *text.rstrip("\n").split("\n"), "```"])
    parts = [
        f"### {recipe.name}",
        head.comment,
        "~~~\n" + recipe.about.rstrip("\n") + "\n~~~",
        *own,
        _table(("line", "default", "meaning"), rows),
        f'??? note "The file recipes/{file.relative_to(root / "recipes")}"\n\n{shown}',
    ]
    return "\n\n".join(part for part in parts if part)


def _sections() -> dict[str, Any]:
    return {name: value for name, value in vars(Recipe()).items() if is_dataclass(value)}


def _default(key: str) -> str:
    return written(value_of(Recipe(), key))


def _escaped(text: str) -> str:
    """Plain text as Markdown: what a recipe puts in backquotes stays code."""
    parts = text.split("`")
    plain = [re.sub(r"([\\*_<>|\[\]])", r"\\\1", part) for part in parts[::2]]
    return "".join(
        piece for pair in zip_longest(plain, parts[1::2]) for piece in (pair[0], f"`{pair[1]}`" if pair[1] else "")
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])
