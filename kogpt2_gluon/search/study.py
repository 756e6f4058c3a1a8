"""The folder of a search: its plan, Optuna's study of it, and a run for each trial. A search goes on from it.

What a trial has reached is read from its run, and nothing of it is kept twice. The study holds which settings each
trial has, and the same results for whoever opens it with Optuna's own tools.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.options import to_yaml
from kogpt2_gluon.recipe import Recipe, differences, load_recipe, parse_recipe
from kogpt2_gluon.runs.lock import HeldError, RunLock, check_unlocked
from kogpt2_gluon.runs.logbook import LOG_FILE
from kogpt2_gluon.runs.metrics import read_metrics
from kogpt2_gluon.runs.run_folder import NO_SCORES
from kogpt2_gluon.runs.watching import how_it_ended
from kogpt2_gluon.search.proposals import Tried, propose
from kogpt2_gluon.search.rungs import BUSY, DONE, FAILED, WAITS, Standing, rungs_of
from kogpt2_gluon.search.space import Setting, Space, overrides
from kogpt2_gluon.search.study_file import in_use, open_study
from kogpt2_gluon.storage.files import PARTIAL, write_file
from kogpt2_gluon.user_files import read_yaml

PLAN_FILE, RECIPE_FILE, BEST_FILE = "search.yaml", "base.yaml", "best.yaml"
DECIDING = "deciding"  # the folder of the lock of the decisions
LOOK_SECONDS = 0.05  # between attempts at the lock of the decisions
REASON = "reason"  # a user attribute of a trial that failed


@dataclass(frozen=True)
class Plan:
    """The recipe and the space of a search, and how it goes. For the life of a study only `trials` may change.

    Attributes
    ----------
    recipe : Recipe
        What all trials have in common.
    space : Space
    rule : str
        Which runs go on: one of rungs.RULES.
    eta : int
        Of so many runs at a rung, one is promoted.
    first : int
        Steps of the first rung.
    sampler : str
        One of proposals.SAMPLERS.
    seed : int
    journal : bool
        The study is a journal file, for several hosts on a shared file system, instead of a SQLite file.
    trials : int
        At most so many runs.
    """

    recipe: Recipe
    space: Space
    rule: str
    eta: int
    first: int
    sampler: str
    seed: int
    journal: bool
    trials: int

    @property
    def rungs(self) -> list[int]:
        """The steps at which runs are compared, ascending; the last one is the recipe's last."""
        return rungs_of(self.recipe.training.num_steps, self.first, self.eta, self.rule)

    def to_dict(self) -> dict[str, Any]:
        """The part that a study keeps in search.yaml: all but the recipe."""
        names = ("rule", "eta", "first", "sampler", "seed", "journal")
        return {"space": self.space.to_dict(), **{name: getattr(self, name) for name in names}}


@dataclass(frozen=True)
class Trial:
    """A trial: a run with settings of its own.

    Attributes
    ----------
    number : int
    path : Path
        The folder of its run.
    settings : mapping
        Its values of the space's keys.
    standing : Standing
    values : mapping
        The held-out figure at each rung that it has reached.
    steps : int
        Steps that it has trained.
    reason : str
        Why it failed, or "".
    """

    number: int
    path: Path
    settings: Mapping[str, Setting]
    standing: Standing
    values: Mapping[int, float]
    steps: int
    reason: str


class Study:
    """The folder of a search. RecipeError if it holds another search.

    What reads or writes the study raises DataError if its file was removed, is locked, or is on a full disk.

    `say` gets a line about a file that had to be repaired.
    """

    def __init__(self, folder: Path, plan: Plan, say: Callable[[str], None] = print) -> None:
        self.folder, self.plan = folder, plan
        self.measure = ""  # the figure's name, once a trial has one
        self.best_is_low = not plan.recipe.task.name
        self._kept: dict[Path, tuple[Any, tuple[dict[int, float], int, bool]]] = {}  # what _reached has read
        folder.mkdir(parents=True, exist_ok=True)
        self._check_it_is_one()
        with self.deciding():  # another host may make the same folder
            if (folder / PLAN_FILE).is_file():
                self._check_same()
            else:  # the plan is the last: with it the folder is a study
                write_file(folder / RECIPE_FILE, plan.recipe.to_yaml().encode())
                write_file(folder / PLAN_FILE, to_yaml(plan.to_dict()).encode())
            self._study = open_study(folder, plan.recipe.name, self.best_is_low, plan.journal, say)

    @property
    def recipe_file(self) -> Path:
        """The recipe that the trials begin with."""
        return self.folder / RECIPE_FILE

    @contextlib.contextmanager
    def deciding(self) -> Iterator[None]:
        """Holds the lock under which trials are chosen and begun; waits for another process that holds it."""
        while True:
            try:
                lock = RunLock(self.folder / DECIDING)
                break
            except HeldError:
                time.sleep(LOOK_SECONDS)
        with lock:
            yield

    def claim(self, number: int) -> RunLock | None:
        """Returns the lock of a trial while it trains; None if another process has it."""
        try:
            return RunLock(self.folder / "claims" / f"{number:04}")
        except HeldError:
            return None

    def begin(self) -> int | None:
        """Adds a trial with new settings; returns its number, None if all combinations were tried.

        DataError if the study does not know a trial that is there.
        """
        from optuna.trial import TrialState, create_trial

        tried = [
            Tried(each.settings, each.standing.results, each.standing.state == DONE, each.standing.state == FAILED)
            for each in self.trials()
        ]
        if (left := self._path_of(len(tried))).exists():
            raise DataError(
                f"{left}: is a run, and the study in {self.folder} knows {len(tried)} trials: it is an older copy, "
                "or was removed; put the newest one back, or begin another search with --out"
            )
        plan = self.plan
        settings = propose(plan.space, plan.recipe, tried, plan.sampler, plan.seed)
        if settings is None:
            return None
        new = create_trial(state=TrialState.RUNNING, params=settings, distributions=plan.space.distributions)
        with in_use(self.folder):
            self._study.add_trial(new)  # one transaction: a kill leaves a whole trial or none
        return len(tried)

    def fail(self, number: int, reason: str) -> None:
        """Notes that a trial cannot go on, unless it is noted already how it ended."""
        from optuna.trial import TrialState

        frozen = self._frozen()[number]
        if frozen.state.is_finished():
            return
        with in_use(self.folder):
            self._study._storage.set_trial_user_attr(frozen._trial_id, REASON, reason)
            self._study.tell(number, state=TrialState.FAIL)

    def trials(self) -> list[Trial]:
        """Returns all trials as they are now."""
        from optuna.trial import TrialState

        found = []
        for frozen in self._frozen():
            path = self._path_of(frozen.number)
            values, steps, done = self._reached(path)
            sign = 1 if self.best_is_low else -1
            costs = {step: sign * value if math.isfinite(value) else math.inf for step, value in values.items()}
            state = DONE if done else BUSY if self._is_busy(frozen.number, path) else WAITS
            if frozen.state == TrialState.FAIL:
                state, costs = FAILED, {**costs, self._next_rung(costs): math.inf}
            standing = Standing(frozen.number, state, costs)
            reason = str(frozen.user_attrs.get(REASON, ""))
            found.append(Trial(frozen.number, path, dict(frozen.params), standing, values, steps, reason))
        return found

    def note(self, trials: Sequence[Trial]) -> None:
        """Gives Optuna's study the results that it has not had."""
        import optuna

        for trial, frozen in zip(trials, self._frozen()):
            if frozen.state.is_finished():
                continue
            with in_use(self.folder):
                for step, value in trial.values.items():
                    if step not in frozen.intermediate_values:
                        optuna.trial.Trial(self._study, frozen._trial_id).report(value, step)
            if trial.standing.state == DONE:
                value = trial.values[max(trial.values)]
                if math.isfinite(value):
                    with in_use(self.folder):
                        self._study.tell(trial.number, value)
                else:  # Optuna would call it failed without a reason
                    self.fail(trial.number, f"its held-out figure is {value} at the end")

    def best(self, trials: Sequence[Trial]) -> Trial | None:
        """Returns the best trial that went to the end; None if there is none."""
        done = [trial for trial in trials if trial.standing.state == DONE]
        return min(done, key=lambda trial: (trial.standing.results[self.plan.rungs[-1]], trial.number), default=None)

    def write_best(self, trial: Trial) -> Path:
        """Writes the recipe with the settings of a trial."""
        recipe = parse_recipe(self.plan.recipe.to_dict(), overrides(trial.settings))
        path = self.folder / BEST_FILE
        write_file(path, recipe.to_yaml().encode())
        return path

    def _frozen(self) -> list[Any]:
        """Returns Optuna's trials."""
        with in_use(self.folder):
            return self._study.get_trials(deepcopy=False)

    def _path_of(self, number: int) -> Path:
        return self.folder / "trials" / f"{number:04}"

    def _reached(self, path: Path) -> tuple[dict[int, float], int, bool]:
        """Returns the figure at each rung, the last step on record, and whether the run is done.

        They are read again only if the run has written since.
        """
        now = [_state_of(path / name) for name in ("metrics.jsonl", LOG_FILE)]  # before they are read
        kept = self._kept.get(path)
        if kept is None or kept[0] != now:
            kept = self._kept[path] = now, self._read(path)
        return kept[1]

    def _read(self, path: Path) -> tuple[dict[int, float], int, bool]:
        try:
            lines = read_metrics(path)
        except DataError:
            return {}, 0, False
        scored = [line for line in lines if line["kind"] == "evaluation" and line["step"]]
        figures = {line["step"]: self._figure(line) for line in scored}
        rungs, last = self.plan.rungs, max((line["step"] for line in lines), default=0)
        done = bool(scored) and (rungs[-1] in figures or how_it_ended(path) == "done")
        values = {step: figures[step] for step in rungs if step in figures}
        if done:  # also by a rule that ends a run before its last step: it has no more to show
            values = {step: values.get(step, figures[max(figures)]) for step in rungs}
        return values, last, done

    def _figure(self, line: Mapping[str, Any]) -> float:
        if not self.measure:
            names = [name for name in line if name not in NO_SCORES]
            self.measure = "bits_per_byte" if "bits_per_byte" in line else (["loss"] if self.best_is_low else names)[0]
        value = line.get(self.measure)
        return float(value) if isinstance(value, (int, float)) else math.nan

    def _next_rung(self, results: Mapping[int, float]) -> int:
        return next((step for step in self.plan.rungs if step not in results), self.plan.rungs[-1])

    def _is_busy(self, number: int, path: Path) -> bool:
        try:
            check_unlocked(self.folder / "claims" / f"{number:04}")  # the first: a look can hold up the run's own start
            check_unlocked(path)
        except HeldError:
            return True
        return False

    def _check_it_is_one(self) -> None:
        """Raises RecipeError if the folder is somebody's, and no search; a kill can leave one without a plan."""
        own = (PLAN_FILE, RECIPE_FILE, DECIDING)
        others = [each for each in self.folder.iterdir() if each.name not in own and not PARTIAL.fullmatch(each.name)]
        if others and not (self.folder / PLAN_FILE).is_file():
            raise RecipeError(f"{self.folder}: holds files, and no {PLAN_FILE}; name a new folder with --out")

    def _check_same(self) -> None:
        kept, mine = read_yaml(self.folder / PLAN_FILE, "search"), self.plan.to_dict()
        changed = [name for name in mine if json.dumps(kept.get(name)) != json.dumps(mine[name])]
        changed += list(differences(load_recipe(str(self.recipe_file)), self.plan.recipe))
        if changed:
            raise RecipeError(
                f"{self.folder}: holds a search with another {', '.join(changed)}; restore it, or begin another search "
                "with --out"
            )


def _state_of(path: Path) -> tuple[int, int, int] | None:
    """Returns what differs once a file was written to; None if there is none.

    The file is opened for it: on NFS that asks the server, where a look at its name may get an answer of before.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    found = os.fstat(descriptor)
    os.close(descriptor)
    return found.st_mtime_ns, found.st_size, found.st_ino
