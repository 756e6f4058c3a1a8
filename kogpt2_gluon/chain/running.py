"""The loop of a chain: each stage is a process of an ordinary verb, which goes on by itself where it was stopped."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path

from kogpt2_gluon.chain.chain_file import ASIDE, Chain, Stage
from kogpt2_gluon.chain.planning import DONE, RESUMES, check_chain, of_stage, refuse_changed, standings
from kogpt2_gluon.chain.record import RECORD_FILE, Entry, Record
from kogpt2_gluon.chain.stages import arguments_of, deciding_settings, has_result, inputs_of, result_of, run_dir_of
from kogpt2_gluon.errors import KoGPT2Error, RecipeError
from kogpt2_gluon.machine.child_verb import ChildVerb, error_of
from kogpt2_gluon.runs.lock import RunLock, check_unlocked
from kogpt2_gluon.storage.files import move, write_file
from kogpt2_gluon.training.kept_scores import SCORES
from kogpt2_gluon.wording import Say, duration

KOGPT2 = (sys.executable, "-m", "kogpt2_gluon.cli.main")
LOOK_SECONDS = 0.2  # between looks at the lock of a run that is about to end
MOST_SECONDS = 120.0  # that a run of before may take to save its state


def run_chain(chain: Chain, again: Sequence[str], run_with: Sequence[str], say: Say) -> Record:
    """Runs the stages that are not done; returns the record of all.

    `again` names stages to run again, with all that depend on them. `run_with` are words before the command of a stage
    that trains, such as ``horovodrun --gloo -np 8``.

    Raises RecipeError or DataError before the first stage if something does not fit, PreemptedError if a stage was
    stopped with its state saved, and KoGPT2Error with a stage's own exit code and last line if it failed.
    """
    for name in again:
        chain.stage(name)
    with _alone(chain.folder):
        record = Record.load(chain.folder)
        _move_aside(chain, record, again, say)
        known = dict(record.known)
        found = standings(chain, record)
        if record.known != known:
            record.save()
        refuse_changed(chain, found)
        for stage in chain.stages:
            if found[stage.name].state == RESUMES:
                _wait_for_lock(run_dir_of(chain, stage))
        check_chain(chain, found)
        for stage in chain.stages:
            entry = record.entries.get(stage.name)
            if entry and found[stage.name].state == DONE:
                say(f"stage {stage.name}: done before: {entry.result}")
                continue
            _run(chain, stage, record, run_with, say)
    return record


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Holds the lock of a chain's folder."""
    try:
        lock = RunLock(folder)
    except RecipeError as error:
        text = str(error).replace("tracking.run_dir=", "").replace("trains in it", "works on this chain")
        raise RecipeError(f"{text.partition(';')[0]}; wait, or name another folder with --out") from None
    with lock:
        yield


def _move_aside(chain: Chain, record: Record, again: Sequence[str], say: Say) -> None:
    """Moves the folders of stages, and of those that depend on them, to a new one, with the record of before."""
    names = {name for each in again for name in chain.dependents(each)}
    begun = [stage for stage in chain.stages if stage.name in names and stage.name in record.entries]
    if not begun:
        return
    for stage in begun:
        check_unlocked(run_dir_of(chain, stage))
    name = f"{ASIDE}{time.strftime('%Y%m%d-%H%M%S')}"
    aside = next(path for n in count(1) if not (path := chain.folder / f"{name}{f'.{n}' * (n > 1)}").exists())
    aside.mkdir()
    shutil.copyfile(chain.folder / RECORD_FILE, aside / RECORD_FILE)
    # The last one first: a chain that dies on the way still finds what the stages that are left depend on.
    for stage in reversed(begun):
        if run_dir_of(chain, stage).exists():
            move(run_dir_of(chain, stage), aside / stage.name)
        del record.entries[stage.name]
        record.save()
    say(f"{', '.join(stage.name for stage in begun)}: moved to {aside}")


def _run(chain: Chain, stage: Stage, record: Record, run_with: Sequence[str], say: Say) -> None:
    """Runs one stage to its end."""
    folder = run_dir_of(chain, stage)
    if stage.name not in record.entries:
        with of_stage(stage):
            inputs = inputs_of(chain, stage, record.known)
        record.entries[stage.name] = Entry(deciding_settings(chain, stage), inputs)
    entry = record.entries[stage.name]
    record.save()  # before anything is in the folder
    words = arguments_of(chain, stage)
    say(f"stage {stage.name}: kogpt2 {' '.join(words)}")
    prefix = run_with if stage.verb != "evaluate" else ()
    began = time.monotonic()
    try:
        code, said = _process(stage, [*prefix, *KOGPT2, *words], folder)
    finally:
        entry.seconds += time.monotonic() - began
        record.save()
    if code:
        said = said or f"ended with exit code {code}"
        raise error_of(code, f"stage {stage.name}", said, "stopped, and its state is saved")
    if not has_result(chain, stage):
        raise KoGPT2Error(
            f"stage {stage.name}: ended without an error and left no result in {folder}; what is started by --run-with "
            "must run the words after it"
        )
    with of_stage(stage):
        entry.result, entry.done = result_of(chain, stage), True
    record.save()
    say(f"stage {stage.name}: {entry.result}, {duration(entry.seconds)}")


def _process(stage: Stage, argv: Sequence[str], folder: Path) -> tuple[int, str]:
    """Runs a command; returns its exit code and the last line of its stderr.

    The figures of a stage that evaluates are kept in its folder; what another one prints goes to the terminal.
    """
    is_evaluation = stage.verb == "evaluate"
    with tempfile.TemporaryFile() as figures:
        verb = ChildVerb([str(word) for word in argv], figures if is_evaluation else None)
        with closing(verb):
            try:
                code = verb.wait()
            finally:  # a request to stop arrives as an exception
                verb.stop()
                verb.wait()
            if is_evaluation and not code:
                figures.seek(0)
                folder.mkdir(parents=True, exist_ok=True)
                write_file(folder / SCORES, figures.read())
            return code, verb.last_line()


def _wait_for_lock(folder: Path) -> None:
    """Waits until a run of before, whose chain was killed, has saved its state. RecipeError if it does not end."""
    deadline = time.monotonic() + MOST_SECONDS
    while True:
        try:
            for each in (folder, *folder.glob("*seed-*")):  # those of a fine-tuning
                check_unlocked(each)
            return
        except RecipeError:
            if time.monotonic() > deadline:
                raise
        time.sleep(LOOK_SECONDS)


def table(chain: Chain, record: Record) -> list[str]:
    """Returns the lines of a table: each stage with its verb, its time and its result."""
    rows = [("stage", "verb", "time", "result")]
    for stage in chain.stages:
        entry = record.entries[stage.name]
        rows.append((stage.name, stage.verb, duration(entry.seconds), entry.result))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return ["  ".join([*(cell.ljust(width) for cell, width in zip(row, widths)), row[3]]) for row in rows]
