"""The settings of a run on its page: what differs from the shipped recipe, the command, and what changed on the way."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any, NamedTuple

from kogpt2_gluon.errors import KoGPT2Error
from kogpt2_gluon.recipe import differences, find_recipe, load_recipe, parse_recipe
from kogpt2_gluon.runs.report_parts import folded, placeholder, preformatted, remark, section, table, value_text
from kogpt2_gluon.wording import counted

APART = ("tracking.run_dir", "name")  # differences that are none
SHOWN = 4  # changes in the head of the page
LONGEST = 60  # characters of a value there
# Sections that a recipe may have and not use: the key that says so, and its value then.
UNUSED = {"task": ("name", ""), "adaptation": ("method", "none"), "distillation": ("teacher", "")}


class Changes(NamedTuple):
    """The settings in which a run differs from a shipped recipe.

    Attributes
    ----------
    shipped : str
        The recipe's name; "" if there is none to compare with.
    rows : list of (key, shipped value, own value)
    why : str
        Why there is none to compare with.
    """

    shipped: str
    rows: list[tuple[str, Any, Any]]
    why: str = ""


def changes_of(recipe: Mapping[str, Any]) -> Changes:
    """Compares a run's recipe, as plain data, with the shipped one of its name."""
    name = str(recipe.get("name") or "")
    if not name:
        return Changes("", [], "no recipe of this run is on record")
    try:
        find_recipe(name)
    except (KoGPT2Error, OSError, ValueError):
        return Changes("", [], f"no recipe named {name} is shipped, so there is nothing to compare with")
    try:
        shipped = load_recipe(name)
        found = differences(shipped, parse_recipe(recipe))
    except (KoGPT2Error, OSError, TypeError, ValueError):
        return Changes("", [], f"not known: this run's recipe, or that named {name}, is not one of this version")
    return Changes(shipped.name, [(key, value, own) for key, (value, own) in found.items() if key not in APART])


def in_a_sentence(changes: Changes, on_the_way: Sequence[Mapping[str, Any]]) -> str:
    """Returns the changes in a sentence, the first of many."""
    if not changes.shipped:
        text = changes.why
    elif not changes.rows:
        text = f"nothing: all settings are those of the shipped recipe {changes.shipped}, as this program has it now"
    else:
        shown = [f"{key} is {_brief(own)}, not {_brief(value)}" for key, value, own in changes.rows[:SHOWN]]
        more = len(changes.rows) - len(shown)
        count = f"{counted(len(changes.rows), 'setting')} differ{'s' * (len(changes.rows) == 1)}"
        text = f"{count} from the shipped recipe {changes.shipped}: {'; '.join(shown)}{f'; {more} more' * bool(more)}"
    return f"{text}. On the way, {counted(len(on_the_way), 'setting')} changed" if on_the_way else text


def changes_section(changes: Changes, on_the_way: Sequence[Mapping[str, Any]], environment: Mapping[str, Any]) -> str:
    """Returns what differs from the shipped recipe, the command, and the settings that changed on purpose."""
    if changes.rows:
        cells = [[key, value_text(value), value_text(own)] for key, value, own in changes.rows]
        shown = table(("setting", f"shipped in {changes.shipped}", "here"), cells, "Changed against the shipped recipe")
    else:
        shown = placeholder(in_a_sentence(changes, ()))
    command = environment.get("command")
    if isinstance(command, list) and command:
        name, *arguments = map(str, command)
        line = shlex.join([PurePath(name).name, *arguments])
        shown += f"<h3>Command</h3>{preformatted(line, 'Command')}{remark('That of the last start, without secrets.')}"
    if on_the_way:
        rows = [
            [
                f"{line['step']:,}",
                *(value_text(line.get(key)) for key in ("key", "from", "to", "by")),
            ]
            for line in on_the_way
        ]
        titles = ("step", "setting", "before", "from there on", "by")
        shown += f"<h3>Settings changed on the way</h3>{table(titles, rows, 'Settings changed on the way')}"
    return section("Changed against the recipe", shown, "changes")


def recipe_section(text: str, recipe: Mapping[str, Any]) -> str:
    """Returns the whole recipe, folded, without the sections that the run does not use."""
    if not text:
        return section("Recipe", placeholder("no recipe.yaml here"), "recipe")
    unused = [name for name, (key, usual) in UNUSED.items() if _is_unused(recipe.get(name), key, usual)]
    kept, is_left_out = [], False
    for line in text.split("\n"):
        if line and not line[0].isspace() and not line.startswith(("#", "-")):
            is_left_out = line.partition(":")[0] in unused
        kept += [] if is_left_out else [line]
    note = f"Not used by this run, and left out here: {', '.join(unused)}." if unused else ""
    whole = folded(f"All settings, {counted(len(kept), 'line')}", preformatted("\n".join(kept), "Recipe"))
    return section("Recipe", whole + remark(note), "recipe")


def _is_unused(plain: Any, key: str, usual: str) -> bool:
    return isinstance(plain, Mapping) and plain.get(key, usual) == usual


def _brief(value: Any) -> str:
    text = value_text(value) if value != "" else "empty"
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
