"""Spans of a text, from labels of its characters (B-PS, I-PS, O) and from brackets (``[date : 내일]``)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.tasks.public.text_lines import shown
from kogpt2_gluon.tasks.task import Span

OUTSIDE = "O"
_BRACKETS = re.compile(r"\[\s*([^\[\]\s:]+)\s:\s([^\[\]]*)\]")


class Labelled(NamedTuple):
    """Spans, and how many of them begin with I- where B- is expected."""

    spans: tuple[Span, ...]
    without_begin: int


def spans_of_labels(where: str, pieces: Sequence[str], labels: Sequence[str], gap: str = "") -> Labelled:
    """Returns the spans of pieces of a text (characters, or words with a `gap` between) and their labels.

    A label is O, or B- or I- and a kind. An I- that continues nothing begins a span. DataError for another label.
    """
    spans: list[Span] = []
    begin = end = without_begin = 0
    kind = ""  # of the open span
    place = 0
    for piece, label in zip(pieces, labels):
        prefix, dash, name = label.partition("-")
        if label != OUTSIDE and (prefix not in ("B", "I") or not dash or not name):
            raise DataError(f"{where}: the label {shown(label)}, where O, B-KIND or I-KIND is expected")
        continues = prefix == "I" and name == kind
        if kind and not continues:
            spans.append(Span(begin, end, kind))
        if label == OUTSIDE:
            kind = ""
        elif not continues:
            without_begin += prefix == "I"
            begin, kind = place, name
        end = place + len(piece)
        place = end + len(gap)
    if kind:
        spans.append(Span(begin, end, kind))
    return Labelled(tuple(spans), without_begin)


def spans_of_brackets(where: str, annotated: str) -> tuple[str, tuple[Span, ...]]:
    """Returns the text of an annotation such as ``wake me [date : tomorrow]`` without its brackets, and the spans.

    White space inside the brackets is no part of a span. DataError for a bracket that is not closed, or is empty.
    """
    text, spans, place = "", [], 0
    for found in _BRACKETS.finditer(annotated):
        text += annotated[place : found.start()]
        words = found[2].strip()
        if not words:
            raise DataError(f"{where}: the annotation {shown(found[0])} has no text")
        spans.append(Span(len(text), len(text) + len(words), found[1]))
        text += words
        place = found.end()
    text += annotated[place:]
    if "[" in text or "]" in text:
        raise DataError(f"{where}: a bracket that is not of the form [kind : text] in {shown(annotated, 120)}")
    return text, tuple(spans)


def moved_to(text: str, annotated: str, spans: Sequence[Span]) -> tuple[Span, ...] | None:
    """Returns spans of `annotated` as spans of `text`, which differs from it in white space only; else None."""
    if text == annotated:
        return tuple(spans)
    ours = [place for place, character in enumerate(text) if not character.isspace()]
    theirs = {place: count for count, place in enumerate(p for p, c in enumerate(annotated) if not c.isspace())}
    if [text[place] for place in ours] != [annotated[place] for place in theirs]:
        return None
    return tuple(Span(ours[theirs[span.begin]], ours[theirs[span.end - 1]] + 1, span.kind) for span in spans)
