"""The work of a process on one block: documents are parsed, filtered, hashed and signed, and everything is counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np
import xxhash

from kogpt2_gluon.corpus.cleaning.filters import TextCleaner
from kogpt2_gluon.corpus.cleaning.near_duplicates import band_keys
from kogpt2_gluon.corpus.cleaning.options import CleaningOptions
from kogpt2_gluon.corpus.cleaning.parts import Cleaned
from kogpt2_gluon.corpus.cleaning.report import Samples, Tally, sample_row
from kogpt2_gluon.corpus.formats.kind import Kind
from kogpt2_gluon.corpus.left_out import add_counts
from kogpt2_gluon.corpus.records import Block, Item, Rejection


class BlockCleaner:
    """Cleans blocks of one kind of documents, each by itself."""

    def __init__(self, options: CleaningOptions, kind: Kind) -> None:
        self._options, self._kind, self._layout = options, kind, kind.layout
        self._cleaner = TextCleaner(options)

    def clean(self, block: Block) -> Cleaned:
        """Returns the block's clean documents, and what happened to the others."""
        tally, samples = Tally(), Samples()
        texts: list[str] = []
        bad_utf8: list[int] = []
        for item in self._parse(block, texts):
            if item.bad_utf8:
                bad_utf8 += item.bad_utf8
            if isinstance(item, Rejection):
                tally.documents[item.reason] += 1
                tally.lines[item.reason] += max(1, len(item.bad_utf8))
                samples.add(sample_row(item.reason, item.source, line=item.line, offset=item.offset))
            else:
                if item.bad_utf8:
                    tally.lines["bad_utf8"] += len(item.bad_utf8)
                for reason, count in item.lost:
                    tally.lines[reason] += count
                if item.left_out is not None:
                    add_counts(tally.left_out, item.left_out.counts)
                    for reason, example in item.left_out.examples.items():
                        quoted = self._cleaner.quote(example)
                        samples.add(sample_row(reason, item.source, before=quoted, left_out=True))
                texts.append(item.text)
        kept, lines = self._filter(texts, block.source, tally, samples)
        encoded = [text.encode() for text in kept]
        sizes = np.fromiter(map(len, encoded), np.int64, len(encoded)) + len(self._layout.border)
        hashes = np.fromiter(map(xxhash.xxh3_64_intdigest, encoded), np.uint64, len(encoded))
        options = self._options
        return Cleaned(
            self._layout.join(encoded),
            sizes,
            hashes,
            np.array(lines, np.int64),
            _line_hashes(kept, options.duplicate_lines.min_chars) if options.duplicate_lines.enabled else None,
            band_keys(kept, options.near_duplicates) if options.near_duplicates.enabled else None,
            tally,
            samples.rows(),
            bad_utf8,
        )

    def _parse(self, block: Block, texts: list[str]) -> Iterable[Item]:
        """Returns the items of a block; texts that come without places are added to `texts` instead."""
        at_once = self._kind.texts_at_once(block)
        if at_once is None:
            return self._kind.parse_block(block)
        texts += at_once
        return ()

    def _filter(self, texts: list[str], source: str, tally: Tally, samples: Samples) -> tuple[list[str], list[int]]:
        """Returns (the clean texts that are kept, how many lines each has)."""
        batch = self._cleaner.clean(texts)
        kept = [text for text in batch.texts if text is not None]
        dropped = Counter(batch.reasons)
        del dropped[""]
        read = "\n".join(texts).count("\n") + 1 if texts else 0
        assert len(kept) + sum(dropped.values()) == len(texts), "documents do not add up"
        assert not self._layout.is_one_line or batch.line_counts == [1] * len(kept), "a line became several"
        assert sum(batch.line_counts) + sum(batch.lines.values()) == read, "lines do not add up"
        tally.documents.update(dropped)
        tally.lines.update(batch.lines)
        tally.changed.update(batch.changed)
        for sample in batch.samples:
            samples.add(sample_row(sample.reason, source, before=sample.before, after=sample.after))
        return kept, batch.line_counts


def _line_hashes(texts: list[str], shortest: int) -> np.typing.NDArray[np.uint64]:
    """Returns a hash for each line of all texts, uint64; 0 for a line of fewer than `shortest` characters."""
    digest = xxhash.xxh3_64_intdigest
    hashes = [digest(line.encode()) if len(line) >= shortest else 0 for text in texts for line in text.split("\n")]
    return np.array(hashes, np.uint64)
