"""The plan of a chain: the state of each stage, and the checks that can be made before the first one runs."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kogpt2_gluon.chain.chain_file import ASIDE, Chain, Stage
from kogpt2_gluon.chain.networks import Known, check_networks
from kogpt2_gluon.chain.record import Record
from kogpt2_gluon.chain.stages import (
    arguments_of,
    changed_settings,
    data_of,
    has_result,
    inputs_of,
    is_empty,
    networks_of,
    placed,
    recipe_of,
    run_dir_of,
    same_but_for,
)
from kogpt2_gluon.convert.source import open_source
from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.estimate import count_parameters
from kogpt2_gluon.training.dry_run import check
from kogpt2_gluon.training.steps_of_task import with_steps
from kogpt2_gluon.wording import duration

DONE, RESUMES, WAITS, CHANGED, STALE = "done", "goes on", "waits", "changed", "stale"
GONE = "its result is gone"


@dataclass(frozen=True)
class Standing:
    """The state of a stage, and why it is not as it was: keys of settings and inputs, or the stage before it."""

    state: str
    why: str = ""


def standings(chain: Chain, record: Record) -> dict[str, Standing]:
    """Returns the state of each stage: DONE, RESUMES, WAITS, CHANGED, or STALE: it depends on a changed one.

    DataError if a stage's folder holds something that is not on record.
    """
    found: dict[str, Standing] = {}
    for stage in chain.stages:
        entry, folder = record.entries.get(stage.name), run_dir_of(chain, stage)
        if entry is None:
            if not is_empty(folder):
                raise DataError(f"{folder}: holds files, and {record.folder} has no record of them; move them away")
            found[stage.name] = Standing(WAITS)
            continue
        with of_stage(stage):
            differ = changed_settings(chain, stage, entry.settings)
            differ += [GONE] * (entry.done and not has_result(chain, stage))
            before = next((name for name in stage.references if found[name].state != DONE), "")
            if not differ and not before:
                differ = same_but_for(entry.inputs, inputs_of(chain, stage, record.known))
        if differ:
            found[stage.name] = Standing(CHANGED, ", ".join(differ))
        elif before:
            found[stage.name] = Standing(STALE, before)
        else:
            found[stage.name] = Standing(DONE if entry.done else RESUMES)
    return found


def refuse_changed(chain: Chain, found: dict[str, Standing]) -> None:
    """Raises RecipeError if the result of a stage is not that of the chain as it is now."""
    faults = [
        f"stage {name} has changed ({each.why})" if each.state == CHANGED else f"stage {name} follows from {each.why}"
        for name, each in found.items()
        if each.state in (CHANGED, STALE)
    ]
    if not faults:
        return
    first = next(name for name, each in found.items() if each.state in (CHANGED, STALE))
    raise RecipeError(
        f"{chain.folder}: {'; '.join(faults)}. Restore that, or run it again with what depends on it: --again {first} "
        f"(nothing is deleted: what is there moves to {chain.folder / ASIDE}TIME), or name another folder with --out"
    )


def check_chain(chain: Chain, found: dict[str, Standing]) -> dict[str, list[str]]:
    """Checks the recipe of every stage, and what each of those reads that can begin now; returns lines about these.

    Raises the error of the first fault, with the stage's name.
    """
    networks: Known = {}
    lines: dict[str, list[str]] = {}
    for stage in chain.stages:
        with of_stage(stage):
            check_networks(chain, stage, networks)
            if all(found[name].state == DONE for name in stage.references):
                lines[stage.name] = _checked(chain, stage, found[stage.name].state)
    return lines


def _checked(chain: Chain, stage: Stage, state: str) -> list[str]:
    """Makes the checks of a run of a stage whose inputs are all there."""
    if state == DONE:
        return []
    there = placed(chain, stage)
    for data in data_of(chain, there).values():
        data.check()
    for path in networks_of(chain, there).values():
        open_source(Path(path))
    recipe = recipe_of(chain, there) if stage.verb == "train" else None
    return check(with_steps(recipe, ())) if recipe else []


@contextmanager
def of_stage(stage: Stage) -> Iterator[None]:
    """Puts the name of a stage before the errors of the block."""
    try:
        yield
    except (RecipeError, DataError) as error:
        raise type(error)(f"stage {stage.name}: {error}") from None


def describe(chain: Chain, record: Record, found: dict[str, Standing], run_with: Sequence[str]) -> Iterator[str]:
    """Yields the lines of a dry run; raises what the chain would raise before its first stage."""
    lines = check_chain(chain, found)
    for stage in chain.stages:
        entry, standing = record.entries.get(stage.name), found[stage.name]
        shown = {DONE: f"done, {entry.result}, {duration(entry.seconds)}" if entry else ""}
        yield f"{stage.name}: {shown.get(standing.state) or standing.state}{f' ({standing.why})' * bool(standing.why)}"
        prefix = run_with if stage.verb != "evaluate" else ()
        yield f"  {shlex.join([*prefix, 'kogpt2', *arguments_of(chain, stage)])}"
        recipe = recipe_of(chain, stage)
        if recipe and stage.verb == "train":
            yield f"  {count_parameters(recipe.model):,} parameters, {recipe.training.num_steps:,} steps"
        yield from (f"  {line}" for line in lines.get(stage.name, ["its inputs are not there yet"]))
