"""The text that a user wants of each record: a field, a path to one, or several put together by a template.

A path goes into objects by ``.`` and into every element of a list by ``[]``: ``documents[].text[][].sentence``. Texts
of lists are joined by line ends, also where a path ends at a list. If a record has a field of exactly that name, dots
and brackets included, the word means that field. ``[]`` alone is the record itself, for a list of texts.
"""

from __future__ import annotations

import difflib
import json
import math
import re
import shlex
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple, Union

_STEP = re.compile(r"(?P<key>[^.\[\]]+)(?P<lists>(?:\[\])*)(?:\.(?=.)|$)")
_SLOT = re.compile(r"\{\{|\}\}|\{(?P<path>[^{}]*)\}|(?P<stray>[{}])|\\(?P<escape>[nt\\])")
_ESCAPES = {"n": "\n", "t": "\t", "\\": "\\"}

ITSELF = "[]"  # the word for a record that is a text

Lost = Counter[str]


class Text(NamedTuple):
    """A text that was found, and how many pieces are missing from it, by reason."""

    text: str
    lost: tuple[tuple[str, int], ...] = ()


class Path(NamedTuple):
    """Where a text is in a record: `steps` are keys, or None for every element of a list."""

    word: str
    steps: tuple[str | None, ...]

    def column(self, names: Collection[str]) -> str:
        """Returns the key of the record itself that is needed: the word itself, or what the path begins with."""
        return self.word if self.word in names or not self.steps else str(self.steps[0])

    def find(self, record: Any, lost: Lost) -> str | None:
        """Returns the text, or None if there is none; what is missing is counted in `lost`."""
        if self.word and isinstance(record, dict) and self.word in record:
            value = record[self.word]
            if isinstance(value, str):
                return value
            steps: tuple[str | None, ...] = ()
        else:
            value, steps = record, self.steps
        texts: list[str] = []
        try:
            _collect(value, steps, texts, lost)
        except RecursionError:
            lost["field_not_text"] += 1
        return "\n".join(texts) if texts else None


def parse_path(word: str) -> Path:
    """Returns the path that a user's word spells; a word that is none is the name of a field."""
    if word == ITSELF:
        return Path(word, ())
    steps: list[str | None] = []
    rest = word.removeprefix("[].") if word.startswith("[].") else word
    while rest:
        found = _STEP.match(rest)
        if found is None:
            return Path(word, (word,))
        steps += [found["key"], *[None] * (len(found["lists"]) // 2)]
        rest = rest[found.end() :]
    return Path(word, tuple(steps) or (word,))


def split_at_list(path: Path) -> tuple[tuple[str, ...], Path] | None:
    """Returns (the keys to the first list of a path, the path inside its elements); None if it goes into no list."""
    if None not in path.steps or path.word.startswith("[]."):
        return None
    place = path.steps.index(None)
    keys = tuple(step for step in path.steps[:place] if step is not None)
    rest = path.steps[place + 1 :]
    return keys, Path("", rest)


def _collect(value: Any, steps: tuple[str | None, ...], texts: list[str], lost: Lost) -> None:
    """Adds the texts that the steps lead to."""
    for place, step in enumerate(steps):
        if value is None:
            lost["null_field"] += 1
            return
        if step is None:
            if not isinstance(value, list):
                lost["field_not_text"] += 1
                return
            for element in value:
                _collect(element, steps[place + 1 :], texts, lost)
            return
        if not isinstance(value, dict) or step not in value:
            lost["missing_field"] += 1
            return
        value = value[step]
    if isinstance(value, str):
        texts.append(value)
    elif isinstance(value, list):
        for element in value:
            _collect(element, (), texts, lost)
    else:
        lost["null_field" if value is None else "field_not_text"] += 1


class Template:
    """Texts of several paths put together: literal text with ``{path}`` in it.

    ``{{`` and ``}}`` are braces, ``\\n`` and ``\\t`` a line end and a tab. Numbers are written as JSON does. A field
    that is missing or null leaves nothing, if at least one other has text. ValueError if the template is no such text.
    """

    def __init__(self, template: str) -> None:
        self._parts: list[str | Path] = []
        position = 0
        for found in _SLOT.finditer(template):
            self._add(template[position : found.start()])
            position = found.end()
            if found["stray"]:
                raise ValueError(f"a single {found['stray']!r}; write it twice if it is text")
            if found["path"] is not None:
                if not found["path"].strip():
                    raise ValueError("{} without the name of a field in it")
                self._parts.append(parse_path(found["path"].strip()))
            else:
                self._add(_ESCAPES[found["escape"]] if found["escape"] else found.group()[0])
        self._add(template[position:])
        if not self.paths:
            raise ValueError("no {FIELD} in it")

    def _add(self, literal: str) -> None:
        if literal:
            self._parts.append(literal)

    @property
    def paths(self) -> list[Path]:
        """The paths in it, in order."""
        return [part for part in self._parts if isinstance(part, Path)]

    def inside(self, paths: list[Path]) -> Template:
        """Returns the template with other paths in the places of its own."""
        made, left = Template("{x}"), iter(paths)
        made._parts = [next(left) if isinstance(part, Path) else part for part in self._parts]
        return made

    def find(self, record: Any, lost: Lost) -> str | None:
        """Returns the text of a record, or None if no field has any; what is missing is counted in `lost`."""
        pieces: list[str] = []
        has_text = False
        for part in self._parts:
            if isinstance(part, str):
                pieces.append(part)
                continue
            text = _number(record, part)
            if text is None:
                text = part.find(record, lost)
            has_text = has_text or bool(text and text.strip())
            pieces.append(text or "")
        return "".join(pieces) if has_text else None


Wanted = Union[Path, Template]


def _number(record: Any, path: Path) -> str | None:
    """Returns a number, true or false as JSON spells it; None if the path leads to something else."""
    value = record
    if isinstance(record, dict) and path.word in record:
        value = record[path.word]
    else:
        for step in path.steps:
            if step is None or not isinstance(value, dict):
                return None
            value = value.get(step)
    if not isinstance(value, (int, float)) or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return json.dumps(value)


def find_text(wanted: Wanted, record: Any) -> Text | str:
    """Returns the text of a record with what is missing from it, or the reason why there is none."""
    lost: Lost = Counter()
    text = wanted.find(record, lost)
    if text is not None:
        return Text(text, tuple(sorted(lost.items())))
    return lost.most_common(1)[0][0] if lost else "empty"


# --- what records hold, for messages


def describe(value: Any, depth: int = 4) -> str:
    """Returns what a value is, in words; of lists in lists only so many."""
    if isinstance(value, str):
        return "a text"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, dict):
        return f"an object with {', '.join(list(map(str, value))[:5])}" if value else "an empty object"
    if isinstance(value, list):
        if not value:
            return "an empty list"
        inner = describe(value[0], depth - 1) if depth else ""
        for begin, plural in (
            ("a text", "texts"),
            ("a number", "numbers"),
            ("a list", "lists"),
            ("an object", "objects"),
        ):
            if inner.startswith(begin):
                return f"a list of {plural}{inner[len(begin) :]}"
        return "a list"
    return "null" if value is None else "no text"


def text_paths(value: Any, most: int = 200) -> list[str]:
    """Returns the paths to texts in a record, shortest first; lists are looked into by their first elements."""
    found: dict[str, None] = {}
    waiting: list[tuple[str, Any, int]] = [("", value, 0)]
    while waiting and len(found) < most:
        path, inner, depth = waiting.pop(0)
        if isinstance(inner, str) and path:
            found.setdefault(path)
        elif depth < 8 and isinstance(inner, dict):
            waiting += [(f"{path}.{key}" if path else str(key), inner[key], depth + 1) for key in list(inner)[:50]]
        elif depth < 8 and isinstance(inner, list) and path:
            if inner and all(isinstance(element, str) for element in inner[:3]):
                found.setdefault(path)
            else:
                waiting += [(f"{path}[]", element, depth + 1) for element in inner[:2]]
    return list(found)


def close_names(word: str, names: Sequence[str]) -> list[str]:
    """Returns the name that a user may have meant, in a list, or an empty list."""
    same = [name for name in names if name.lower() == word.lower()]
    return same[:1] or difflib.get_close_matches(word, names, 1)


def quoted(word: str) -> str:
    """Returns a word as a shell takes it."""
    return word if word.replace("_", "").replace("-", "").replace(".", "").isalnum() else shlex.quote(word)
