"""Numbers as words: the unit changes where it should, and one thing is not plural."""

from __future__ import annotations

import math
from typing import Callable

import pytest

from kogpt2_gluon.wording import counted, duration, gib, gigabytes, rough_duration


@pytest.mark.parametrize(
    ("write", "number", "expected"),
    [
        (gib, 2**30 - 1, "1024 MiB"),
        (gib, 3 << 29, "1.50 GiB"),
        (gigabytes, 999e6, "999.0 MB"),
        (gigabytes, 1.25e12, "1,250.0 GB"),
        (rough_duration, 119.9, "119.9 s"),
        (rough_duration, 120, "2.0 min"),
        (rough_duration, 7200, "2.0 h"),
        (rough_duration, 48 * 3600, "2.0 days"),
        (duration, 59.6, "1m00s"),
        (duration, 7500, "2h05m"),
        (duration, 76 * 3600, "3d04h"),
        (duration, math.nan, "--"),
    ],
)
def test_units(write: Callable[[float], str], number: float, expected: str) -> None:
    assert write(number) == expected


def test_one_is_not_plural() -> None:
    assert [counted(count, "shard") for count in (0, 1, 1200)] == ["0 shards", "1 shard", "1,200 shards"]
