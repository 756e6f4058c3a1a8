"""Changes to a run while it trains: what `kogpt2 set` asks for is done between two steps, on all workers alike.

A changed setting takes the road of a resume: the state is saved at this step, and the run goes on from there with the
changed recipe, in the same processes. So the numbers are those of a run that was stopped and started again with it.
The change is in the checkpoint: a later start whose recipe still has the old value goes on with the new one.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from kogpt2_gluon.errors import KoGPT2Error, RecipeError
from kogpt2_gluon.machine.worker import Worker
from kogpt2_gluon.options import unknown_key
from kogpt2_gluon.recipe import Recipe, differences, known_keys, parse_recipe, set_value, value_of
from kogpt2_gluon.recipe_sections import INITIAL, WHERE_IT_RUNS
from kogpt2_gluon.runs.metrics import NullTracker
from kogpt2_gluon.runs.requests import Request, read_request, waiting
from kogpt2_gluon.training.resume_rules import FREELY, rule_of
from kogpt2_gluon.training.rollback import RollBack

if TYPE_CHECKING:
    from kogpt2_gluon.training.state import TrainState

LOOK_SECONDS = 2.0  # a look at a shared file system takes a millisecond or so
SECTIONS = ("training", "evaluation", "checkpoint", "tracking")
# What is made once for a run's processes, or belongs to its first start.
AT_THE_START = {
    *(f"training.{name}" for name in (*WHERE_IT_RUNS, *INITIAL, "precision", "batch_size")),
    "evaluation.batch_size",
    "checkpoint.ckpt_dir",
    "checkpoint.mirrors",
    "tracking.run_dir",
    "tracking.tensorboard",
    "tracking.mlflow",
    "tracking.wandb",
} - {"training.compare_interval"}


def can_change(key: str) -> bool:
    """Returns True for a key of a recipe that a run takes while it trains."""
    return key.partition(".")[0] in SECTIONS and rule_of(key) == FREELY and key not in AT_THE_START


def changed_recipe(recipe: Recipe, settings: Sequence[str]) -> Recipe:
    """Returns a copy of a recipe with settings, each ``section.key=value``. RecipeError for one that cannot change."""
    for setting in settings:
        key = setting.partition("=")[0]
        if key not in known_keys():
            raise RecipeError(unknown_key(key, list(known_keys())).text)
        if not can_change(key):
            can = ", ".join(each for each in known_keys() if can_change(each))
            raise RecipeError(f"{key}: a run keeps it while it trains; these can change: {can}")
    return parse_recipe(recipe.to_dict(), settings, source="the run's recipe")


@dataclass
class Asked:
    """The requests that a run has taken up between two steps; the same on every worker.

    Attributes
    ----------
    evaluate : bool
        True if the held-out set is scored now.
    changes : list of str
        A line for each setting that is about to change.
    """

    evaluate: bool = False
    changes: list[str] = field(default_factory=list)


class LiveRequests:
    """Looks for requests in a run's folder.

    Parameters
    ----------
    run_dir : Path or None
        None on every worker but rank 0, which alone looks.
    """

    def __init__(self, run_dir: Path | None) -> None:
        self._run_dir, self._looked = run_dir, 0.0
        self._to_remove: list[Path] = []  # requests that are obeyed once the state is saved

    def are_waiting(self) -> bool:
        """Returns True if there are some. Looks at most every LOOK_SECONDS, and says False in between."""
        now = time.monotonic()
        if self._run_dir is None or now - self._looked < LOOK_SECONDS:
            return False
        self._looked = now
        return bool(waiting(self._run_dir))

    def take(self, recipe: Recipe, state: TrainState, worker: Worker, tracker: NullTracker) -> Asked:
        """Takes up what is waiting. Every worker calls this, in the same step.

        Changes of settings are noted in `state`. If there are some, save it, and then call :meth:`begin_again`. What a
        run cannot do is a line of the log.
        """
        mine = self._read(recipe, worker, tracker) if self._run_dir else []
        asked = Asked()
        for plain in worker.broadcast(mine):
            request, changed = Request(**plain["request"]), plain["changed"]
            asked.evaluate |= request.evaluate
            for key, (before, now) in changed.items():
                first = state.live.get(key, {"from": before})["from"]
                state.live[key] = {"from": first, "to": now, "step": state.step, "by": request.by}
                state.changes.append({"step": state.step, "key": key, "from": before, "to": now, "by": request.by})
                asked.changes.append(f"{key} {before} -> {now}, which {request.by} has set")
            for what, wanted in (("to save", request.save), ("for an evaluation", request.evaluate)):
                if wanted:
                    tracker.message(f"step {state.step}: {request.by} asks {what}")
        return asked

    def begin_again(self, asked: Asked) -> NoReturn:
        """Ends this training, whose saved state has the changes that were `asked` for; it goes on with them."""
        for path in self._to_remove:  # not before: the change of a run that is killed while it saves is not lost
            _remove(path)
        raise RollBack(f"goes on from here with {'; '.join(asked.changes)}", [])

    def _read(self, recipe: Recipe, worker: Worker, tracker: NullTracker) -> list[dict[str, Any]]:
        """Returns the requests that can be obeyed, with what changes by each, and removes those that change nothing."""
        assert self._run_dir
        taken: list[dict[str, Any]] = []
        for path in waiting(self._run_dir):
            try:
                request = read_request(path)
                after = changed_recipe(recipe, request.settings)
                after.accumulate(worker.size)
            except KoGPT2Error as error:
                tracker.message(f"WARNING: a request is refused: {' '.join(str(error).split())}")
                _remove(path)
                continue
            changed = differences(recipe, after)
            taken.append({"request": asdict(request), "changed": changed})
            recipe = after
            self._to_remove.append(path) if changed else _remove(path)
        return taken


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def keep_live_changes(recipe: Recipe, saved: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Applies the changes of a saved state to the recipe that goes on from it, in place.

    A recipe whose value is the one from before the change is changed; one with a value of its own wins. Returns the
    changes that stay in force, and lines for the log.
    """
    kept, notes = {}, []
    for key, change in saved.get("live", {}).items():
        own, now = value_of(recipe, key), change["to"]
        who = f"set at step {change['step']:,} by {change['by']}"
        if own in (change["from"], now):
            kept[key] = change
            if own != now:
                set_value(recipe, key, now)
                notes.append(f"note: {key}={now}, {who}; the recipe has {own}")
        else:
            notes.append(f"note: {key}={own} by the recipe, no longer {now}, {who}")
    return kept, notes
