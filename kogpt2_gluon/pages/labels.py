"""Places the labels of lines at their ends, so that none covers another one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kogpt2_gluon.wording import width_of

LABEL = 30  # height of a label, which has two lines: the last value, and the line's name
GAP = 8  # between the end of a line and its label
NEAR = 0.06  # of the frame's width: a line that ends so near to its right edge has its label right of the frame
VALUE_COLUMN, NAME_COLUMN = 8.4, 6.9  # width of a column of text in its two sizes, 13 bold and 11.5 pixels


@dataclass(frozen=True)
class Label:
    """A label and the end of its line, in SVG units: at first where it should be, from `place` where it can be.

    Attributes
    ----------
    x, y : float
        The left edge, and the height of the line's end.
    value, name : str
        The two lines of text.
    number : int
        Of its series.
    """

    x: float
    y: float
    value: str
    name: str
    number: int

    @property
    def width(self) -> float:
        """The width that the text takes, estimated since fonts differ."""
        return max(VALUE_COLUMN * width_of(self.value), NAME_COLUMN * width_of(self.name))


def place(labels: Sequence[Label], left: float, right: float, width: float, lowest: float) -> list[Label]:
    """Returns the labels where none covers another one, from the top to the bottom of each column.

    `left` and `right` are the frame's edges and `width` is the picture's. A label that would cover another one moves up
    or down, never away from the end of its line.
    """
    inside = [_next_to(label, left, right, width) for label in labels]
    placed: list[Label] = []
    for column in _columns(inside):
        column.sort(key=lambda label: label.y)
        for label, y in zip(column, apart([label.y for label in column], lowest)):
            placed.append(Label(label.x, y, label.value, label.name, label.number))
    return placed


def apart(places: Sequence[float], lowest: float) -> list[float]:
    """Moves ascending places of labels apart, so that none overlaps another one or is below `lowest`."""
    moved: list[float] = []
    for here in places:
        moved.append(max(here, moved[-1] + LABEL) if moved else here)
    for number in reversed(range(len(moved))):  # below `lowest` are the labels of the x axis
        moved[number] = min(moved[number], lowest)
        lowest = moved[number] - LABEL
    return moved


def elided(text: str, columns: int) -> str:
    """Returns a text of at most so many columns: what is left out in its middle is an ellipsis. At least 3 columns."""
    if width_of(text) <= columns:
        return text
    head, tail = "", ""
    while True:
        more = text[len(head)] if len(head) <= len(tail) else text[-len(tail) - 1]
        if width_of(head + tail + more) >= columns:
            return f"{head}…{tail}"
        if len(head) <= len(tail):
            head += more
        else:
            tail = more + tail


def _next_to(label: Label, left: float, right: float, width: float) -> Label:
    """Returns the label right of the end of its line, in the picture."""
    at_the_edge = label.x >= right - NEAR * (right - left)
    x = right + GAP if at_the_edge else min(label.x + GAP, width - label.width)
    return Label(x, label.y, label.value, label.name, label.number)


def _columns(labels: Sequence[Label]) -> list[list[Label]]:
    """Returns the labels in groups, such that those of two groups are never above each other."""
    columns: list[list[Label]] = []
    reach = float("-inf")
    for label in sorted(labels, key=lambda label: label.x):
        if label.x < reach:
            columns[-1].append(label)
        else:
            columns.append([label])
        reach = max(reach, label.x + label.width)
    return columns
