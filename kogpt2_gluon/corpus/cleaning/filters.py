"""The filters, run over a batch of documents at once.

Their order: html, normalize | emoji, hanja, characters, repetition, url, email, resident_number, card, phone, account
| short_line, no_hangul, boilerplate, repeated | length, hangul_share, symbol_ratio, repeated_lines, repeated_ngrams.
The first and second group edit lines, the third drops lines, the last drops documents. Lines that were edited go
through normalize and the second group again until nothing changes, so that a clean text is a fixed point of all
filters but html (which reads one level of escapes each time). A line or document is counted under the filter that
dropped it, or dropped the last line of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from kogpt2_gluon.corpus.cleaning.document_filters import DocumentFilter
from kogpt2_gluon.corpus.cleaning.editing import SAMPLE_CHARS, Editor
from kogpt2_gluon.corpus.cleaning.line_filters import LineFilter
from kogpt2_gluon.corpus.cleaning.lines import Flags, Lines, Rows, merged
from kogpt2_gluon.corpus.cleaning.markup import strip_html
from kogpt2_gluon.corpus.cleaning.options import CleaningOptions

ROUNDS = (
    8  # of editing; ordinary text needs two, and a line that is still changing after the last is dropped as `unsettled`
)
SAMPLES = 4  # for each reason in a batch


class Sample(NamedTuple):
    """A line that a filter changed, or a line or document that it dropped (then `after` is empty), cut short.

    Data that the masks hide is masked here as well; a mask's own samples show its form, with 0 for every digit.
    """

    reason: str
    before: str
    after: str


@dataclass
class CleanedBatch:
    """The result of a batch; for every document, lines in = lines kept + lines dropped."""

    texts: list[str | None]  # None: dropped; lines are separated by "\n", none is empty
    reasons: list[str]  # "" if kept, else the filter that dropped it
    lines: Counter[str] = field(default_factory=Counter)  # dropped lines by reason
    line_counts: list[int] = field(default_factory=list)  # lines of each kept document
    changed: Counter[str] = field(default_factory=Counter)  # documents that a filter edited
    samples: list[Sample] = field(default_factory=list)  # the first few of each reason


class TextCleaner:
    """Runs the filters that the options switch on."""

    def __init__(self, options: CleaningOptions) -> None:
        self._options = options
        self._editor = Editor(options)

    def quote(self, text: str) -> str:
        """Returns text that no filter saw as a report may quote it: without the personal data that the masks hide."""
        return self._editor.hide_personal(text, "")

    def clean(self, texts: Sequence[str]) -> CleanedBatch:
        """Cleans documents, each on its own; lines of one are separated by ``\\n``."""
        if not texts:
            return CleanedBatch([], [])
        return _Run(self._options, self._editor, texts).result()


class _Run:
    """One batch on its way through the filters."""

    def __init__(self, options: CleaningOptions, editor: Editor, texts: Sequence[str]) -> None:
        self._options, self._editor = options, editor
        counts = np.fromiter((text.count("\n") + 1 for text in texts), np.int64, len(texts))
        self._left = counts.copy()  # lines left in each document
        self._first = np.cumsum(counts) - counts  # the first line of each document
        self._document = np.repeat(np.arange(len(texts)), counts)  # the document of each line, by origin
        self._reasons = [""] * len(texts)
        self._dropped: Counter[str] = Counter()
        self._changed: dict[str, Flags] = {}
        self._samples: dict[str, list[Sample]] = {}
        self._from_html = np.zeros(len(self._document), bool)  # lines that html has changed
        if options.html.enabled:
            texts = self._strip_html(texts)
        self.lines = Lines.of_text("\n".join(texts) + "\n", editor.table, editor.placeholders)

    def result(self) -> CleanedBatch:
        """Runs all filters that are on."""
        self._settle()
        for name, section in vars(self._options).items():
            if not len(self.lines):
                break
            if isinstance(section, LineFilter) and section.enabled:
                self._drop_lines(name, section.drop(self.lines, self._owners()))
            elif isinstance(section, DocumentFilter) and section.enabled:
                self._drop_documents(name, section)
        return self._finish()

    def _owners(self) -> Rows:
        """Returns the document of each line that is left."""
        owners: Rows = self._document[self.lines.origin]
        return owners

    # --- editing

    def _strip_html(self, texts: Sequence[str]) -> list[str]:
        stripped = list(texts)
        for number, text in enumerate(texts):
            if "<" not in text and "&" not in text:
                continue
            stripped[number] = strip_html(text)
            if stripped[number] == text:
                continue
            self._note_changed("html", np.array([number]))
            pairs = zip(text.split("\n"), stripped[number].split("\n"))
            for line, (before, after) in enumerate(pairs, int(self._first[number])):
                if before != after:
                    self._from_html[line] = True
                    self._note_sample("html", before, after)
        return stripped

    def _settle(self) -> None:
        """Edits the lines, those that changed again, and so on, until nothing changes any more."""
        settled: list[Lines] = []
        changed = self._edit_once()
        for _ in range(ROUNDS - 1):
            if not changed.any():
                break
            whole, part = self.lines, self.lines.only(changed)
            self.lines = part
            changed_again = self._edit_once()
            if self.lines is part:  # nothing was left to do, as with nearly all texts: no need to merge
                self.lines = whole
                break
            settled.append(whole.only(~changed))
            changed = changed_again
        else:
            self._drop_lines("unsettled", changed)
        if settled:
            self.lines = merged([*settled, self.lines])

    def _edit_once(self) -> Flags:
        """Runs each step once over all lines; returns which lines a step after normalisation changed."""
        touched = np.zeros(len(self._document), bool)
        self._normalize()
        for name, step in self._editor.steps.items():
            if not len(self.lines):
                break
            new, rows = step(self.lines)
            if len(rows):
                touched[new.origin[rows]] = True
                self._note_edit(name, new, rows)
                self._drop_lines(name, new.lengths == 0)
        left: Flags = touched[self.lines.origin]
        return left

    def _normalize(self) -> None:
        new, rows = self._editor.normalize(self.lines)
        if len(rows):
            rows = rows[new.lengths[rows] > 0]
        if len(rows):
            self._note_edit("normalize", new, rows)
        self.lines = new
        empty = new.lengths == 0
        if empty.any():
            by_html = self._from_html[new.origin]
            self._drop_lines("html", empty & by_html)
            self._drop_lines("empty", self.lines.lengths == 0)

    def _note_edit(self, name: str, new: Lines, rows: Rows) -> None:
        """Counts the documents that changed, quotes a few lines, and takes the new lines."""
        self._note_changed(name, self._document[new.origin[rows]])
        for row in rows[: SAMPLES - len(self._samples.get(name, ()))].tolist():
            self._note_sample(name, self.lines.line(row), new.line(row))
        self.lines = new

    def _note_changed(self, name: str, documents: Rows) -> None:
        flags = self._changed.setdefault(name, np.zeros(len(self._reasons), bool))
        flags[documents] = True

    def _note_sample(self, reason: str, before: str, after: str) -> None:
        samples = self._samples.setdefault(reason, [])
        if len(samples) < SAMPLES:
            begin = max(0, _first_difference(before, after) - SAMPLE_CHARS // 4) if after else 0
            end = begin + 2 * SAMPLE_CHARS  # more than is shown, so that personal data is not cut before it is masked
            hide = self._editor.hide_personal
            samples.append(Sample(reason, hide(before[begin:end], reason), hide(after[begin:end], reason)))

    # --- dropping

    def _drop_lines(self, reason: str, drop: Flags, quote: bool = True) -> None:
        """Drops the flagged lines and counts them; a document that has lost its last line is dropped with it."""
        rows = np.flatnonzero(drop)
        if not len(rows):
            return
        if quote and reason != "empty":
            for row in rows[: SAMPLES - len(self._samples.get(reason, ()))].tolist():
                self._note_sample(reason, self.lines.line(row), "")
        owners = self._document[self.lines.origin[rows]]
        self._left -= np.bincount(owners, minlength=len(self._left))
        for document in np.unique(owners[self._left[owners] == 0]).tolist():
            self._reasons[document] = reason
        self._dropped[reason] += len(rows)
        self.lines = self.lines.only(~drop)

    def _drop_documents(self, reason: str, section: DocumentFilter) -> None:
        documents, owners = np.unique(self._owners(), return_inverse=True)
        drop = section.drop(self.lines, owners, len(documents))
        if not drop.any():
            return
        rows = drop[owners]
        firsts = np.searchsorted(owners, np.flatnonzero(drop))
        for row in firsts[: SAMPLES - len(self._samples.get(reason, ()))].tolist():
            last = int(np.searchsorted(owners, owners[row], "right")) - 1
            start, end = int(self.lines.starts[row]), int(self.lines.ends[last])
            self._note_sample(reason, self.lines.text[start : min(end, start + SAMPLE_CHARS)], "")
        self._drop_lines(reason, rows, quote=False)

    # --- the end

    def _finish(self) -> CleanedBatch:
        texts: list[str | None] = [None] * len(self._reasons)
        lines, owners = self.lines, self._owners()
        kept = np.flatnonzero(self._left)
        if len(kept):
            first, last = np.searchsorted(owners, kept), np.searchsorted(owners, kept, "right") - 1
            starts, ends = lines.starts[first].tolist(), lines.ends[last].tolist()
            for document, start, end in zip(kept.tolist(), starts, ends):
                texts[document] = lines.text[start:end]
        return CleanedBatch(
            texts,
            self._reasons,
            self._dropped,
            self._left[kept].tolist(),
            Counter({name: int(flags.sum()) for name, flags in self._changed.items()}),
            [sample for reason in sorted(self._samples) for sample in self._samples[reason]],
        )


def _first_difference(one: str, other: str) -> int:
    """Returns the first place at which two texts differ, found by bisection, so that long lines cost little."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
