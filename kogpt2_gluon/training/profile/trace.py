"""Reads the record of MXNet's profiler, attributes it to the phases of a step, and writes it as a Chrome trace."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kogpt2_gluon.storage.files import write_file

IDLE = "(no operator runs)"


@dataclass(frozen=True)
class Span:
    """A stretch of time with a name, in microseconds of the system's clock; `thread` is where it passed."""

    name: str
    start: float
    end: float
    thread: str = ""


@dataclass(frozen=True)
class OperatorTime:
    """The time of an operator in a phase. `share` is its share of a step of the profiled pass."""

    operator: str
    phase: str
    calls_a_step: float
    ms_a_step: float
    share: float


def read_spans(path: Path) -> list[Span]:
    """The operators in a file of MXNet's profiler, sorted by their start; each on "DEVICE thread N".

    The file has every operator twice: as a pair of events ("B", "E") on the thread that ran it, and, for viewers, as an
    asynchronous pair ("b", "e") on a track of its category. The first pair is read.
    """
    events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    devices = {event["pid"]: event["args"]["name"].strip("/") for event in events if event["ph"] == "M"}
    threads: dict[tuple[Any, Any], str] = {}
    begun: dict[tuple[Any, Any], list[Any]] = defaultdict(list)
    spans = []
    for event in events:
        if event["ph"] not in ("B", "E"):
            continue
        where = event["pid"], event["tid"]
        if where not in threads:
            device = devices.get(event["pid"], "engine")
            number = 1 + sum(pid == event["pid"] for pid, _ in threads)
            threads[where] = f"{device} thread {number}"
        if event["ph"] == "B":
            begun[where].append(event)
        elif begun[where]:
            start = begun[where].pop()
            spans.append(Span(start["name"], start["ts"], event["ts"], threads[where]))
    return sorted(spans, key=lambda span: (span.start, -span.end))


def operator_times(phases: Sequence[Span], operators: Iterable[Span], steps: int) -> list[OperatorTime]:
    """The time of the operators in each phase, longest first, and the time in which no operator ran.

    An operator belongs to the phase in which it began, because a phase waits for all of its operators. Phases come in
    the order of time and do not overlap; what ran outside of them is left out. Operators on several threads at once
    are each counted in full, so the operators of a phase can add up to more than its time.
    """
    starts = [phase.start for phase in phases]
    total = sum(phase.end - phase.start for phase in phases)
    calls: dict[tuple[str, str], int] = defaultdict(int)
    spent: dict[tuple[str, str], float] = defaultdict(float)
    within: dict[int, list[Span]] = defaultdict(list)
    for operator in operators:
        place = bisect_right(starts, operator.start) - 1
        if place < 0 or operator.start > phases[place].end:
            continue
        key = operator.name, phases[place].name
        calls[key] += 1
        spent[key] += operator.end - operator.start
        within[place].append(operator)
    for place, phase in enumerate(phases):
        spent[IDLE, phase.name] += phase.end - phase.start - covered(within[place], phase)
    return sorted(
        (
            OperatorTime(name, phase, calls[name, phase] / steps, time / 1e3 / steps, time / total)
            for (name, phase), time in spent.items()
        ),
        key=lambda each: -each.ms_a_step,
    )


def covered(spans: Sequence[Span], within: Span) -> float:
    """The microseconds of `within` in which at least one of `spans`, sorted by their start, is under way."""
    total, reached = 0.0, within.start
    for span in spans:
        start, end = max(span.start, reached), min(span.end, within.end)
        if end > start:
            total += end - start
            reached = end
    return total


def write_trace(path: Path, phases: Sequence[Span], operators: Sequence[Span]) -> None:
    """Writes a file for chrome://tracing and Perfetto: phases on one track, operators on the tracks of their threads.

    MXNet's own file cannot be passed on: it numbers threads beyond what a JavaScript number holds. Times are in
    microseconds since the first phase.
    """
    began = phases[0].start
    tracks = {name: number for number, name in enumerate(sorted({span.thread for span in operators}), start=1)}
    events: list[dict[str, Any]] = []
    for process, name in ((1, "step"), (2, "MXNet")):
        events.append({"ph": "M", "name": "process_name", "pid": process, "args": {"name": name}})
    events.append({"ph": "M", "name": "thread_name", "pid": 1, "tid": 1, "args": {"name": "phases"}})
    for name, track in tracks.items():
        events.append({"ph": "M", "name": "thread_name", "pid": 2, "tid": track, "args": {"name": name}})
    for spans, process in ((phases, 1), (operators, 2)):
        for span in spans:
            event: dict[str, Any] = {"ph": "X", "name": span.name, "cat": "phase" if process == 1 else "operator"}
            place = {"pid": process, "tid": tracks.get(span.thread, 1)}
            events.append(
                {**event, **place, "ts": round(span.start - began, 3), "dur": round(span.end - span.start, 3)}
            )
    write_file(path, json.dumps({"traceEvents": events, "displayTimeUnit": "ms"}).encode())
