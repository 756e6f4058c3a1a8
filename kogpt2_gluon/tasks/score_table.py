"""A table of scores: what was trained, the baselines, and what others published, next to one another.

A score of several seeds is their mean, with the sample's standard deviation. A system that is below a baseline is
marked in words, since a number such as 0.84 looks good to whoever does not know that counting shared letters gives
0.85. A published score has its split and its source with it, and a warning if ours has other rows.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from kogpt2_gluon.tasks.task import Task
from kogpt2_gluon.wording import width_of

# The kinds of scores, in the order of the table. A floor is a baseline that knows nothing of the language.
FLOOR, BASELINE, SYSTEM, PUBLISHED = KINDS = ("floor", "baseline", "system", "published")
COLUMNS = ("system", "split", "rows", "metric", "score", "seeds", "note")
_TO_THE_RIGHT = ("rows", "score", "seeds")


@dataclass(frozen=True)
class Score:
    """One score.

    Attributes
    ----------
    system, split, metric : str
    mean : float
        A fraction; NaN if the score does not exist.
    spread : float
        The standard deviation over the seeds; NaN for a single one.
    seeds, rows : int
        0 if not known.
    note : str
    kind : str
        One of KINDS.
    """

    system: str
    split: str
    metric: str
    mean: float
    spread: float = math.nan
    seeds: int = 1
    rows: int = 0
    note: str = ""
    kind: str = SYSTEM

    def plain_mean(self) -> float | None:
        """Returns the mean as JSON has it: None if it does not exist."""
        return self.mean if math.isfinite(self.mean) else None

    def written(self) -> str:
        """Returns the number as the table has it."""
        if math.isnan(self.mean):
            return "undefined"
        return f"{self.mean:.4f}" + ("" if math.isnan(self.spread) else f" ± {self.spread:.4f}")


@dataclass
class ScoreTable:
    """Scores, which :meth:`text`, :meth:`markdown` and :meth:`json` write; see :class:`Score`."""

    title: str
    scores: list[Score] = field(default_factory=list)

    def add_runs(
        self,
        system: str,
        split: str,
        runs: Sequence[Mapping[str, float]],
        rows: int,
        note: str = "",
        kind: str = SYSTEM,
    ) -> None:
        """Adds the scores of a system's runs, one or more with a seed each, on `rows` rows.

        `runs` are what `evaluate_predictions` returned, all with the same metrics. If a score does not exist in one
        run, neither does the mean: to leave the run out would flatter the system.
        """
        assert kind in KINDS and runs and all(run.keys() == runs[0].keys() for run in runs)
        for metric in runs[0]:
            found = [run[metric] for run in runs]
            missing = sum(map(math.isnan, found))
            more = f"undefined with {missing} of {len(runs)} seeds" if missing and len(runs) > 1 else ""
            spread = statistics.stdev(found) if len(found) > 1 and not missing else math.nan
            mean = math.nan if missing else statistics.fmean(found)
            notes = "; ".join(filter(None, (note, more)))
            self.scores.append(Score(system, split, metric, mean, spread, len(found), rows, notes, kind))

    def add_published(self, task: Task, rows: Mapping[str, int]) -> None:
        """Adds what others published on a task, by its own metrics. `rows` says how many rows each split has here."""
        for each in task.published:
            if each.metric not in task.metrics:
                continue
            theirs, ours = task.splits[each.split].rows if each.split in task.splits else 0, rows.get(each.split, 0)
            other = f"made on {theirs:,} rows, not on these {ours:,}" if ours and theirs and ours != theirs else ""
            note = "; ".join(filter(None, (other, each.source)))
            self.scores.append(
                Score(each.model, each.split, each.metric, each.score, math.nan, 0, theirs, note, PUBLISHED)
            )

    def verdict(self, score: Score) -> str:
        """Returns which baseline on the same rows a system is not above, in words; "" if it is above all of them."""
        if score.kind != SYSTEM:
            return ""
        if math.isnan(score.mean):
            return "this score does not exist"
        for kind, meaning in ((FLOOR, ": has learned nothing"), (BASELINE, "")):
            same = [each for each in self.scores if each.kind == kind and _on_the_same(each, score)]
            above = [each for each in same if each.mean >= score.mean]
            if above:
                best = max(above, key=lambda each: each.mean)
                return f"{'below' if best.mean > score.mean else 'no better than'} {best.system}{meaning}"
        return ""

    def ordered(self) -> list[Score]:
        """Returns the scores by metric, split and kind; what was added first comes first."""
        metrics = list(dict.fromkeys(score.metric for score in self.scores))
        splits = list(dict.fromkeys(score.split for score in self.scores))

        def place(score: Score) -> tuple[int, int, int]:
            return metrics.index(score.metric), splits.index(score.split), KINDS.index(score.kind)

        return sorted(self.scores, key=place)

    def text(self) -> str:
        """Returns the table with aligned columns."""
        cells = [COLUMNS, *map(self._cells, self.ordered())]
        widths = [max(map(width_of, column)) for column in zip(*cells)]
        lines = [_plain(self.title), *("  ".join(map(_aligned, row, widths, COLUMNS)).rstrip() for row in cells)]
        return "\n".join(lines) + "\n"

    def markdown(self) -> str:
        """Returns the table in Markdown."""
        rule = ["--:" if name in _TO_THE_RIGHT else "---" for name in COLUMNS]
        rows = [COLUMNS, rule, *([_escaped(cell) for cell in self._cells(score)] for score in self.ordered())]
        return f"**{_escaped(_plain(self.title))}**\n\n" + "".join(f"| {' | '.join(row)} |\n" for row in rows)

    def json(self) -> str:
        """Returns the table as JSON; a number that does not exist is null."""
        scores = [{**asdict(score), "verdict": self.verdict(score)} for score in self.ordered()]
        plain = [{key: _for_json(value) for key, value in each.items()} for each in scores]
        return (
            json.dumps({"title": _for_json(self.title), "scores": plain}, ensure_ascii=False, indent=1, allow_nan=False)
            + "\n"
        )

    def _cells(self, score: Score) -> tuple[str, ...]:
        cells = {
            "system": score.system,
            "split": score.split,
            "rows": f"{score.rows:,}" if score.rows else "",
            "metric": score.metric,
            "score": score.written(),
            "seeds": str(score.seeds) if score.seeds else "",
            "note": "; ".join(filter(None, (self.verdict(score), score.note, "published" * (score.kind == PUBLISHED)))),
        }
        return tuple(_plain(cells[name]) for name in COLUMNS)


def _on_the_same(one: Score, other: Score) -> bool:
    return (one.split, one.metric, one.rows) == (other.split, other.metric, other.rows)


def _for_json(value: object) -> object:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()  # a path need not be Unicode
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _plain(text: str) -> str:
    """Returns a text on one line, without what a terminal obeys: names come from files."""
    return "".join(sign if sign.isprintable() else " " for sign in text)


def _escaped(text: str) -> str:
    return "".join(f"\\{sign}" if sign in "\\|`*_<>[]" else sign for sign in text)


def _aligned(text: str, width: int, column: str) -> str:
    fill = " " * (width - width_of(text))
    return fill + text if column in _TO_THE_RIGHT else text + fill
