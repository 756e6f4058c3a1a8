"""Writes numbers as words: sizes, durations and counts look the same in every message."""

from __future__ import annotations

import math
import unicodedata
from typing import Callable

Say = Callable[[str], None]  # is given a line for people


def silent(line: str) -> None:
    """A `Say` for nobody."""


OPERATIONS = ((1e21, "ZFLOP"), (1e18, "EFLOP"), (1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP"))  # the largest first


def gib(size: float) -> str:
    """Writes bytes of memory in GiB, or in MiB below one: ``1.50 GiB``, ``512 MiB``."""
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def gigabytes(size: float) -> str:
    """Writes bytes of files in GB, or in MB below one, as disks are sold: ``1.5 GB``, ``512.0 MB``."""
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"


def rough_duration(seconds: float) -> str:
    """Writes a predicted time in one unit, as it is never exact: ``90.0 s``, ``5.0 min``, ``12.3 h``, ``6.5 days``."""
    for limit, unit, divisor in ((120, "s", 1), (7200, "min", 60), (48 * 3600, "h", 3600)):
        if seconds < limit:
            return f"{seconds / divisor:.1f} {unit}"
    return f"{seconds / 86400:.1f} days"


def duration(seconds: float) -> str:
    """Writes a time in two units, for tables: ``12s``, ``4m05s``, ``2h05m``, ``3d04h``; ``--`` if it is not finite."""
    if not math.isfinite(seconds):
        return "--"
    minutes, second = divmod(max(round(seconds), 0), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days}d{hour:02d}h"
    if hours:
        return f"{hours}h{minute:02d}m"
    return f"{minutes}m{second:02d}s" if minutes else f"{second}s"


def counted(count: int, noun: str) -> str:
    """Writes a count with its noun, in the plural if it is not one: ``1 slot``, ``8 slots``, ``0 slots``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def operations(count: float) -> str:
    """Writes a count of floating-point operations with three digits: ``1.94 PFLOP``; ``--`` if it is not finite."""
    if not math.isfinite(count):
        return "--"
    factor, unit = next((pair for pair in OPERATIONS if count >= 0.9995 * pair[0]), OPERATIONS[-1])
    return f"{count / factor:.3g} {unit}"


def width_of(text: str) -> int:
    """Returns the columns of a terminal that a text takes: Korean letters take two."""
    return sum(
        0 if unicodedata.combining(sign) else 2 if unicodedata.east_asian_width(sign) in "WF" else 1 for sign in text
    )
