"""Runs as folders: finds them by their recipe.yaml, and says how far each is and what it reached."""

from __future__ import annotations

import json
import math
import os
import re
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.recipe import Recipe, load_recipe
from kogpt2_gluon.runs.data_record import DATA_FILE
from kogpt2_gluon.runs.lock import check_unlocked
from kogpt2_gluon.runs.logbook import read_logbook
from kogpt2_gluon.runs.metrics import SEQUENCES, read_metrics
from kogpt2_gluon.runs.watching import how_it_ended
from kogpt2_gluon.storage.links import read_file

DEEPEST = 5  # levels of folders below the one that is searched
RECIPE_FILE = "recipe.yaml"
PARENT_FILE = "parent.json"  # of a run that began as a fork


@dataclass(frozen=True)
class RunFolder:
    """A run on disk.

    Attributes
    ----------
    path : Path
    recipe : Recipe
    lines : list of dict
        The records of metrics.jsonl; none if it is not there or cannot be read.
    fault : DataError or None
        What is wrong with a metrics.jsonl that cannot be read.
    place : str
        Where the run is in the user's words: its address in S3, if `path` is a copy of its record.
    """

    path: Path
    recipe: Recipe
    lines: list[dict[str, Any]]
    place: str = ""
    fault: DataError | None = None

    @property
    def step(self) -> int:
        """The last step on record."""
        return max((line["step"] for line in self.lines), default=0)

    @property
    def state(self) -> str:
        """``training``, ``done``, ``ended`` in another way, or ``silent``: neither said its end nor trains on a host
        whose locks this one sees."""
        try:
            check_unlocked(self.path)
        except RecipeError:
            return "training"
        how = how_it_ended(self.path)
        return "done" if how == "done" else "ended" if how else "silent"

    @property
    def measure(self) -> str:
        """The figure that runs on the same held-out data are compared by: bits_per_byte, or a task's score."""
        for line in reversed(self.evaluations):
            if names := [name for name in line if name not in NO_SCORES and _is_number(line[name])]:
                return "bits_per_byte" if "bits_per_byte" in names else names[0]
        return "bits_per_byte"

    @property
    def best(self) -> float:
        """The best held-out figure on record: the lowest bits_per_byte, or the highest score; NaN if there is none."""
        return self.best_of(self.measure)[1]

    @property
    def final(self) -> float:
        """The last held-out figure on record, which a run that is done has made over the whole set; NaN without one."""
        return self.last_of(self.measure)[1]

    def best_of(self, measure: str) -> tuple[int, float]:
        """Returns the step and the value of the best held-out figure of a name; 0 and NaN if there is none.

        Step 0 is the evaluation before the first update.
        """
        choose = min if measure in LOW_IS_BEST else max
        return choose(self._figures(measure), key=lambda figure: figure[1], default=(0, math.nan))

    def last_of(self, measure: str) -> tuple[int, float]:
        """Returns the step and the value of the last held-out figure of a name; 0 and NaN if there is none."""
        return (self._figures(measure) or [(0, math.nan)])[-1]

    def _figures(self, measure: str) -> list[tuple[int, float]]:
        return [(line["step"], float(line[measure])) for line in self.evaluations if _is_number(line.get(measure))]

    @property
    def start(self) -> str:
        """A word for what was evaluated at step 0: ``untrained``, or ``start`` if that network was trained before."""
        return "start" if self.recipe.training.init_from or self.recipe.distillation.init_layers else "untrained"

    @property
    def started(self) -> float:
        """When the run began, in seconds since 1970, and a fork when it went on; NaN if not on record."""
        step, spent = self.parent.get("step"), 0.0
        for line in self.lines:
            if not _is_number(line.get("seconds")) or not _is_number(line.get("time")):
                continue
            if isinstance(step, int) and line["step"] <= step:
                spent = float(line["seconds"])
            else:
                return float(line["time"]) - max(float(line["seconds"]) - spent, 0.0)
        return math.nan

    @property
    def last(self) -> Mapping[str, Any]:
        """The last record of training; empty if there is none."""
        return next((line for line in reversed(self.lines) if line["kind"] == "train"), {})

    @property
    def seconds(self) -> float:
        """The time spent so far, over all starts; NaN if there is none."""
        return max((line["seconds"] for line in self.lines if _is_number(line.get("seconds"))), default=math.nan)

    @property
    def parent(self) -> dict[str, Any]:
        """The path of the parent's folder and the step, for a fork; else empty."""
        return self._plain(PARENT_FILE)

    @property
    def environment(self) -> dict[str, Any]:
        """The machine and the command of the last start; empty if that is not on record."""
        return self._plain("env.json")

    @property
    def data(self) -> list[dict[str, Any]]:
        """The facts of each set that the run reads, as its data.json has them; empty if they are not on record."""
        sets = self._plain(DATA_FILE).get("sets")
        return [each for each in sets if isinstance(each, dict)] if isinstance(sets, list) else []

    @property
    def workers(self) -> int:
        """The number of workers of the last start; 0 if that is not on record."""
        starts = [entry.text for entry in read_logbook(self.path) if entry.kind == "start"]
        found = re.search(r"; ([\d,]+) worker", starts[-1]) if starts else None
        return int(found[1].replace(",", "")) if found else 0

    @property
    def evaluations(self) -> list[dict[str, Any]]:
        """The records of evaluations, one for each step."""
        return list({line["step"]: line for line in self.lines if line["kind"] == "evaluation"}.values())

    def _plain(self, name: str) -> dict[str, Any]:
        try:
            plain = json.loads(read_file(self.path / name, 1 << 20))
        except (OSError, ValueError, RecursionError):
            return {}
        return plain if isinstance(plain, dict) else {}


LOW_IS_BEST = ("bits_per_byte", "loss", "perplexity")  # of a task's scores the highest is the best
NO_SCORES = ("kind", "step", "time", "seconds", "loss", "perplexity", *SEQUENCES)


def open_run(path: Path, place: str = "") -> RunFolder:
    """Opens the folder of a run. RecipeError if it has no recipe that can be read."""
    if not (path / RECIPE_FILE).is_file():
        raise RecipeError(f"{path}: no recipe.yaml there; is this the folder of a run?")
    recipe, place = load_recipe(str(path / RECIPE_FILE)), place or str(path)
    if not (path / "metrics.jsonl").exists():  # it has not begun
        return RunFolder(path, recipe, [], place)
    try:
        return RunFolder(path, recipe, read_metrics(path), place)
    except DataError as error:
        return RunFolder(path, recipe, [], place, error)


def find_runs(root: Path) -> Iterator[RunFolder | RecipeError]:
    """Yields the runs in a folder and below, in the order of their paths; an error for one that cannot be read.

    Links to folders are followed after all else, and a folder is looked into once.
    """
    seen: set[tuple[int, int]] = set()
    places = deque([root])
    while places:
        for path, names, files in _walk(places.popleft(), seen):
            if RECIPE_FILE in files and ("metrics.jsonl" in files or "checkpoints" in names or "log.txt" in files):
                names.clear()  # its checkpoints have recipes too
                try:
                    yield open_run(path)
                except RecipeError as error:
                    yield error
            elif len(path.relative_to(root).parts) >= DEEPEST:
                names.clear()
            names.sort()
            places.extend(path / name for name in names if (path / name).is_symlink())


def _walk(root: Path, seen: set[tuple[int, int]]) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Yields the folders from `root` downwards that are not in `seen`, as os.walk does, and adds them to it."""
    for folder, names, files in os.walk(root):
        try:
            facts = Path(folder).stat()
        except OSError:  # it was removed meanwhile
            facts = None
        if facts is None or (facts.st_dev, facts.st_ino) in seen:
            names.clear()
            continue
        seen.add((facts.st_dev, facts.st_ino))
        yield Path(folder), names, files


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
