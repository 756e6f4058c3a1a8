"""Counts what a reader leaves out inside documents by name, in bounded memory: templates, table rows, captions."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

OTHER_NAMES = "other names"  # the reason under which the rarest are counted together
MOST_NAMES = 500  # reasons counted by their own name: of a document, a block, a part, a source, a corpus
EXAMPLE_LENGTH = 400  # characters


@dataclass
class LeftOut:
    """Counts for one document how often a reader left something out for each reason, with the first piece of text."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def add(self, reason: str, text: str, count: int = 1) -> None:
        """Counts pieces that are left out for a reason, such as ``template 인용문``; `text` is one of them."""
        if reason not in self.counts and len(self.counts) >= MOST_NAMES:
            reason = OTHER_NAMES
        self.counts[reason] += count
        if reason not in self.examples:
            self.examples[reason] = text[:EXAMPLE_LENGTH]


def add_counts(counts: Counter[str], more: Counter[str]) -> None:
    """Adds counts to others. When the names become too many, the rarest are put together: the sum stays exact."""
    counts.update(more)
    if len(counts) <= 2 * MOST_NAMES:
        return
    ranked = sorted(counts, key=lambda name: (name == OTHER_NAMES, -counts[name], name))
    for name in ranked[MOST_NAMES:]:
        if name != OTHER_NAMES:
            counts[OTHER_NAMES] += counts.pop(name)
