"""Plain data to dataclasses and back: how a recipe is read.

Every field is checked against its type and the values it admits, and all faults are listed at once. The fields
themselves are in :mod:`kogpt2_gluon.recipe`.
"""

from __future__ import annotations

import copy
import dataclasses
import difflib
import functools
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Any, Callable, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from kogpt2_gluon.user_files import load_yaml

# One path, a list of them, or a mapping from path to weight.
Paths = Union[str, list[str], dict[str, float]]

LARGEST = 2**53  # whole number, where a field has no bound of its own: what JSON and float64 hold exactly

T = TypeVar("T")


class Fault(NamedTuple):
    """A fault of the data: the dotted keys that it is about, and one line for the user."""

    keys: tuple[str, ...]
    text: str

    def is_about(self, given: Collection[str]) -> bool:
        """Returns True if the fault is about one of the keys `given`, or about a key in a section `given`."""
        return any(key == each or key.startswith(f"{each}.") for key in self.keys for each in given)


def option(
    default: Any,
    meaning: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: Sequence[str] | None = None,
    path: bool = False,
    needed: bool = False,
) -> Any:
    """A dataclass field with its meaning and the values it admits, which are checked when it is read.

    In a `path` a leading ~ is somebody's home, as in a shell, which expands it in some places only. A text that is
    `needed` cannot be empty.
    """
    metadata = {"help": meaning, "minimum": minimum, "maximum": maximum, "choices": choices}
    metadata.update(path=path, needed=needed)
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: copy.copy(default), metadata=metadata)
    return field(default=default, metadata=metadata)


class _Dumper(yaml.SafeDumper):
    """Writes a text of several lines as a block, not as one escaped line."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _represent_text)


def to_yaml(plain: Mapping[str, Any]) -> str:
    """The text of a YAML file that reads back as the same plain data."""
    text: str = yaml.dump(dict(plain), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
    return text


def from_plain(kind: type[T], plain: Mapping[str, Any], overrides: Sequence[str] = ()) -> tuple[T, list[Fault]]:
    """Builds dataclass `kind` from plain data and `section.key=value` overrides; returns it and every fault found."""
    faults: list[Fault] = []
    merged: dict[str, Any] = {key: {} if value is None else value for key, value in plain.items()}
    merged = {key: dict(value) if isinstance(value, Mapping) else value for key, value in merged.items()}
    for override in overrides:
        _apply_override(kind, merged, override, faults)
    return _build(kind(), merged, "", list(keys_of(kind)), faults), faults


def keys_of(kind: Any) -> dict[str, dataclasses.Field[Any]]:
    """The fields of a dataclass and of its sections, by their dotted keys."""
    keys: dict[str, dataclasses.Field[Any]] = {}
    for entry in dataclasses.fields(kind):
        section: Any = _types_of(kind)[entry.name]
        if dataclasses.is_dataclass(section):
            keys.update({f"{entry.name}.{inner.name}": inner for inner in dataclasses.fields(section)})
        else:
            keys[entry.name] = entry
    return keys


def _apply_override(kind: Any, merged: dict[str, Any], override: str, faults: list[Fault]) -> None:
    key, equals, text = override.partition("=")
    if not equals:
        faults.append(Fault((key,), f"override {override!r}: write it as section.key=value"))
        return
    try:
        value = _override_value(_type_of(kind, key), text)
    except yaml.YAMLError as error:
        reason = getattr(error, "problem", None) or "unreadable"
        text = f"override {override!r}: the value is not YAML ({' '.join(str(reason).split())})"
        faults.append(Fault((key,), text))
        return
    section, dot, name = key.partition(".")
    if not dot:
        merged[key] = value
    elif not dataclasses.is_dataclass(_type_of(kind, section)):
        faults.append(unknown_key(key, list(keys_of(kind))))
    elif isinstance(merged.setdefault(section, {}), dict):
        merged[section][name] = value


def _override_value(hint: Any, text: str) -> Any:
    """The value that an override's text means for a field of type `hint`."""
    if hint is str:
        return text  # a path such as 2024_01_05 is not a number
    if hint == Paths:
        flow = text.lstrip()[:1] in ("[", "{")
        return load_yaml(text, as_texts=True) if flow else text
    return load_yaml(text)


# The type of each field of a dataclass. Python evaluates them at each question, which takes 20 ms for a recipe.
_types_of: Callable[[Any], dict[str, Any]] = functools.cache(get_type_hints)


def _type_of(kind: Any, key: str) -> Any:
    """The type of a dotted key; None if there is no such key."""
    for part in key.split("."):
        kind = _types_of(kind).get(part) if dataclasses.is_dataclass(kind) else None
    return kind


def _build(default: Any, plain: Any, where: str, known: Sequence[str], faults: list[Fault]) -> Any:
    """The dataclass instance `default` with the changes of mapping `plain`; adds to `faults` and raises none."""
    kind = type(default)
    if not isinstance(plain, Mapping):
        section = where.rstrip(".")
        faults.append(Fault((section,), f"{section}: expected a section with keys, got {plain!r}"))
        return default
    hints = _types_of(kind)
    entries = {entry.name: entry for entry in dataclasses.fields(kind)}
    values: dict[str, Any] = {}
    for key, value in plain.items():
        if key not in entries:
            faults.append(unknown_key(where + str(key), known))
        elif dataclasses.is_dataclass(hints[key]):
            values[key] = _build(getattr(default, key), {} if value is None else value, f"{key}.", known, faults)
        else:
            try:
                values[key] = _coerce(value, hints[key], entries[key].metadata)
            except ValueError as error:
                faults.append(Fault((f"{where}{key}",), f"{where}{key}: {error}"))
    return dataclasses.replace(default, **values)


def unknown_key(key: str, known: Sequence[str]) -> Fault:
    """Returns the fault of a key that is none of those `known`, with the nearest of them."""
    keys = [*known, *dict.fromkeys(each.partition(".")[0] for each in known if "." in each)]
    by_name = {known.rpartition(".")[2]: known for known in keys}
    near = difflib.get_close_matches(key, keys, n=1, cutoff=0.6)
    near = near or [by_name[n] for n in difflib.get_close_matches(key.rpartition(".")[2], by_name, n=1, cutoff=0.5)]
    return Fault((key,), f"unknown key {key}" + (f"; did you mean {near[0]}?" if near else ""))


def _coerce(value: Any, hint: Any, rules: Mapping[str, Any]) -> Any:
    """`value` converted to `hint` (int, float, bool, str, list[str], Paths); ValueError says what was expected."""
    if hint == Paths:
        return _paths(value, rules)
    if get_origin(hint) is list:
        if not isinstance(value, list):
            raise ValueError(f"expected a list of texts, got {value!r}")
        return [_path(_text(item), rules) for item in value]
    assert not get_args(hint) or get_origin(hint) is not Union
    if hint is bool:
        if not isinstance(value, bool):
            raise ValueError(f"expected true or false, got {value!r}")
        return value
    if hint is str:
        return _check_choice(_path(_text(value), rules), rules)
    return _check_range(_number(value, hint), rules)


def _text(value: Any) -> str:
    """A text as it was written: 2024 and 1.10 are texts where a text is expected."""
    if isinstance(value, bool):
        raise ValueError(f"expected a text, but YAML reads an unquoted word here as {str(value).lower()}; quote it")
    if isinstance(value, (dict, list)) or value is None:
        raise ValueError(f"expected a text, got {value!r}")
    return str(getattr(value, "written", value))


def _path(text: str, rules: Mapping[str, Any]) -> str:
    """`text` with a leading ~ expanded if it is a path; ValueError for an empty text where one is needed."""
    if rules["needed"] and not text.strip():
        raise ValueError("is empty; give a name" + (" (. is the current folder)" if rules["path"] else ""))
    return expand_home(text) if rules["path"] else text


def expand_home(path: str) -> str:
    """The path with ``~`` or ``~user`` at its beginning replaced by that home; ValueError if there is no such user."""
    if not path.startswith("~"):
        return path
    try:
        return str(Path(path).expanduser())
    except RuntimeError:
        raise ValueError(f"{path}: no such user here; write ./{path} for a folder of that name") from None


def _paths(value: Any, rules: Mapping[str, Any]) -> Any:
    if not isinstance(value, (list, dict)):
        return _coerce(value, str, rules)
    if not value or not all(isinstance(path, (str, int, float)) and str(path).strip() for path in value):
        raise ValueError(f"expected paths as texts, got {value!r}")
    paths = [_path(_text(path), rules) for path in value]
    if len(set(paths)) < len(paths):
        raise ValueError("names a path twice")
    if isinstance(value, list):
        return paths
    return {path: _weight(path, weight) for path, weight in zip(paths, value.values())}


def _weight(path: str, value: Any) -> float:
    if not value and ":" in path:  # YAML takes {a:8} for a key without a value
        raise ValueError(f"{path}: a space is missing after the colon: {': '.join(path.rsplit(':', 1))}")
    try:
        weight = float(_number(value, float))
    except ValueError as error:
        raise ValueError(f"the weight of {path}: {error}") from None
    if weight <= 0:
        raise ValueError(f"the weight of {path} is {weight:g}; weights are above 0")
    return weight


# Forms of a number that mean another one in YAML 1.1, or none: base 8, and base 60.
_OTHER_BASE = re.compile(r"[-+]?(0[0-9_]+|[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?)")


def _number(value: Any, hint: type) -> int | float:
    kind = "a whole number" if hint is int else "a number"
    written = str(getattr(value, "written", value)).strip()
    if _OTHER_BASE.fullmatch(written):
        raise ValueError(_other_base(written))
    try:  # PyYAML reads 1e-4 as a text: YAML 1.1 wants 1.0e-4
        number = float(value) if not isinstance(value, bool) else float("nan")
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"expected {kind}, got {value!r}") from None
    if number != number or number in (float("inf"), float("-inf")) or (hint is int and number != int(number)):
        raise ValueError(f"expected {kind}, got {value!r}")
    return (int(value) if isinstance(value, int) else int(number)) if hint is int else number


def _other_base(written: str) -> str:
    """Says what a number in another base is to YAML 1.1, and what to write instead."""
    number = yaml.safe_load(written)
    if ":" in written:
        taken = f" is {number:g} in YAML, which" if isinstance(number, (int, float)) else ": YAML"
        return f"{written}{taken} takes a colon for base 60; write one number without colons"
    meant = "-" * written.startswith("-") + (written.lstrip("+-0_").replace("_", "") or "0")
    if isinstance(number, int):
        return f"{written} is {number} in YAML, which takes a leading 0 for base 8; write {meant}"
    return f"{written} begins with 0; write {meant}"


def _check_range(number: int | float, rules: Mapping[str, Any]) -> int | float:
    if rules["minimum"] is not None and number < rules["minimum"]:
        raise ValueError(f"{number} is below {rules['minimum']:g}")
    largest = LARGEST if rules["maximum"] is None and isinstance(number, int) else rules["maximum"]
    if largest is not None and number > largest:
        raise ValueError(f"{number} is above {largest:g}")
    return number


def _check_choice(value: str, rules: Mapping[str, Any]) -> str:
    if rules["choices"] and value not in rules["choices"]:
        raise ValueError(f"{value!r} is none of {', '.join(rules['choices'])}")
    return value
