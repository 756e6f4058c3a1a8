"""Looks into a run's mirrors before its first step: whose they are, and what to go on from if the run's folder is gone.

Rank 0 does this; without MXNet, so that a dry run does it too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from kogpt2_gluon.errors import DamagedError, DataError, KoGPT2Error, RecipeError
from kogpt2_gluon.estimate import checkpoints_kept, size_of
from kogpt2_gluon.recipe import Recipe
from kogpt2_gluon.runs.checkpoint import Checkpoint
from kogpt2_gluon.runs.checkpoint_folder import LATEST, name_best, step_of
from kogpt2_gluon.runs.mirror import Mirror, identity, newest_first, words_of
from kogpt2_gluon.storage.files import write_file
from kogpt2_gluon.wording import gib

SHOWN = 3  # settings that a message names


@dataclass
class MirrorStart:
    """The result: lines for the log, and the checkpoint that would be fetched, as MIRROR/NAME ("": none)."""

    notes: list[str] = field(default_factory=list)
    to_fetch: str = ""


def settle_mirrors(recipe: Recipe, resume: str, checkpoint: Checkpoint | None, fetch: bool) -> MirrorStart:
    """Checks the mirrors of a run that goes on from `checkpoint`; if there is none, fetches the newest from a mirror.

    Without `fetch` nothing is written, and the result says what would be fetched. A mirror that fails is a warning for
    a run that goes on from a checkpoint of its own, and an error for one that begins: nobody can tell if it holds this
    run's checkpoints. RecipeError for a mirror that holds another run's.
    """
    start, mirrors = MirrorStart(), [Mirror(address) for address in recipe.checkpoint.mirrors]
    if not mirrors:
        return start
    alive, failed = [], []
    for mirror in mirrors:
        try:
            mirror.check_writable()
            names = mirror.checkpoints()
        except (KoGPT2Error, OSError) as error:
            failed.append((mirror, error))
            continue
        alive.append(mirror)
        if names and checkpoint:
            start.notes += _check_owner(mirror, names, checkpoint)
        elif names and resume == "never":
            raise RecipeError(
                f"{mirror.name}: already holds {names[0]}; --resume auto continues from it, or change "
                "checkpoint.mirrors"
            )
    found = newest_first(alive) if not checkpoint else []
    for mirror, problem in failed:
        if not checkpoint and not found:
            raise _unreachable(problem)
        words = words_of(problem).removeprefix(f"{mirror.name}: ")
        start.notes.append(f"WARNING: mirror {mirror.name}: {words}; each save tries again")
    for mirror in {mirror.name: mirror for mirror, _ in found}.values():
        _check_same_recipe(mirror, recipe)
    for mirror in alive:
        mirror.check_folder(recipe.ckpt_dir)
    if found and fetch:
        start.notes += _fetch_newest(found, recipe.ckpt_dir)
    elif found:
        start.to_fetch = f"{found[0][0].name}/{found[0][1]}"
    return start


def describe_mirrors(recipe: Recipe) -> list[str]:
    """Says for a dry run where the mirrors are and how much goes there."""
    one = size_of(recipe).checkpoint
    most = gib(one * (checkpoints_kept(recipe) + 1))
    return [f"mirror             {each}: {gib(one)} a checkpoint, {most} at most" for each in recipe.checkpoint.mirrors]


def _check_owner(mirror: Mirror, names: list[str], checkpoint: Checkpoint) -> list[str]:
    """RecipeError if a mirror holds another run's checkpoints; a line if it holds a later step than `checkpoint`."""
    state, own = checkpoint.state(), checkpoint.path
    mirror.check_owner(identity(state))
    if step_of(Path(names[0])) <= state["step"]:
        return []
    return [
        f"WARNING: mirror {mirror.name}: holds {names[0]}, later than {own}; the run goes on from {own.name}, and "
        f"the next save moves {names[0]} aside there; to go on from that one, first move {own.parent} away"
    ]


def _check_same_recipe(mirror: Mirror, recipe: Recipe) -> None:
    """RecipeError unless a mirror's newest checkpoint is of a run with this recipe."""
    for name in mirror.checkpoints():
        try:
            state, saved = mirror.state(name), mirror.recipe(name)
        except DamagedError:
            continue  # the log says so when it cannot be fetched
        # As it began, as it went on, and both by today's reckoning: a later version may know more settings.
        known = identity(state).partition("/")[0], state.get("recipe_fingerprint"), saved.fingerprint()
        if recipe.fingerprint() not in known:
            raise RecipeError(
                f"{mirror.name}: {name} is of another run ({_differences(saved, recipe)}); nothing was written there; "
                "name another folder or prefix in checkpoint.mirrors, or take up that run with its own recipe"
            )
        return


def _differences(saved: Recipe, recipe: Recipe) -> str:
    before, now = saved.to_dict(), recipe.to_dict()
    changed = [
        f"{section}.{key}={before[section][key]}, here {now[section][key]}"
        for section in ("model", "data", "training")
        for key in now[section]
        if before[section][key] != now[section][key] and (section, key) not in (("data", "train"), ("data", "test"))
    ]
    more = f" and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
    return "; ".join(changed[:SHOWN]) + more or "its recipe differs"


def _fetch_newest(found: list[tuple[Mirror, str]], ckpt_dir: Path) -> list[str]:
    """Fetches the newest checkpoint that is whole, and the best one with it; returns lines for the log.

    One that cannot be read now may be whole, so only another mirror's copy of it takes its place.
    """
    notes: list[str] = []
    faults: list[str] = []
    unread: tuple[str, Exception] | None = None
    for mirror, name in found:
        if unread and name != unread[0]:
            raise unread[1]  # an older one would lose steps that may be there once the mirror answers
        try:
            mirror.fetch(name, ckpt_dir)
        except (DataError, OSError) as error:
            faults.append(words_of(error))
            unread = unread if isinstance(error, DamagedError) else (name, error)
            continue
        write_file(ckpt_dir / LATEST, f"{name}\n".encode())
        notes += [f"WARNING: {fault}" for fault in faults]
        notes.append(f"{ckpt_dir}: had no checkpoint, so {name} was fetched from the mirror {mirror.name}")
        return notes + _fetch_best(mirror, name, ckpt_dir)
    if unread:
        raise unread[1]
    raise DamagedError(
        f"{ckpt_dir}: has no checkpoint, and none is whole in the mirrors: {'; '.join(faults)}; to begin at step 0, "
        "name other mirrors"
    )


def _fetch_best(mirror: Mirror, newest: str, ckpt_dir: Path) -> list[str]:
    """Fetches the best checkpoint; one that is damaged is a warning, since the run can go on without it."""
    best = mirror.best()
    if best is None:
        return []
    try:
        if best != newest:
            mirror.fetch(best, ckpt_dir)
    except DamagedError as error:
        return [f"WARNING: the best checkpoint is lost: {error}"]
    name_best(ckpt_dir, step_of(Path(best)))
    return [] if best == newest else [f"{best}, the best checkpoint, was fetched too"]


def _unreachable(error: KoGPT2Error | OSError) -> KoGPT2Error:
    kind = type(error) if isinstance(error, (RecipeError, DataError)) else DataError
    return kind(
        f"checkpoint.mirrors: {words_of(error)}; it may hold this run's checkpoints, so the run does not begin "
        "without it"
    )
