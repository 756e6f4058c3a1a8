"""The reference that `kogpt2 train --keys` prints: every key of a recipe, made of the fields of recipe_sections.py."""

from __future__ import annotations

import dataclasses
import textwrap
from typing import Any

from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.recipe import Recipe, known_keys

WIDTH = 100  # columns


def describe_keys(section: str = "") -> str:
    """The keys of a section (empty: of the whole recipe) with default, admitted values and meaning.

    RecipeError for a section that recipes do not have.
    """
    recipe = Recipe()
    sections = {name: value for name, value in vars(recipe).items() if dataclasses.is_dataclass(value)}
    if section and section not in sections:
        raise RecipeError(f"--keys {section}: not a section of a recipe; the sections are {', '.join(sections)}")
    lines: list[str] = []
    before = ""
    for key, entry in known_keys().items():
        name = key.rpartition(".")[0]
        if section not in ("", name):
            continue
        if name != before:
            about = " ".join((sections[name].__doc__ or "").split())
            lines += [*[""] * bool(lines), *textwrap.wrap(f"{name}: {about}", WIDTH)]
        before = name
        values = admitted(entry)
        default = written(getattr(sections.get(name, recipe), entry.name))
        lines.append(f"  {key} = {default}" + f"  ({values})" * bool(values))
        lines += textwrap.wrap(entry.metadata["help"], WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines)


def written(value: Any) -> str:
    """A value as it would be written in a recipe."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    return str(value) if value != "" else '""'


def admitted(entry: dataclasses.Field[Any]) -> str:
    """The bounds or choices of a field in words; empty if there are none."""
    rules = entry.metadata
    if rules["choices"]:
        return ", ".join(rules["choices"])
    if entry.type == "bool":
        return "true, false"
    low, high = rules["minimum"], rules["maximum"]
    if low is None:
        return ""
    return f"{low:g} or more" if high is None else f"{low:g} to {high:g}"
