"""Where the values of a JSON array begin and end: found from strings and brackets alone, a piece of a file at a time.

A parser builds every value, forgets where it was, and gives up a whole file for one bad byte. Cutting runs at several
hundred MB/s, because NumPy looks at a whole piece at once; it knows the byte at which each value begins, so that
reading can begin again there, and it leaves a bad value to whoever parses it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy.typing as npt
    from numpy import bool_, intp, uint8

SPACE = b" \t\r\n"
_USUAL_GAPS = frozenset((b",\n", b",", b", ", b",\r\n"))
# One value that is neither object nor array, or a comma.
_PLAIN = re.compile(rb'[ \t\r\n]*(?:(?P<comma>,)|(?P<value>"[^"\\]*(?:\\.[^"\\]*)*"|[^\s,"\[\]{}:]+))', re.DOTALL)
_QUOTE, _OPEN, _CLOSE, _BACKSLASH = 1, 2, 3, 4
_TABLE = bytearray(256)
for _signs, _code in ((b'"', _QUOTE), (b"[{", _OPEN), (b"]}", _CLOSE), (b"\\", _BACKSLASH)):
    for _sign in _signs:
        _TABLE[_sign] = _code
_LONGEST_GAP = 32  # bytes between two values that are looked at all at once


class Brackets:
    """Finds the brackets outside of strings, piece by piece."""

    def __init__(self) -> None:
        self.depth = 0  # after the pieces so far
        self._in_string = False
        self._escapes = False  # the last byte is a backslash that escapes what follows

    def scan(self, piece: bytes) -> tuple[npt.NDArray[intp], npt.NDArray[bool_], npt.NDArray[intp]]:
        """Returns the brackets of the next piece: (places, which of them open, the depth after each)."""
        import numpy as np

        codes = np.frombuffer(piece.translate(_TABLE), np.uint8)
        marks = np.flatnonzero(codes.view(np.bool_))
        codes = codes[marks]
        if self._escapes or b"\\" in piece:
            kept = self._without_escaped(marks, codes, len(piece))
            marks, codes = marks[kept], codes[kept]
        quotes = codes == _QUOTE
        inside = np.cumsum(quotes) + self._in_string
        is_bracket = ~quotes & (inside % 2 == 0)
        if len(inside):
            self._in_string = bool(inside[-1] % 2)
        places = marks[is_bracket]
        opens = codes[is_bracket] == _OPEN
        depths = np.cumsum(np.where(opens, 1, -1)) + self.depth
        if len(depths):
            self.depth = int(depths[-1])
        return places, opens, depths

    def _without_escaped(self, marks: npt.NDArray[intp], codes: npt.NDArray[uint8], size: int) -> npt.NDArray[bool_]:
        """Returns which marks are neither backslashes nor escaped by one."""
        import numpy as np

        slashes = marks[codes == _BACKSLASH]
        escaped = np.zeros(size + 1, np.bool_)  # one more, for the next piece
        if self._escapes:
            escaped[0] = True
        if len(slashes):
            begins = np.flatnonzero(np.diff(slashes, prepend=-2) != 1)
            lengths = np.diff(np.append(begins, len(slashes)))
            if self._escapes and slashes[0] == 0:
                lengths[0] -= 1  # the first of them is escaped itself
            runs_end = slashes[np.append(begins[1:], len(slashes)) - 1] + 1
            escaped[runs_end[lengths % 2 == 1]] = True
        self._escapes = bool(escaped[size])
        kept: npt.NDArray[bool_] = (codes != _BACKSLASH) & ~escaped[marks]
        return kept


class Cutter:
    """Finds the values in bytes that begin between two values of an array.

    `scan` is called again when `data` has grown. `spans` are the values found so far; `tail` is where the array ended,
    `fault` where something was found that cannot be between values. With `apart` the values follow one another with
    nothing but white space between them, as JSON texts in one file, and there is no array to end.
    """

    def __init__(self, data: bytes | bytearray, closers: bytes, first: bool, apart: bool = False) -> None:
        self.data, self._closers, self._first, self._apart = data, closers, first, apart
        self.spans: list[tuple[int, int]] = []
        self.tail: int | None = None
        self.fault: int | None = None
        self._brackets = Brackets()
        self._scanned = 0
        self._begin = -1  # of the value that is open

    @property
    def end(self) -> int:
        """The byte after the last whole value; 0 if there is none."""
        return self.spans[-1][1] if self.spans else 0

    def scan(self) -> None:
        """Continues to the end of `data`, to the end of the array, or to a fault."""
        if self.tail is not None or self.fault is not None:
            return
        offset, piece = self._scanned, bytes(memoryview(self.data)[self._scanned :])
        self._scanned = len(self.data)
        places, opens, depths = self._brackets.scan(piece)
        outer = (opens & (depths == 1)) | (~opens & (depths <= 0))
        places, opens = places[outer] + offset, opens[outer]
        if not self._take_usual(places, opens):
            for place, is_open in zip(places.tolist(), opens.tolist()):
                if is_open:
                    if not self._begins_here(place):
                        return
                    self._begin = place
                elif self._begin < 0:
                    self._end_array(place)
                    return
                else:
                    self.spans.append((self._begin, place + 1))
                    self._begin = -1
        if not self.spans and self._begin < 0:
            self._take_plain(len(self.data), final=False)

    def _take_usual(self, places: npt.NDArray[intp], opens: npt.NDArray[bool_]) -> bool:
        """Takes the values between outer brackets at once, if there is just a comma and space between them."""
        import numpy as np

        if self._apart or self._begin < 0:
            # The first value, what is before it, and whether it begins the array, are looked at one by one.
            if self._apart or not len(places) or not opens[0] or not self._begins_here(int(places[0])):
                return False
            self._begin = int(places[0])
            places, opens = places[1:], opens[1:]
        begins, ends = places[opens], places[~opens] + 1
        count = len(begins)
        if len(ends) not in (count, count + 1):  # the array ends here, or is damaged
            return False
        gaps = begins - ends[:count]
        if count and (gaps.min() < 1 or gaps.max() > _LONGEST_GAP):
            return False
        data = np.frombuffer(self.data, np.uint8)
        commas = np.zeros(count, np.intp)
        for step in range(int(gaps.max()) if count else 0):
            inside = gaps > step
            signs = data[ends[:count][inside] + step]
            is_comma = signs == ord(",")
            if not (is_comma | (signs == 32) | (signs == 10) | (signs == 13) | (signs == 9)).all():
                return False
            commas[inside] += is_comma
        del data  # the bytes may grow again
        if not (commas == 1).all():
            return False
        starts = [self._begin, *begins.tolist()]
        self.spans += list(zip(starts, ends.tolist()))
        self._begin = starts[-1] if len(ends) == count else -1
        return True

    def _begins_here(self, place: int) -> bool:
        """Checks what is between the last value and one that begins here."""
        between = bytes(self.data[self.end : place])
        if self.spans and not self._apart and between in _USUAL_GAPS:
            return True
        if self._apart:
            if between.strip(SPACE):
                self.fault = place
        elif between.strip(SPACE) != (b"" if self._first and not self.spans else b","):
            self._take_plain(place, final=True)
            rest = bytes(self.data[self.end : place]).strip(SPACE)
            if self.fault is None and rest != (b"" if self._first and not self.spans else b","):
                self.fault = place
        return self.fault is None

    def _end_array(self, place: int) -> None:
        if self.data[place] not in self._closers:
            self.fault = place
            return
        self._take_plain(place, final=True)
        if self.fault is None:
            if self.data[self.end : place].strip(SPACE):
                self.fault = place
            else:
                self.tail = place

    def _take_plain(self, end: int, final: bool) -> None:
        """Takes plain values up to `end`: no objects or arrays; the last one only if `final` or a comma follows."""
        if self._apart:
            return
        position = self.end
        wants_comma = bool(self.spans) or not self._first
        found: tuple[int, int] | None = None
        spans: list[tuple[int, int]] = []
        while match := _PLAIN.match(self.data, position, end):
            if bool(match["comma"]) != wants_comma:
                if match["value"] is None or final:
                    self.fault = match.start("comma" if match["comma"] else "value")
                return
            if match["value"] is not None:
                found = match.span("value")
            elif found is not None:
                spans.append(found)
                found = None
            wants_comma, position = not wants_comma, match.end()
        if final and found is not None:
            spans.append(found)
        self.spans += spans
