"""A task in several languages: which of its locales are trained, and which are left out and judged (zero-shot)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.recipe_sections import TaskRecipe
from kogpt2_gluon.tasks.loading import find_split, open_task
from kogpt2_gluon.tasks.task import Row, Task

ALL = "all"


def task_of_recipe(recipe: TaskRecipe) -> Task:
    """Returns the task that a recipe names, in the locales of ``task.locales`` and ``task.zero_shot``.

    Without these it is in its own. ``all`` are the locales that have a file in ``task.data``, but for those of
    zero_shot; it may be the value of either. RecipeError for a task of one language, and a locale that is named twice;
    DataError for a locale that the task does not have, or without a file.
    """
    task = open_task(recipe.name)
    if not (recipe.locales or recipe.zero_shot):
        return task
    if task.in_locale is None:
        raise RecipeError(f"task.locales and task.zero_shot: {recipe.name} has one language; leave them out")
    if any(ALL in names and len(names) > 1 for names in (recipe.locales, recipe.zero_shot)):
        raise RecipeError("task.locales and task.zero_shot: [all] is by itself; name no others with it")
    there = _locales_there(task, Path(recipe.data))
    for locale in (*recipe.locales, *recipe.zero_shot):
        if locale != ALL and locale not in task.locales:
            raise DataError(f"task.locales and task.zero_shot: {recipe.name} has no {locale!r}; it has {_named(there)}")
        if locale != ALL and locale not in there:
            raise DataError(f"{recipe.data}: has no file of the locale {locale}; it has {_named(there)}")
    zero_shot = _chosen(recipe.zero_shot, there, recipe.locales)
    trained = _chosen(recipe.locales, there, zero_shot)
    if not trained:
        raise RecipeError("task.zero_shot leaves no locale to train; name some: task.locales=[ko-KR]")
    named = [*trained, *zero_shot]
    if twice := sorted({locale for locale in named if named.count(locale) > 1}):
        raise RecipeError(f"task.locales and task.zero_shot name {twice[0]} twice; each locale is trained or left out")
    parts = tuple(task.in_locale(locale) for locale in named)
    return replace(task, parts=parts, locales=tuple(named), zero_shot=tuple(zero_shot))


def _locales_there(task: Task, data: Path) -> list[str]:
    """Returns the locales that have a file below the folder of the data."""
    assert task.in_locale
    return [locale for locale in task.locales if find_split(task.in_locale(locale), data, "train")]


def _chosen(names: Sequence[str], there: Sequence[str], others: Sequence[str]) -> list[str]:
    return [locale for locale in there if locale not in others] if list(names) == [ALL] else list(names)


def _named(locales: Sequence[str]) -> str:
    return ", ".join(locales) if locales else "none, in files such as ko-KR.jsonl"


def rows_by_locale(task: Task, split: str, rows: Sequence[Row]) -> Iterator[tuple[str, list[int]]]:
    """Yields a name for the rows of each locale, and their numbers; nothing for a task in one locale."""
    for locale in task.locales if task.parts else ():
        left_out = ", zero-shot" if locale in task.zero_shot else ""
        yield f"{split}, {locale}{left_out}", [number for number, row in enumerate(rows) if row.locale == locale]
