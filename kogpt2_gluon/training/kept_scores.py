"""The files of a fine-tuning's scores. A table that has more than the one that takes its name is kept under another."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kogpt2_gluon.storage.disk import full_disk_named
from kogpt2_gluon.storage.files import move, write_file
from kogpt2_gluon.tasks.score_table import PUBLISHED, SYSTEM, ScoreTable
from kogpt2_gluon.wording import Say, counted

SCORES, MARKDOWN = "scores.json", "scores.md"
ROUNDING = 1e-6  # a GPU may add in another order each time; a table has four digits
NAMED = 3  # things that a message names


def keep_table(table: ScoreTable, folder: Path, say: Say) -> None:
    """Writes scores.json and scores.md.

    Those that are there already become scores-1.json and scores-1.md (or the next number), and `say` is called with a
    line about it, if they have a system, a split, seeds or other scores that the new ones lack.
    """
    before = folder / SCORES
    if before.is_file() and (lacking := list(dict.fromkeys(_lacking(before, table)))):
        more = f" and {len(lacking) - NAMED} more" if len(lacking) > NAMED else ""
        kept = _put_aside(folder)
        say(f"{before}: the table from before has {', '.join(lacking[:NAMED])}{more}; it is kept as {kept}")
    _write(before, table.json())
    _write(folder / MARKDOWN, table.markdown())


def keep_scores(run_dir: Path, scores: dict[str, Any], say: Say) -> None:
    """Writes a run's own scores.json; `say` is called with what was there before, if that is something else."""
    path, text = run_dir / SCORES, json.dumps(scores, indent=1)
    if path.is_file() and (before := path.read_text(encoding="utf-8", errors="replace")) != text:
        say(f"{path}: before: {' '.join(before.split())[:300]}")
    _write(path, text)


def _write(path: Path, text: str) -> None:
    with full_disk_named(path.parent, lambda: "the scores need room; make some, and give the same command again"):
        write_file(path, text.encode())


def _lacking(path: Path, table: ScoreTable) -> Iterator[str]:
    """Yields what the table of a file has and the new one has not."""
    now = {(each.system, each.split, each.metric): each for each in table.scores}
    try:
        scores = json.loads(path.read_bytes())["scores"]
        for each in sorted(scores, key=lambda each: each["kind"] != SYSTEM):  # what took longest comes first
            system, split, seeds = each["system"], each["split"], each["seeds"]
            same = now.get((system, split, each["metric"]))
            if each["kind"] == PUBLISHED:
                continue
            if same is None:
                yield f"{system} on {split}"
            elif seeds > same.seeds:
                yield f"{counted(seeds, 'seed')} of {system}"
            elif each["rows"] != same.rows or (seeds == same.seeds and _differ(each["mean"], same.plain_mean())):
                yield f"another score of {system} on {split}"
    except (ValueError, KeyError, TypeError, RecursionError):
        yield "what cannot be read as one"


def _differ(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is not other
    return not math.isclose(one, other, rel_tol=0, abs_tol=ROUNDING)


def _put_aside(folder: Path) -> Path:
    """Gives the files of a table the next free number; returns the new name, or that of the same table under one."""
    content = (folder / SCORES).read_bytes()
    for number in itertools.count(1):
        kept = [folder / f"{Path(name).stem}-{number}{Path(name).suffix}" for name in (SCORES, MARKDOWN)]
        if kept[0].is_file() and kept[0].read_bytes() == content:
            return kept[1]
        if not any(each.exists() for each in kept):
            break
    for name, path in zip((SCORES, MARKDOWN), kept):
        if (folder / name).is_file():
            move(folder / name, path)
    return kept[1]
