"""The logbook on a run's page: each entry in its place, and many of one kind folded where they happened."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kogpt2_gluon.runs.logbook import Entry
from kogpt2_gluon.runs.report_health import Spike, spike_in, what_spikes_are
from kogpt2_gluon.runs.report_parts import folded, placeholder, remark, safe, section, table
from kogpt2_gluon.wording import counted

MOST_ROWS = 400  # of the logbook
MOST_FOLDED = 200  # entries of one kind that are in the page
ALIKE = 3  # entries of one kind that are all shown
SAID_BY_KIND = re.compile(r"\A(?:note by (?=\S+: )|ended: |WARNING:? )")  # begins a text, and its kind says it too


def logbook_section(entries: Sequence[Entry], recipe: Mapping[str, Any], clock: str) -> str:
    """Returns all that was said but for figures, and the operators' notes, the oldest first.

    `recipe` is the run's, as plain data; `clock` says how the times of the log differ from UTC ("": not on record).
    """
    if not entries:
        nothing = placeholder("no log.txt here, so nothing is known of restarts, spikes and warnings")
        return section("Logbook", nothing, "logbook")
    rows = [row for stretch in _stretches(entries) for row in _rows_of(stretch, recipe)]
    left_out = len(rows) - MOST_ROWS
    notes = [f"Times are those of the host's clock{f' ({clock})' if clock else ''}."]
    if left_out > 0:
        notes.insert(0, f"The last {MOST_ROWS} rows; {counted(left_out, 'earlier row')} in log.txt.")
    body = "".join(rows[-MOST_ROWS:])
    shown = f'<table class="logbook"><tbody>{body}</tbody></table>'
    return section("Logbook", shown + remark(" ".join(notes)), "logbook")


def _stretches(entries: Sequence[Entry]) -> Iterator[list[Entry]]:
    """Yields the events between two entries of other kinds together, and each other entry alone."""
    events: list[Entry] = []
    for entry in entries:
        if entry.kind == "event":
            events.append(entry)
            continue
        if events:
            yield events
            events = []
        yield [entry]
    if events:
        yield events


def _rows_of(stretch: Sequence[Entry], recipe: Mapping[str, Any]) -> Iterator[str]:
    """Yields the rows of a stretch: those of one kind are folded at the place of the first if they are many."""
    alike: dict[str, list[Entry]] = {}
    for entry in stretch:
        alike.setdefault(_kind_of(entry), []).append(entry)
    for entry in stretch:
        same = alike[_kind_of(entry)]
        if len(same) <= ALIKE:
            yield _row(entry)
        elif entry is same[0]:
            spikes = [spike for spike in (spike_in(each.text) for each in same) if spike]
            content = _folded_spikes(spikes, recipe) if spikes else _folded_entries(same)
            kind = "spikes" if spikes else entry.kind
            times = entry.time if entry.time[:10] == same[-1].time[:10] else f"{entry.time} to {same[-1].time}"
            yield _cells(entry.kind, times, kind, content)


def _kind_of(entry: Entry) -> str:
    """Returns the entry's text without its numbers; of a spike, which figure it was of, and what was done."""
    spike = spike_in(entry.text)
    return f"{spike.figure}, {spike.done}" if spike else re.sub(r"[\d.,+-]+", "#", entry.text)


def _row(entry: Entry) -> str:
    spike = spike_in(entry.text)
    text = SAID_BY_KIND.sub("", entry.text, count=1)
    return _cells(entry.kind, entry.time, "spike" if spike and entry.kind == "event" else entry.kind, safe(text))


def _cells(css_class: str, time: str, kind: str, content: str) -> str:
    return f'<tr class="{css_class}"><td>{safe(time)}</td><td>{safe(kind)}</td><td>{content}</td></tr>'


def _folded_entries(entries: Sequence[Entry]) -> str:
    """Returns entries that differ in their numbers alone as the first one, and the others folded."""
    others = entries[1:][-MOST_FOLDED:]
    left_out = len(entries) - 1 - len(others)
    summary = f"{len(entries) - 1:,} more like this one" + (f", the last {len(others):,} of them" * bool(left_out))
    rows = [(entry.time, entry.text) for entry in others]
    return safe(entries[0].text) + folded(summary, table(("time", "event"), rows, "More events of this kind", low=True))


def _folded_spikes(spikes: Sequence[Spike], recipe: Mapping[str, Any]) -> str:
    """Returns spikes of one figure as one line, and a compact table that is folded."""
    largest = max(spikes, key=lambda spike: spike.deviations)
    summary = (
        f"{len(spikes):,} spikes of the {spikes[0].figure}, {spikes[0].name} to {spikes[-1].name}; furthest above the "
        f"mean of its time, by {largest.deviations:g} standard deviations: {largest.value} at {largest.name}"
    )
    shown, note = list(spikes), what_spikes_are(recipe)
    if len(shown) > MOST_FOLDED:
        least = sorted((spike.deviations for spike in spikes), reverse=True)[MOST_FOLDED - 1]
        shown = [spike for spike in spikes if spike.deviations >= least][:MOST_FOLDED]
        note += f" Here are the {len(shown):,} largest; log.txt has all."
    note += " odd_updates.txt in the run folder lists their sequences."
    rows = [
        (
            spike.name,
            spike.value,
            f"{spike.mean} ± {spike.deviation}",
            f"{spike.deviations:g}",
            spike.done,
            spike.place.replace(" of the reading order", ""),
        )
        for spike in shown
    ]
    titles = ("at", spikes[0].figure, "usual", "deviations", "the update was", "data")
    return folded(summary, table(titles, rows, f"Spikes of the {spikes[0].figure}", low=True) + remark(note))
