"""Did a source lose more than it should? The rule that ends a cleaning whose result nobody can have meant.

A source has lost too much if a larger share of its records than `max_dropped` was dropped, or if nothing of it is left.
Some drops are no loss. What a kind passes over by its definition (talk pages, redirects) and what has no text (blank
lines) is no record either; duplicates are records, but their text is in the corpus.

A source of fewer than ten records proves little: a file may be one review, which is too short. So what filters drop
from such sources is judged for all of them together. A record that could not be read always counts for its own source.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from kogpt2_gluon.corpus.cleaning.options import CleaningOptions
from kogpt2_gluon.corpus.cleaning.report import CleaningReport, SourceReport

MAX_DROPPED = 0.5  # share of a source's records
FEWEST = 10  # records of a source that is judged alone
PASSED_OVER = frozenset(["namespace", "redirect", "not_wikitext"])
DUPLICATES = frozenset(["duplicate", "near_duplicate", "duplicate_lines"])
NO_TEXT = "empty"
# All other reasons that count are of records that could not be read.
FILTERS = frozenset([field.name for field in dataclasses.fields(CleaningOptions)] + ["unsettled"])


class Loss(NamedTuple):
    """Records (or lines: `unit`) of `name`, a source or several, and how many of them were lost for which reasons."""

    name: str
    records: int
    reasons: Counter[str]
    unit: str = "records"

    @property
    def lost(self) -> int:
        """All that were lost."""
        return sum(self.reasons.values())

    def is_heavy(self, max_dropped: float) -> bool:
        """True if more than that share was lost, or everything."""
        return self.lost > 0 and (self.lost / self.records > max_dropped or self.lost == self.records)

    @property
    def admitted_by(self) -> float:
        """The least share, in hundredths, with which this is not heavy."""
        return 1.0 if self.lost == self.records else -(-100 * self.lost // self.records) / 100

    def describe(self) -> str:
        """Returns what was lost, and mostly why, in a few words."""
        reason, count = min(self.reasons.items(), key=lambda item: (-item[1], item[0]))
        why = reason if count == self.lost else f"mostly {reason}: {count:,}"
        share = self.lost / max(1, self.records)
        return f"{self.name}: {self.lost:,} of {self.records:,} {self.unit} dropped ({share:.0%}; {why})"


def heavy_losses(report: CleaningReport, max_dropped: float, blank_is_record: bool = False) -> list[Loss]:
    """Returns what lost more than the share `max_dropped`, the largest loss first; nothing if that is 1.

    With `blank_is_record` a source whose records all lack text has lost everything; otherwise these are blank lines.
    """
    if max_dropped >= 1:
        return []
    losses, small = [], []
    for source in report.sources:
        alone = source.documents.read >= FEWEST
        losses.append(_loss(source, frozenset() if alone else FILTERS))
        losses.append(_lost_lines(source))
        if not alone:
            small.append(_loss(source, frozenset()))
        elif blank_is_record and source.documents.dropped[NO_TEXT] == source.documents.read:
            losses.append(Loss(source.name, source.documents.read, Counter(source.documents.dropped)))
    together = Loss(
        f"{len(small):,} sources of fewer than {FEWEST} records",
        sum(loss.records for loss in small),
        sum((loss.reasons for loss in small), Counter()),
    )
    if together.records >= FEWEST:
        losses.append(together)
    heavy = {loss.name: loss for loss in reversed(losses) if loss.is_heavy(max_dropped)}
    return sorted(heavy.values(), key=lambda loss: (-loss.lost, loss.name))


def _loss(source: SourceReport, but: frozenset[str]) -> Loss:
    """Returns what a source lost for other reasons than `but`."""
    dropped = source.documents.dropped
    no_records = _choose(dropped, PASSED_OVER | {NO_TEXT})
    reasons = dropped - no_records - _choose(dropped, DUPLICATES | but)
    return Loss(source.name, source.documents.read - sum(no_records.values()), reasons)


def _lost_lines(source: SourceReport) -> Loss:
    """Returns the lines that could not be read, which documents of several lines lose without being dropped."""
    lines = source.lines
    return Loss(source.name, lines.read - lines.dropped[NO_TEXT], _choose(lines.dropped, {"bad_utf8"}), "lines")


def _choose(counts: Mapping[str, int], names: frozenset[str] | set[str]) -> Counter[str]:
    return Counter({name: count for name, count in counts.items() if name in names})


def describe_losses(losses: list[Loss], page: str) -> str:
    """Returns the error for heavy losses: the largest ones, where to read more, and how to go on."""
    worst = "; ".join(loss.describe() for loss in losses[:3])
    more = f"; and {len(losses) - 3:,} more" if len(losses) > 3 else ""
    return (
        f"{worst}{more}; {page} shows what and why; if that is meant, the same command with --max-dropped "
        f"{max(loss.admitted_by for loss in losses):g} goes on from the finished parts"
    )
