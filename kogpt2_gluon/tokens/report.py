"""Measures how well a tokenizer suits a text: tokens per word and character, unknowns, and what its ids decode to.

Words, characters and bytes are those of the text before normalisation, so that tokenizers with different profiles are
measured against the same numbers. Words are separated by white space; tokens are those of the text, without ``<s>`` and
``</s>``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from kogpt2_gluon.corpus.store import SPLITS, Corpus
from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.tokens.profiles import JAMO
from kogpt2_gluon.tokens.tokenizer import Tokenizer

BATCH_BYTES = 1 << 20  # text encoded at a time
SAMPLE_MB = 20  # the default sample of each corpus
SAMPLE_SEED = 0x7265706F  # seed of the hash that draws the documents
# Why the text of ids is not the text that was encoded.
REASONS = {
    "jamo": "single letters such as ㅋ become other characters (--profile nmt_nfkc_jamo keeps them)",
    "folded": "other characters are folded by NFKC (--profile lossless keeps them)",
    "line ends": "a line end becomes a space (--keep-newlines keeps it)",
    "spaces": "spaces are added, removed or replaced",
    "unknown": "it has characters without a piece (a higher --character-coverage, or --profile lossless)",
    "other": "pieces are joined in another way than they were cut",
}
_SPACES = re.compile(r"\s+")


@dataclass
class TextCounts:
    """The counts of one tokenizer on one split of one corpus, over the documents of the sample."""

    model: str
    corpus: str
    split: str
    documents: int = 0
    bytes: int = 0
    characters: int = 0
    words: int = 0
    tokens: int = 0
    unknown: int = 0  # tokens that are <unk>; one stands for a run of unknown characters
    byte_tokens: int = 0  # tokens that are single bytes
    came_back: int = 0  # documents whose ids decode to exactly the text
    came_back_normalized: int = 0  # documents whose ids decode to the text as the tokenizer normalises it
    reasons: Counter[str] = field(default_factory=Counter)  # of documents that did not come back, by REASONS
    used: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool), repr=False)  # (vocab_size,) ids seen

    def rates(self) -> dict[str, Any]:
        """Returns the counts and the rates made from them, ready for JSON. Shares are from 0 to 1."""
        plain = {key: value for key, value in asdict(self).items() if key != "used"}
        tokens, documents = max(1, self.tokens), max(1, self.documents)
        return {
            **plain,
            "reasons": dict(self.reasons),
            "tokens_per_word": self.tokens / max(1, self.words),
            "tokens_per_character": self.tokens / max(1, self.characters),
            "tokens_per_document": self.tokens / documents,
            "bytes_per_token": self.bytes / tokens,
            "unknown_rate": self.unknown / tokens,
            "byte_rate": self.byte_tokens / tokens,
            "round_trip_rate": self.came_back / documents,
            "round_trip_normalized_rate": self.came_back_normalized / documents,
            "vocabulary_used": float(self.used.mean()) if self.used.size else 0.0,
        }


def report_tokenizers(
    models: Sequence[Path], corpora: Sequence[Path], split: str = "auto", sample_mb: float = SAMPLE_MB
) -> dict[str, Any]:
    """Measures each tokenizer on each corpus.

    Parameters
    ----------
    models, corpora : sequences of Path
        Tokenizers of either kind, and folders of `kogpt2 clean`, for example one for each source or domain.
    split : str
        ``train``, ``test``, or ``auto``: the test split if there is one.
    sample_mb : float
        About how many megabytes of each corpus to use. From a larger split, documents are drawn by their hash, the
        same ones on any machine; the whole split is read for that.

    Returns
    -------
    dict
        ``tokenizers``: path, SHA-256, size of the vocabulary and number of unused tokens of each. ``rows``:
        :meth:`TextCounts.rates`, corpus by corpus, and for each corpus model by model.
    """
    if split not in ("auto", *SPLITS):
        raise RecipeError(f"--split {split}: is none of auto, {', '.join(SPLITS)}")
    if not 0 < sample_mb < 1e9:
        raise RecipeError(f"--sample-mb {sample_mb:g}: must be above 0 (megabytes of text)")
    tokenizers = [Tokenizer.load(path) for path in models]
    rows = []
    for folder in corpora:
        rows += [counts.rates() for counts in _measure(Corpus.open(folder), split, sample_mb, tokenizers)]
    about = [
        {
            "model": str(tokenizer.path),
            "sha256": tokenizer.sha256,
            "vocab_size": tokenizer.vocab_size,
            "unused_left": len(tokenizer.unused),
            "keeps_newlines": tokenizer.keeps_newlines,
        }
        for tokenizer in tokenizers
    ]
    return {"tokenizers": about, "rows": rows}


def _measure(corpus: Corpus, split: str, sample_mb: float, tokenizers: Sequence[Tokenizer]) -> list[TextCounts]:
    if split == "auto":
        split = "test" if corpus.count("test") else "train"
    if not corpus.count(split):
        raise DataError(f"{corpus.folder}: its {split} split holds no documents")
    results = [
        TextCounts(str(each.path), str(corpus.folder), split, used=np.zeros(each.vocab_size, bool))
        for each in tokenizers
    ]
    for batch in _batches(_sample(corpus, split, sample_mb)):
        for counts, tokenizer in zip(results, tokenizers):
            _add(counts, tokenizer, batch)
    if not results[0].documents:
        raise RecipeError(f"--sample-mb {sample_mb:g}: draws no document of {corpus.folder}; give a larger number")
    return results


def _sample(corpus: Corpus, split: str, sample_mb: float) -> Iterator[str]:
    share = sample_mb * 1e6 / max(1, corpus.size(split))
    below = int(share * (1 << 64))
    for document in corpus.documents(split):
        if share >= 1 or xxhash.xxh3_64_intdigest(document.encode(), SAMPLE_SEED) < below:
            yield document


def _batches(documents: Iterator[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for document in documents:
        batch.append(document)
        size += len(document) * 3  # a Hangul syllable takes three bytes
        if size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _add(counts: TextCounts, tokenizer: Tokenizer, documents: list[str]) -> None:
    texts = [document.encode() for document in documents]
    ids, lengths = tokenizer.encode_flat(texts)
    counts.documents += len(documents)
    counts.bytes += sum(map(len, texts))
    counts.characters += sum(map(len, documents))
    counts.words += sum(len(document.split()) for document in documents)
    counts.tokens += len(ids)
    unknown = tokenizer.is_unknown(ids)
    counts.unknown += int(np.count_nonzero(unknown))
    counts.byte_tokens += int(tokenizer.byte_ids[ids].sum())
    counts.used[ids] = True
    cuts = np.cumsum(lengths)[:-1]
    for document, row, lost in zip(documents, np.split(ids, cuts), np.split(unknown, cuts)):
        decoded = tokenizer.decode(row.tolist())
        normalized = tokenizer.normalize(document)
        counts.came_back += decoded == document
        counts.came_back_normalized += decoded == normalized
        if decoded != document:
            counts.reasons.update(_reasons(document, normalized, bool(lost.any())))


def _reasons(document: str, normalized: str, unknown: bool) -> list[str]:
    """Returns the REASONS for which a document did not come back; `unknown` is True if its ids have an <unk>."""
    lost = set(document).difference(normalized)
    plain = document if "\n" in normalized else document.replace("\n", " ")
    found = {
        "jamo": not JAMO.isdisjoint(lost),
        "folded": any(not char.isspace() for char in lost - JAMO),
        "line ends": "\n" in lost,
        "spaces": _SPACES.findall(plain) != _SPACES.findall(normalized),
        "unknown": unknown,
    }
    return [reason for reason in REASONS if found.get(reason)] or ["other"]


COLUMNS = {  # heading -> (key, format)
    "documents": ("documents", ",d"),
    "tokens/word": ("tokens_per_word", ".3f"),
    "tokens/char": ("tokens_per_character", ".3f"),
    "bytes/token": ("bytes_per_token", ".2f"),
    "tokens/doc": ("tokens_per_document", ",.1f"),
    "<unk>": ("unknown_rate", ".3%"),
    "bytes": ("byte_rate", ".3%"),
    "comes back": ("round_trip_rate", ".2%"),
    "normalised": ("round_trip_normalized_rate", ".2%"),
    "vocabulary": ("vocabulary_used", ".1%"),
}


def format_report(report: dict[str, Any]) -> str:
    """Formats the report as a table for a terminal: a row for each corpus and tokenizer, and what the columns mean."""
    rows = report["rows"]
    head = ["corpus", "split", "tokenizer", *COLUMNS]
    lines = [
        [row["corpus"], row["split"], row["model"], *(format(row[key], form) for key, form in COLUMNS.values())]
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(head, *lines)]
    table = [
        "  ".join(cell.ljust(width) if place < 3 else cell.rjust(width) for place, (cell, width) in columns)
        for columns in (enumerate(zip(line, widths)) for line in [head, *lines])
    ]
    about = [
        f"{each['model']}: {each['vocab_size']:,} tokens, {each['unused_left']} unused left, "
        f"line ends {'kept' if each['keeps_newlines'] else 'not a piece'}, sha256 {each['sha256'][:16]}..."
        for each in report["tokenizers"]
    ]
    meaning = (
        "<unk>, bytes: share of tokens that are unknown, or single bytes. comes back: share of documents whose ids "
        "decode to exactly the text;\nnormalised: to the text as the tokenizer normalises it. "
        "vocabulary: share of all ids that were seen."
    )
    return "\n".join([*about, "", *table, "", meaning, *_explain(rows)])


def _explain(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Returns the reasons why documents do not come back, with how many of each row they concern."""
    lines = []
    for reason, meaning in REASONS.items():
        found = [row for row in rows if row["reasons"].get(reason)]
        if found:
            counts = [f"{row['reasons'][reason]:,} of {row['corpus']} with {row['model']}" for row in found]
            lines.append(f"  {reason}: {meaning}: {', '.join(counts)}")
    return ["", "why documents do not come back:", *lines] if lines else []
