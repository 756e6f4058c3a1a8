"""The terms of a domain as people and programs read them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from kogpt2_gluon.tokens.domain_terms import Suggestion
from kogpt2_gluon.wording import width_of

NUMBERS = range(1, 6)  # of the columns
COLUMNS = ("term", "per million", "in base", "G2", "pieces", "tokens saved", "now")


def table(found: Suggestion) -> str:
    """Returns the table of a suggestion, with what it was counted in."""
    rows = [
        (
            term.text,
            f"{term.per_million:,.0f}",
            f"{term.base_per_million:,.0f}",
            f"{term.likelihood:,.0f}",
            str(len(term.pieces)),
            f"{term.saved:,}",
            " ".join(term.pieces),
        )
        for term in found.terms
    ]
    lines = _aligned([COLUMNS, *rows]) if rows else ["no term that would save a token"]
    saved = sum(term.saved for term in found.terms)
    lines.append(
        f"{len(found.terms)} terms save {saved:,} tokens of {found.words:,} words; base: {found.base_words:,} words"
    )
    if found.missed:
        lines.append(f"there were too many different words: counts of the domain may be too small by {found.missed:,}")
    return "\n".join(lines)


def plain(found: Suggestion) -> dict[str, Any]:
    """Returns a suggestion as plain data, for JSON."""
    terms = [{"token": token, "name": term.piece, **asdict(term)} for token, term in zip(found.tokens, found.terms)]
    return {"terms": terms, "words": found.words, "base_words": found.base_words, "missed": found.missed}


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(width_of, column)) for column in zip(*rows)]
    lines = []
    for row in rows:
        fills = [" " * (width - width_of(cell)) for cell, width in zip(row, widths)]
        cells = [
            fill + cell if number in NUMBERS else cell + fill for number, (cell, fill) in enumerate(zip(row, fills))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines
