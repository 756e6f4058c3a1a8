"""The thread that reads ahead: its order, its errors, and its end."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.reading.read_ahead import ReadAhead


def counting(made: list[int], fail_at: int = -1) -> Iterator[int]:
    number = 0
    while number != fail_at:
        made.append(number)
        yield number
        number += 1
    raise DataError(f"chunk {number} is damaged")


def threads_named(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == name]


def until(length: int, made: list[int]) -> None:
    deadline = time.monotonic() + 10
    while len(made) < length and time.monotonic() < deadline:
        time.sleep(0.001)


def test_items_come_in_order_and_no_more_are_made_than_may_wait() -> None:
    made: list[int] = []
    ahead = ReadAhead(counting(made), waiting=3, name="in-order")
    until(4, made)
    time.sleep(0.05)
    assert made == [0, 1, 2, 3]  # three wait, one is held
    assert [ahead.take() for _ in range(50)] == list(range(50))
    until(54, made)
    time.sleep(0.05)
    assert len(made) == 54
    ahead.close()


def test_an_error_comes_where_its_item_would_and_again() -> None:
    ahead = ReadAhead(counting([], fail_at=2), waiting=8, name="failing")
    assert [ahead.take(), ahead.take()] == [0, 1]
    for _ in range(3):
        with pytest.raises(DataError, match="chunk 2 is damaged"):
            ahead.take()
    ahead.close()


@pytest.mark.parametrize("waiting", [1, 5])
@pytest.mark.parametrize("fail_at", [-1, 0, 1, 2])
def test_close_ends_the_thread_whatever_it_waits_for(waiting: int, fail_at: int) -> None:
    made: list[int] = []
    ahead = ReadAhead(counting(made, fail_at), waiting, name="closing")
    until(fail_at if fail_at >= 0 else waiting + 1, made)
    ahead.close()
    ahead.close()
    assert not threads_named("closing")
    with pytest.raises(AssertionError, match="read after close"):
        ahead.take()
