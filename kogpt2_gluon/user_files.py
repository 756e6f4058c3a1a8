"""Reads the small text files that people write: recipes, filters, host files, plans.

They come from every editor, so a byte-order mark and any line end is fine. In YAML a number keeps how it was written:
YAML 1.1, which PyYAML reads, takes 0100 for 64 (base 8) and 1:40 for 100 (base 60). Where a text is expected, the
written form is the value; where a number is expected, options.py refuses the forms that mean something else.
"""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import Any, Union

import yaml

from kogpt2_gluon.errors import RecipeError

MOST_BYTES = 16 << 20  # what a person writes is far smaller; a corpus named by mistake is not read into memory
MOST_YAML = 512 << 10  # bytes: PyYAML takes 350 times the memory of a text, and 7 s for 1 MB
MOST_REPEATED = 10_000  # values that aliases (*name) repeat: lists of aliases of lists would double at each level
LONGEST_NUMBER = 400  # characters; numbers of base 60 take time that grows with the square of their length
MARKS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}


class WrittenInt(int):
    """A whole number that knows how it was written."""

    written: str

    def __repr__(self) -> str:
        return self.written


class WrittenFloat(float):
    """A number that knows how it was written."""

    written: str

    def __repr__(self) -> str:
        return self.written


Written = Union[WrittenInt, WrittenFloat]


def read_user_text(path: Path, what: str) -> str:
    r"""Reads a small text file whole, with line ends as ``\n``; `what` names its kind in messages.

    UTF-8 with or without a byte-order mark, or UTF-16 with one. RecipeError for anything else, and for a file that is
    missing or above MOST_BYTES.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise RecipeError(f"{what} {path}: cannot be read: {error.strerror}") from None
    if len(raw) > MOST_BYTES:
        raise RecipeError(f"{what} {path}: above {MOST_BYTES >> 20} MiB, so it is not a {what}")
    mark, encoding = next(((mark, name) for mark, name in MARKS.items() if raw.startswith(mark)), (b"", "utf-8"))
    try:
        text = raw[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        line = raw[: len(mark) + error.start].count(b"\n") + 1
        raise RecipeError(f"{what} {path}: line {line} is not {encoding.upper()}; {_way_out(raw, path)}") from None
    if "\0" in text:
        raise RecipeError(f"{what} {path}: holds a zero byte, so it is not a text; save it as UTF-8")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _way_out(raw: bytes, path: Path) -> str:
    try:
        raw.decode("cp949")
    except UnicodeDecodeError:
        return "save it as UTF-8"
    return f"save it as UTF-8, or if it is CP949: iconv -f cp949 -t utf-8 {path}"


def read_yaml(path: Path, what: str) -> dict[str, Any]:
    """Reads a YAML file that holds a mapping; RecipeError names the file and what is wrong. An empty file is {}."""
    text = read_user_text(path, what)
    try:
        plain = load_yaml(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"{what} {path}: not readable as YAML: {' '.join(str(error).split())}") from None
    if plain is None:
        return {}
    if not isinstance(plain, dict):
        raise RecipeError(f"{what} {path}: a mapping of sections is expected, not a {type(plain).__name__}")
    return plain


def load_yaml(text: str, as_texts: bool = False) -> Any:
    """Reads YAML of people: numbers know how they were written, or with `as_texts` every scalar is a text.

    yaml.YAMLError for whatever is wrong with it, also for a text that would take much more time and memory than others
    of its size.
    """
    if len(text) > MOST_YAML:
        raise yaml.YAMLError(f"more than {MOST_YAML >> 10} KiB")
    try:
        return yaml.load(text, Loader=TextLoader if as_texts else Loader)
    except RecursionError:
        raise yaml.YAMLError("it is nested too deeply") from None
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:  # of PyYAML, at odd values
        raise yaml.YAMLError(str(error)) from None


class _Strict:
    """Makes a YAML loader refuse what PyYAML reads without a word.

    These are a key that is given twice, of which it takes the last one, and aliases that repeat too much.
    """

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)  # type: ignore[call-arg]  # the loader's
        self._sizes: dict[int, int] = {}  # node -> values in it, where aliases count as often as they occur
        self._repeated = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        is_alias = self.check_event(yaml.AliasEvent)  # type: ignore[attr-defined]  # the loader's
        node = super().compose_node(parent, index)  # type: ignore[misc]  # the loader's
        if is_alias:
            size = self._sizes.get(id(node))
            if size is None:  # not finished: the alias is inside of what it names
                raise yaml.composer.ComposerError(None, None, "an alias within what it stands for", node.start_mark)
            self._repeated += size
            if self._repeated > MOST_REPEATED:
                raise yaml.composer.ComposerError(None, None, "its aliases repeat too much", node.start_mark)
        elif isinstance(node, yaml.ScalarNode):
            self._sizes[id(node)] = 1
        else:
            pairs = isinstance(node, yaml.MappingNode)
            inner = [each for pair in node.value for each in pair] if pairs else node.value
            self._sizes[id(node)] = 1 + sum(self._sizes[id(each)] for each in inner)
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key.value} twice", key.start_mark)
            seen.add(str(key.value))
        found: dict[Any, Any] = super().construct_mapping(node, deep)  # type: ignore[misc]  # the loader's
        return found


class Loader(_Strict, yaml.SafeLoader):
    """Reads YAML of people: numbers know how they were written, and a date is a text."""


class TextLoader(_Strict, yaml.BaseLoader):
    """Reads every scalar as a text."""


def _number(kind: type[Written], plain: str) -> Any:
    def construct(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> Written:
        if len(node.value) > LONGEST_NUMBER:
            raise yaml.constructor.ConstructorError(None, None, "a number of too many digits", node.start_mark)
        number = kind(getattr(yaml.SafeLoader, f"construct_yaml_{plain}")(loader, node))
        number.written = node.value
        return number

    return construct


def _date(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> str:
    return str(node.value)


Loader.add_constructor("tag:yaml.org,2002:int", _number(WrittenInt, "int"))
Loader.add_constructor("tag:yaml.org,2002:float", _number(WrittenFloat, "float"))
Loader.add_constructor("tag:yaml.org,2002:timestamp", _date)
