"""Says in one line what went wrong in a run, or that nothing did, by its logbook."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from kogpt2_gluon.runs.logbook import Entry
from kogpt2_gluon.runs.metrics import ENDED
from kogpt2_gluon.runs.report_parts import mapping_in
from kogpt2_gluon.wording import counted

# The lines are those of training/update_check.py, training/spikes.py and reading/damage.py.
SPIKE = re.compile(
    r"(?:step (?P<step>\d+)|update (?P<skipped>\d+) skipped, (?P<count>\d+) so far"
    rf"|{ENDED}rolled back from update (?P<back>\d+)): (?P<figure>loss|gradient norm) (?P<value>\S+) is "
    r"(?:(?P<deviations>[\d.]+) deviations )?above the mean of the last \d+, (?P<mean>\S+) \(\+-(?P<deviation>\S+)\)"
    r"(?:; (?P<place>.*))?",
    re.DOTALL,
)
SKIPPED = re.compile(r"update (\d+) skipped, \d+ so far: (.*)", re.DOTALL)
ROLLED_BACK = re.compile(rf"{ENDED}rolled back from update (\d+)")
DAMAGED = re.compile(r"(.+: chunk \d+ at byte \d+) is damaged; a neighbour is read in its place")
BY_ITSELF = (f"{ENDED}rolled back", f"{ENDED}goes on")  # ends after which the same process goes on
LARGEST = 1e300  # of a setting, so that it can be written as a float
GOES_ON = "going on from "  # a line of a start that has a checkpoint


class Spike(NamedTuple):
    """A spike on record.

    Attributes
    ----------
    name : str
        ``step 470``, or ``update 470`` where it was not made.
    step : int
        The step that the update was, or would have been.
    figure : str
        ``loss`` or ``gradient norm``.
    value, mean, deviation : str
        The figure, and what was usual for it.
    deviations : float
        By how many standard deviations it was above the mean; 0 if that is not on record.
    done : str
        ``made``, ``skipped`` or ``rolled back``.
    place : str
        The sequences of that update.
    """

    name: str
    step: int
    figure: str
    value: str
    mean: str
    deviation: str
    deviations: float
    done: str
    place: str


def spike_in(text: str) -> Spike | None:
    """Returns the spike that a line of the log is about; None if it is about something else."""
    found = SPIKE.fullmatch(text)
    if not found or max(map(len, re.findall(r"\d+", text))) > 18:
        return None
    usual = found["figure"], found["value"], found["mean"], found["deviation"]
    how_far, place = _number(found["deviations"] or "0"), " ".join((found["place"] or "").split())
    if found["step"]:
        return Spike(f"step {int(found['step']):,}", int(found["step"]), *usual, how_far, "made", place)
    if found["skipped"]:
        number, before = int(found["skipped"]), int(found["count"]) - 1
        return Spike(f"update {number:,}", max(number - before, 0), *usual, how_far, "skipped", place)
    number = int(found["back"])
    return Spike(f"update {number:,}", number, *usual, how_far, "rolled back", place)


@dataclass(frozen=True)
class Health:
    """The counts of a logbook.

    Those of updates are of the entries since the run last began at its first step: what it did before was begun again.

    Attributes
    ----------
    restarts : list of Entry
        The starts after the first one, but for those after which the same process went on.
    from_nothing : int
        The number of restarts without a checkpoint.
    spikes : list of Spike
    again : int
        The number of them that a restart met a second time.
    skipped : int
        Updates that were skipped.
    overflows : int
        The number of them that float16's loss scale skipped.
    rollbacks, damaged, warnings : int
    end : str
        How the run ended, ``done`` or why; "" if that is not on record.
    """

    restarts: list[Entry] = field(default_factory=list)
    from_nothing: int = 0
    spikes: list[Spike] = field(default_factory=list)
    again: int = 0
    skipped: int = 0
    overflows: int = 0
    rollbacks: int = 0
    damaged: int = 0
    warnings: int = 0
    end: str = ""


def health_of(entries: Sequence[Entry]) -> Health:
    """Counts what a reader of the page asks for first."""
    restarts: list[Entry] = []
    from_nothing, begin, ended, has_begun = 0, 0, "", False
    for number, entry in enumerate(entries):
        if entry.kind == "start":
            if begins_again := has_begun and not ended.startswith(BY_ITSELF):
                restarts.append(entry)
            if begins_again and not any(line.startswith(GOES_ON) for line in entry.text.split("\n")):
                from_nothing, begin = from_nothing + 1, number
            has_begun = True
        if entry.kind != "note":
            ended = entry.text if entry.kind == "end" else ""
    since = [entry for entry in entries[begin:] if entry.kind != "note"]
    spikes = [spike for spike in (spike_in(entry.text) for entry in since) if spike]
    skipped = {found[1]: found[2] for found in (SKIPPED.match(entry.text) for entry in since) if found}
    return Health(
        restarts=restarts,
        from_nothing=from_nothing,
        spikes=spikes,
        again=len(spikes) - len({(spike.name, spike.figure, spike.done) for spike in spikes}),
        skipped=len(skipped),
        overflows=sum("overflow float16" in why for why in skipped.values()),
        rollbacks=sum(bool(ROLLED_BACK.match(entry.text)) for entry in since),
        damaged=len({found[1] for found in (DAMAGED.match(entry.text) for entry in since) if found}),
        warnings=sum(entry.kind == "warning" for entry in since),
        end="" if ended.startswith(BY_ITSELF) else ended[len(ENDED) :],
    )


def in_a_line(health: Health, recipe: Mapping[str, Any], steps: int, not_finite: int = 0) -> str:
    """Returns the counts as a line, zeros too, so that nobody has to trust silence.

    `recipe` is the run's, as plain data; `steps` how many updates were made; `not_finite` how many recorded losses are
    not finite.
    """
    restarts = counted(len(health.restarts), "restart")
    if health.from_nothing:
        restarts += f" ({health.from_nothing:,} from the first step again)"
    skipped = f"{counted(health.skipped, 'update')} skipped"
    if health.overflows:
        skipped += f" ({health.overflows:,} by the loss scale of float16, as is usual)"
    parts = [restarts, skipped, _spikes(health, mapping_in(recipe, "training"), steps)]
    if health.rollbacks:
        parts.append(counted(health.rollbacks, "rollback"))
    parts += [counted(health.damaged, "damaged chunk"), counted(health.warnings, "warning")]
    if not_finite:
        parts.append(f"{counted(not_finite, 'record')} of training with a loss that is not finite")
    return ", ".join(parts)


def _spikes(health: Health, training: Mapping[str, Any], steps: int) -> str:
    if not health.spikes:
        is_off = training.get("on_spike") == "off"
        return "spikes are not looked for (training.on_spike=off)" if is_off else "0 spikes"
    figures = {spike.figure for spike in health.spikes}
    kind = "gradient spike" if figures == {"gradient norm"} else "loss spike" if figures == {"loss"} else "spike"
    remarks = [f"1 in {steps / len(health.spikes):,.0f} updates"] if steps > len(health.spikes) else []
    done = Counter(spike.done for spike in health.spikes)
    remarks.append(", ".join(f"{count:,} {how}" for how, count in done.items() if how != "made") or "none skipped")
    if done["made"] and (clipped := _clipping(training)):
        remarks.append(f"those updates were made, {clipped}")
    if health.again:
        remarks.append(f"{health.again:,} of them met again after a restart")
    return f"{counted(len(health.spikes), kind)} ({'; '.join(remarks)})"


def what_spikes_are(recipe: Mapping[str, Any]) -> str:
    """Returns words on what counts as a spike, and on what the run does at one."""
    training = mapping_in(recipe, "training")
    sigmas, window, action = (training.get(key) for key in ("spike_sigmas", "spike_window", "on_spike"))
    known = isinstance(sigmas, (int, float)) and sigmas < LARGEST and isinstance(window, int)
    limits = f"{sigmas:g} standard deviations above the mean of the {window:,} updates before it" if known else "usual"
    clipped = _clipping(training)
    does = {
        "log": f"the update is made all the same{', ' + clipped if clipped else ''}",
        "skip": "the update is skipped",
        "rollback": "the run goes back to its last checkpoint and leaves the update out",
    }
    said = f" training.on_spike={action}: {does[action]}." if isinstance(action, str) and action in does else ""
    return f"A spike is an update whose loss or gradient norm is more than {limits}.{said}"


def _clipping(training: Mapping[str, Any]) -> str:
    norm = training.get("clip_norm")
    return (
        f"with gradients scaled down to a norm of {norm:g}, as all above that are"
        if isinstance(norm, (int, float)) and 0 < norm < LARGEST
        else ""
    )


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:  # such as 1.2.3
        return 0.0
