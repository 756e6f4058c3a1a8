"""The report of a cleaning: documents and lines read, kept and dropped, by source and in total, and samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Union

import xxhash

from kogpt2_gluon.corpus.cleaning.intake import Intake
from kogpt2_gluon.corpus.left_out import add_counts
from kogpt2_gluon.corpus.store import SPLITS
from kogpt2_gluon.wording import gigabytes

BAD_UTF8_FILE = "bad_utf8.tsv"
SAMPLES_FILE = "dropped.jsonl"
PAGE_FILE = "cleaning.html"
PLACES_SHOWN = 5  # places of bad UTF-8 that a report quotes
SAMPLES_PER_REASON = 20
SAMPLES_LEFT_OUT = 3  # for each reason of what readers leave out inside documents: these are many
MOST_LEFT_OUT = 1000  # reasons with samples
LEFT_OUT_SHOWN = 8  # the most frequent ones, in the summary
SAMPLE_LENGTH = 200  # characters

Row = dict[str, Union[str, int, float]]


@dataclass
class Count:
    """How many were read, kept in each split, and dropped for each reason; `read` is the sum of the others."""

    read: int = 0
    kept: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)

    def drop(self, reason: str, count: int = 1) -> None:
        """Counts some that were read and are not kept."""
        if count:
            self.read += count
            self.dropped[reason] += count

    def keep(self, split: str, count: int = 1) -> None:
        """Counts some that were read and are kept."""
        if count:
            self.read += count
            self.kept[split] += count

    def add(self, other: Count) -> None:
        """Adds the counts of another."""
        self.read += other.read
        self.kept.update(other.kept)
        self.dropped.update(other.dropped)

    def to_dict(self) -> dict[str, object]:
        """Returns plain data for `corpus.json`."""
        kept = {split: self.kept[split] for split in SPLITS}
        return {"read": self.read, "kept": kept, "dropped": dict(sorted(self.dropped.items()))}


@dataclass
class SourceReport:
    """The counts of one source.

    `bytes_read` is as stored (compressed, if it is); `changed` and `left_out` as in CleaningReport.
    """

    name: str
    bytes_read: int
    documents: Count = field(default_factory=Count)
    lines: Count = field(default_factory=Count)
    changed: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)

    def counts(self) -> dict[str, object]:
        """Returns plain data for `corpus.json`."""
        return {
            "documents": self.documents.to_dict(),
            "lines": self.lines.to_dict(),
            "changed": dict(sorted(self.changed.items())),
            "left_out": dict(by_frequency(self.left_out)),
        }


@dataclass
class CleaningReport:
    """The counts of a cleaning; every total is the sum over `sources`.

    Reasons are the names of the filters (``empty``: nothing was left; of lines also ``repeated``: equal to the one
    before it in its document), those of `records.Rejection` (``bad_utf8``, ``bad_json``, ...), ``duplicate``,
    ``near_duplicate`` and ``duplicate_lines``. A record that could not be read counts as one line. `changed` counts
    documents that a filter altered; `left_out` counts the pieces that readers left out inside documents (templates by
    their names, table rows, ...; the rarest together as ``other names``). `bytes_read` is as stored (compressed, if it
    is); `bytes_kept` is UTF-8 without line ends. `samples` holds up to 20 rows a reason, as `dropped.jsonl` does.
    `split` and `test_share` are the arguments of `clean`; `intake` says what became of its sources.
    """

    documents: Count = field(default_factory=Count)
    lines: Count = field(default_factory=Count)
    bytes_read: int = 0
    bytes_kept: Counter[str] = field(default_factory=Counter)
    bad_utf8_places: list[tuple[str, int]] = field(default_factory=list)  # the first few (source, byte offset)
    bad_utf8: int = 0  # all of them
    changed: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    sources: list[SourceReport] = field(default_factory=list)
    samples: list[Row] = field(default_factory=list)
    split: str = "hash"
    test_share: float = 0.01
    intake: Intake = field(default_factory=Intake)

    def add_up(self) -> None:
        """Adds up the totals over the sources."""
        for source in self.sources:
            self.documents.add(source.documents)
            self.lines.add(source.lines)
            self.changed.update(source.changed)
            add_counts(self.left_out, source.left_out)
            self.bytes_read += source.bytes_read

    def summary(self) -> str:
        """Returns a table of a few lines for people."""
        rows = [("", "documents", "lines"), ("read", f"{self.documents.read:,}", f"{self.lines.read:,}")]
        for split in SPLITS:
            rows.append((f"kept: {split}", f"{self.documents.kept[split]:,}", f"{self.lines.kept[split]:,}"))
        for reason in sorted({*self.documents.dropped, *self.lines.dropped}):
            dropped = (self.documents.dropped[reason], self.lines.dropped[reason])
            rows.append((f"dropped: {reason}", f"{dropped[0]:,}", f"{dropped[1]:,}"))
        rows += [(f"changed: {name}", f"{count:,}", "") for name, count in sorted(self.changed.items())]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        lines = [f"{name:<{widths[0]}}  {docs:>{widths[1]}}  {count:>{widths[2]}}" for name, docs, count in rows]
        lines = [line.rstrip() for line in lines]
        kept = sum(self.bytes_kept.values())
        lines.append(f"{gigabytes(self.bytes_read)} read (as stored), {gigabytes(kept)} kept")
        if self.left_out:
            most = [f"{count:,} {reason}" for reason, count in by_frequency(self.left_out)[:LEFT_OUT_SHOWN]]
            more = f", and {len(self.left_out) - len(most):,} more names" if len(self.left_out) > len(most) else ""
            lines.append(f"left out inside documents: {', '.join(most)}{more}; {PAGE_FILE} shows them")
        for split in SPLITS:
            if not self.documents.kept[split] and not self._is_empty_on_purpose(split):
                lines.append(self._missing(split))
        if self.bad_utf8:
            # A name that is not UTF-8 itself cannot be printed everywhere.
            places = [(name.encode("utf-8", "replace").decode(), offset) for name, offset in self.bad_utf8_places]
            first = ", ".join(f"{name} byte {offset}" for name, offset in places)
            more = ", ..." if self.bad_utf8 > len(self.bad_utf8_places) else ""
            lines.append(f"not UTF-8 at {self.bad_utf8:,} places ({BAD_UTF8_FILE} lists them): {first}{more}")
            lines.append(f"  by source: {self._bad_utf8_by_source()}")
        lines += [line.encode("utf-8", "replace").decode() for line in self.intake.lines()]
        return "\n".join(lines)

    def _bad_utf8_by_source(self) -> str:
        counts = Counter({source.name: source.lines.dropped["bad_utf8"] for source in self.sources})
        most = [f"{name} {count:,}" for name, count in counts.most_common(PLACES_SHOWN) if count]
        more = sum(bool(count) for count in counts.values()) - len(most)
        return (", ".join(most) + (f", and {more:,} more" if more else "")).encode("utf-8", "replace").decode()

    def _is_empty_on_purpose(self, split: str) -> bool:
        return split == "test" and self.split == "hash" and not self.test_share

    def _missing(self, split: str) -> str:
        use = {"train": "nothing to train on", "test": "nothing to evaluate on"}[split]
        way_out = {"train": "lower --test-share", "test": "raise --test-share"}[split]
        if self.split == "folder":
            way_out = f"name sources below a folder {split}/ too, or say --split hash"
        return f"no document fell to the {split} split: {use}; {way_out}"


@dataclass
class Tally:
    """Counts from reading and filtering some documents of one source: everything that does not reach the next stage."""

    documents: Counter[str] = field(default_factory=Counter)  # dropped, by reason
    lines: Counter[str] = field(default_factory=Counter)  # dropped, by reason
    changed: Counter[str] = field(default_factory=Counter)  # documents, by filter
    left_out: Counter[str] = field(default_factory=Counter)  # pieces inside documents, by reason

    def add(self, other: Tally) -> None:
        """Adds the counts of another."""
        self.documents.update(other.documents)
        self.lines.update(other.lines)
        self.changed.update(other.changed)
        add_counts(self.left_out, other.left_out)

    def to_dict(self) -> dict[str, dict[str, int]]:
        """Returns plain data, which `from_dict` reads."""
        return {name: dict(counts) for name, counts in vars(self).items()}

    @classmethod
    def from_dict(cls, about: Mapping[str, Mapping[str, int]]) -> Tally:
        """Returns the tally that `to_dict` was called on."""
        return cls(*(Counter(about[name]) for name in ("documents", "lines", "changed", "left_out")))


class Samples:
    """Up to 20 rows for each reason: those with the smallest hashes, so that the choice depends on the rows alone.

    Rows of what was left out inside documents are up to 3 for each of the first 1,000 reasons.
    """

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self._chosen: dict[str, dict[int, Row]] = {}
        self._limits: dict[str, int] = {}  # of reasons with another one
        for row in rows:
            self.add(row)

    def add(self, row: Row) -> None:
        """Offers a row, a sample of its ``reason``."""
        reason = str(row["reason"])
        if row.get("left_out") and reason not in self._limits:
            if len(self._limits) >= MOST_LEFT_OUT:
                return
            self._limits[reason] = SAMPLES_LEFT_OUT
        chosen = self._chosen.setdefault(reason, {})
        chosen[_hash(row)] = row
        limit = self._limits.get(reason, SAMPLES_PER_REASON)
        if len(chosen) > 4 * limit:
            for digest in sorted(chosen)[limit:]:
                del chosen[digest]

    def rows(self) -> list[Row]:
        """Returns the chosen rows, by reason and hash."""
        return [
            chosen[digest]
            for reason, chosen in sorted(self._chosen.items())
            for digest in sorted(chosen)[: self._limits.get(reason, SAMPLES_PER_REASON)]
        ]


def by_frequency(counts: Counter[str]) -> list[tuple[str, int]]:
    """Returns names and their counts, the most frequent first, equal ones by name."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _hash(row: Row) -> int:
    text = "\0".join(f"{key}={value}" for key, value in sorted(row.items()))
    return xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogatepass"))


def sample_row(reason: str, source: str, **fields: Any) -> Row:
    """Returns a row of `dropped.jsonl`; long texts are cut."""
    row: Row = {"reason": reason, "source": source}
    for name, value in fields.items():
        row[name] = value if not isinstance(value, str) or len(value) <= SAMPLE_LENGTH else value[:SAMPLE_LENGTH] + "…"
    return row
