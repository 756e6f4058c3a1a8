"""The filters that edit lines: normalisation, deletion of characters, runs, masks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from typing import Callable

import numpy as np
from numpy.typing import NDArray

from kogpt2_gluon.corpus.cleaning.characters import (
    CODE_POINTS,
    EMOJI,
    HANJA,
    HANJA_RANGES,
    NAMES,
    NEWLINE,
    SELECTED,
    SPACE,
    SUSPICIOUS,
    class_table,
)
from kogpt2_gluon.corpus.cleaning.lines import Lines, Rows
from kogpt2_gluon.corpus.cleaning.masking import MASKS
from kogpt2_gluon.corpus.cleaning.normalize import normalize_line
from kogpt2_gluon.corpus.cleaning.options import Characters, CleaningOptions
from kogpt2_gluon.corpus.cleaning.repetition import cut_runs

# Returns the lines after the step, and the rows that changed; no line is added or dropped.
Step = Callable[[Lines], "tuple[Lines, Rows]"]
PERSONAL = ("email", "resident_number", "card", "phone", "account")
NUMBERS = ("resident_number", "card", "phone", "account")
SAMPLE_CHARS = 200  # quoted from a line in a report
FEWEST_DIGITS = 7  # in a line, for the masks of numbers to look at it: a resident number with six of its digits starred

_HANJA_ASIDE = re.compile(f"[(\\[（〔［] ?[{HANJA_RANGES}][{HANJA_RANGES} ,·、]*[)\\]）〕］]")
_HANJA = re.compile(f"[{HANJA_RANGES}]+")
_A_DIGIT = re.compile(r"\d")
_NUMBER = re.compile(r"\d(?:[^\w\n]{0,3}\d){6,}")  # as long as a telephone number, whatever separates its digits
_ACCOUNT_OF_EMAIL = re.compile(r"[A-Za-z0-9._%+-]{1,64}(?=@|&#64;|&#[xX]40;|&commat;)")
_WIDE_DIGIT = re.compile("[\uff10-\uff19]")
_TO_ASCII = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}  # full-width forms
_NO_ROWS = np.zeros(0, np.int64)


class Editor:
    """The steps that the options switch on, in order, and the table of classes that they share."""

    def __init__(self, options: CleaningOptions) -> None:
        form = options.normalize.form
        self.table = class_table(form)
        if options.characters.enabled:
            self.table = _with_selection(self.table, options.characters)
        self.normalize: Step = partial(_normalize, form=form)
        steps: dict[str, Step] = {
            "emoji": partial(_delete, bits=EMOJI),
            "hanja": _delete_hanja,
            "characters": partial(_delete, bits=SELECTED),
            "repetition": partial(cut_runs, keep=options.repetition.keep, group=options.repetition.group),
        }
        for name in MASKS:
            steps[name] = partial(_mask, name=name, placeholder=getattr(options, name).replacement)
        self.steps = {name: step for name, step in steps.items() if getattr(options, name).enabled}

        written = [getattr(options, name).replacement for name in MASKS if name in self.steps]
        self.placeholders = tuple(sorted(filter(None, set(written))))
        self._personal = {name: getattr(options, name).replacement for name in PERSONAL if name in self.steps}

    def hide_personal(self, text: str, reason: str) -> str:
        """Returns a text that a report quotes for the filter `reason`, without the personal data that the masks hide.

        The text may be cut, so that an account number has lost the name of its bank, or it may not be normalised yet:
        therefore whatever looks like such a number loses its digits.
        """
        if reason in self._personal:
            text = _ACCOUNT_OF_EMAIL.sub("x", _A_DIGIT.sub("0", text))
        for name, placeholder in self._personal.items():
            if name != reason:
                text = MASKS[name](text, placeholder)
        if not self._personal.keys().isdisjoint(NUMBERS):
            text = _NUMBER.sub(lambda found: _A_DIGIT.sub("0", found[0]), text)
        if "email" in self._personal:
            text = _ACCOUNT_OF_EMAIL.sub("x", text)
        return text[:SAMPLE_CHARS]


def _with_selection(table: NDArray[np.uint16], section: Characters) -> NDArray[np.uint16]:
    """Returns the table with SELECTED on every character that must be deleted."""
    bits = SPACE | NEWLINE
    for name in section.keep:
        bits |= NAMES[name]
    keep = (table & bits) != 0
    keep[:128] = True
    keep[[ord(char) for char in section.also]] = True
    marked = table.copy()
    marked[~keep] |= SELECTED
    assert len(marked) == CODE_POINTS
    return marked


def _edit_rows(lines: Lines, rows: Rows, edit: Callable[[str], str]) -> tuple[Lines, Rows]:
    """Edits some lines with a function of text."""
    changed: list[int] = []
    texts: list[str] = []
    for row in rows.tolist():
        before = lines.line(row)
        after = edit(before)
        if after != before:
            changed.append(row)
            texts.append(after)
    if not changed:
        return lines, _NO_ROWS
    return lines.replaced(changed, texts), np.array(changed, np.int64)


def _normalize(lines: Lines, form: str) -> tuple[Lines, Rows]:
    suspects = np.flatnonzero(lines.bits & SUSPICIOUS)
    new, changed = _edit_rows(lines, suspects, partial(normalize_line, form=form))
    tidy = new.tidied()
    if tidy is not new:
        changed = np.union1d(changed, np.flatnonzero(tidy.lengths != new.lengths))
    return tidy, changed


def _delete(lines: Lines, bits: int) -> tuple[Lines, Rows]:
    if not (lines.bits & bits).any():
        return lines, _NO_ROWS
    delete = (lines.classes & bits) != 0
    return lines.spaced(delete), np.flatnonzero(lines.bits & bits)


def _delete_hanja(lines: Lines) -> tuple[Lines, Rows]:
    new, rows = _edit_rows(
        lines, np.flatnonzero(lines.bits & HANJA), lambda text: _HANJA.sub("", _HANJA_ASIDE.sub("", text))
    )
    return (new.tidied() if len(rows) else new), rows


def _mask(lines: Lines, name: str, placeholder: str) -> tuple[Lines, Rows]:
    mask = MASKS[name]

    def edit(text: str) -> str:
        if name not in NUMBERS or _WIDE_DIGIT.search(text) is None:
            return mask(text, placeholder)
        plain = text.translate(_TO_ASCII)
        masked = mask(plain, placeholder)
        return masked if masked != plain else text

    new, rows = _edit_rows(lines, _rows_to_mask(lines, name), edit)
    return (new.tidied() if len(rows) and not placeholder else new), rows


def _rows_to_mask(lines: Lines, name: str) -> Rows:
    """Returns the few lines that can contain such data."""
    codes = lines.codes
    if name == "url":
        small: NDArray[np.uint32] = codes | np.uint32(
            32
        )  # letters become small; "." still differs from all other characters in question
        found = [_positions(codes, "://"), _positions(small, "www.")]
        return lines.rows_of(np.concatenate(found))
    if name == "email":
        return lines.rows_of(np.flatnonzero(codes == ord("@")))
    return np.flatnonzero(lines.digits >= FEWEST_DIGITS)


def _positions(codes: NDArray[np.uint32], word: Sequence[str]) -> NDArray[np.int64]:
    """Returns where a word begins."""
    found = np.flatnonzero(codes[: max(0, len(codes) - len(word) + 1)] == ord(word[0]))
    for place in range(1, len(word)):
        found = found[codes[found + place] == ord(word[place])]
    return found
