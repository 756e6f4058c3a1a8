"""Task files of lm-evaluation-harness that a person has: YAML, and data next to it. No code of theirs is run here.

The harness itself fills in their templates, which are Jinja: that is a language, so use only files that you have read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.tasks.loading import is_there
from kogpt2_gluon.user_files import load_yaml, read_user_text

NEEDS_CODE = ("include", "class", "group")


def is_task_file(name: str) -> bool:
    """Returns True for the name of a file, not of one of the harness's own tasks."""
    return Path(name).suffix.lower() in (".yaml", ".yml")


def read_task_file(path: Path) -> dict[str, Any]:
    """Reads a task; data files named in it are below its folder. RecipeError or DataError for what it cannot be."""
    text = read_user_text(path, "task")
    try:
        plain = load_yaml(text)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        if "!function" in text:
            reason = f"it has functions (!function), and a file alone is not run as code; {_way_out(path)}"
        raise RecipeError(f"task {path}: not readable as YAML: {reason}") from None
    if not isinstance(plain, dict) or not isinstance(plain.get("task"), str):
        raise RecipeError(f"task {path}: not a task of lm-evaluation-harness: it has no text `task`")
    for key in NEEDS_CODE:
        if key in plain:
            raise RecipeError(f"task {path}: the key `{key}` needs other files; {_way_out(path)}")
    task: dict[str, Any] = json.loads(json.dumps(plain))  # plain numbers, which do not know how they were written
    settings = task.get("dataset_kwargs")
    if isinstance(settings, dict) and "data_files" in settings:
        settings["data_files"] = _below(path.parent, settings["data_files"])
    return task


def _way_out(path: Path) -> str:
    return f"name the task, with --include-path {path.parent}, which runs the code there"


def _below(folder: Path, files: Any) -> Any:
    """Returns names of files, however they are nested, as paths below a folder. DataError for one that is missing."""
    if isinstance(files, Mapping):
        return {split: _below(folder, each) for split, each in files.items()}
    if isinstance(files, list):
        return [_below(folder, each) for each in files]
    name = str(files)
    if "://" in name or any(sign in name for sign in "*?["):
        return name if "://" in name else str(folder / name)
    if not is_there(folder / name):
        raise DataError(f"{folder / name}: no such file, which the task names as its data")
    return str(folder / name)
