"""A scenario of faults is a series of trials; here they are run, counted and put into a table."""

from __future__ import annotations

import random
import shutil
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, NamedTuple, TypeVar

from tests.chaos.world import World

Item = TypeVar("Item")

SHOWN = 10  # failures of a scenario that are shown in full
LEFT_OUT = "left out"  # what a trial returns that cannot be made on this machine


class Trial(NamedTuple):
    """One fault.

    name : the same in each run with the same seed, without spaces. run : is called with an empty folder; it returns in
    a word or two how the fault was taken, or counts that for many faults. It raises an error if one was not taken well.
    """

    name: str
    run: Callable[[Path], str | Counter[str]]


@dataclass(frozen=True)
class Chance:
    """The choices that are left to chance. short : only a sample of the trials is wanted, which takes seconds."""

    seed: int
    short: bool

    def draw(self, purpose: str) -> random.Random:
        """Returns a generator of its own for each purpose, such as the name of a trial."""
        return random.Random(f"{self.seed}/{purpose}")

    def sample(self, purpose: str, items: Iterable[Item], short: int, long: int | None = None) -> list[Item]:
        """Returns some of the items, in their order: `short` of them in the short form, `long` (None: all) else."""
        found = list(items)
        wanted = short if self.short else long
        if wanted is None or wanted >= len(found):
            return found
        chosen = sorted(self.draw(purpose).sample(range(len(found)), wanted))
        return [found[place] for place in chosen]


class Scenario(NamedTuple):
    """A kind of fault.

    name : for the command line. what : for the table. trials : makes them. at_once : how many may run together. long :
    it has no short form.
    """

    name: str
    what: str
    trials: Callable[[World, Chance], Iterable[Trial]]
    at_once: int = 2
    long: bool = False


@dataclass
class Row:
    """A line of the table."""

    name: str
    what: str
    held: Counter[str] = field(default_factory=Counter)
    failures: dict[str, str] = field(default_factory=dict)
    left_out: int = 0
    seconds: float = 0.0

    @property
    def tried(self) -> int:
        return self.held.total() + len(self.failures)

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "what": self.what,
            "tried": self.tried,
            "held": dict(self.held),
            "failed": self.failures,
            "left_out": self.left_out,
            "seconds": round(self.seconds, 1),
        }


def run_scenario(scenario: Scenario, world: World, chance: Chance, only: str = "") -> Row:
    """Runs the trials of a scenario, or `only` the one of that name, and shows how far it is."""
    row, began = Row(scenario.name, scenario.what), time.monotonic()
    folder = world.folder / scenario.name
    trials = [trial for trial in scenario.trials(world, chance) if only in ("", trial.name)]
    show = _Progress(scenario.name, len(trials))

    def carry_out(trial: Trial) -> tuple[Trial, str | Counter[str], str]:
        place = folder / trial.name
        place.mkdir(parents=True)
        try:
            how, fault = trial.run(place), ""
        except Exception as error:  # whatever it is, the fault was not taken well
            text = str(error) if isinstance(error, AssertionError) else traceback.format_exc()
            return trial, "", text or traceback.format_exc()
        shutil.rmtree(place)
        return trial, how, fault

    with ThreadPoolExecutor(1 if chance.short else scenario.at_once) as threads:
        for trial, how, fault in threads.map(carry_out, trials):
            if fault:
                row.failures[trial.name] = fault
                if len(row.failures) <= SHOWN:
                    print(f"\nFAILED {scenario.name} {trial.name}: {fault}\n  {command(scenario, chance, trial.name)}")
            elif how == LEFT_OUT:
                row.left_out += 1
            else:
                row.held.update([how] if isinstance(how, str) else how)
            show.next()
    row.seconds = time.monotonic() - began
    return row


def command(scenario: Scenario, chance: Chance, trial: str) -> str:
    """The command that repeats one trial."""
    return f"python tests/chaos/run.py {scenario.name} --seed {chance.seed} --only {trial}"


class _Progress:
    """A line that is drawn again on a terminal; elsewhere a line for every tenth."""

    def __init__(self, name: str, count: int) -> None:
        self._name, self._count, self._done, self._shown = name, count, 0, 0

    def next(self) -> None:
        self._done += 1
        tenth = 10 * self._done // self._count
        if sys.stdout.isatty():
            print(f"\r{self._name}: {self._done} of {self._count}", end="\n" * (self._done == self._count), flush=True)
        elif tenth > self._shown or self._done == self._count:
            self._shown = tenth
            print(f"{self._name}: {self._done} of {self._count}", flush=True)


def table(rows: Sequence[Row]) -> str:
    """The rows as text, with how each kind of fault was taken."""
    lines = [("scenario", "what", "tried", "held", "failed", "seconds", "how")]
    for row in rows:
        left_out = {LEFT_OUT: row.left_out} if row.left_out else {}
        how = ", ".join(f"{name} {count:,}" for name, count in [*row.held.most_common(), *left_out.items()])
        counts = (f"{row.tried:,}", f"{row.held.total():,}", f"{len(row.failures):,}", f"{row.seconds:,.0f}")
        lines.append((row.name, row.what, *counts, how))
    widths = [max(len(line[column]) for line in lines) for column in range(6)]

    def cell(column: int, text: str) -> str:
        return text if column == 6 else text.rjust(widths[column]) if column >= 2 else text.ljust(widths[column])

    return "\n".join("  ".join(cell(*each) for each in enumerate(line)).rstrip() for line in lines)
