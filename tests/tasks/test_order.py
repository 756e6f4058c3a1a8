"""The order of a task's rows."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kogpt2_gluon.tasks.order import WINDOW, Order

sizes = st.integers(1, 300)


def lengths(rows, seed=0):
    return np.random.RandomState(seed).randint(2, 60, rows).astype(np.int64)


@given(sizes, st.integers(1, 40), st.integers(0, 2**40))
def test_each_epoch_has_each_row_once(rows, batch, seed):
    batch = min(batch, rows)
    order = Order(lengths(rows), batch, seed)
    updates = -(-2 * rows // batch) // order.window * order.window + order.window  # whole windows, two epochs at least
    used = np.concatenate([order.update(number) for number in range(updates)])
    counts = np.bincount(used, minlength=rows)
    assert counts.sum() == updates * batch
    assert counts.max() - counts.min() <= 1


@given(sizes, st.integers(1, 40), st.lists(st.integers(0, 500), min_size=1, max_size=6))
def test_an_update_depends_on_its_number_alone(rows, batch, numbers):
    batch = min(batch, rows)
    straight, here_and_there = (Order(lengths(rows), batch, 7) for _ in range(2))
    wanted = {number: straight.update(number).tolist() for number in sorted(numbers)}
    assert {number: here_and_there.update(number).tolist() for number in numbers} == wanted


def test_little_of_a_micro_batch_is_padding():
    """Reviews' lengths: a few are long. In random order 55% would be padding."""
    many = np.random.RandomState(1).geometric(0.05, 20_000).clip(3, 128)
    order = Order(many, 32, 0)
    filled = sum(many[order.update(number)].max() * 32 for number in range(200))
    used = sum(many[order.update(number)].sum() for number in range(200))
    assert order.window == WINDOW
    assert used / filled > 0.9


def test_seeds_and_epochs_have_orders_of_their_own():
    first, second = Order(lengths(100), 10, 0), Order(lengths(100), 10, 1)
    epochs = [
        [row for number in range(10 * epoch, 10 * epoch + 10) for row in first.update(number)] for epoch in (0, 1)
    ]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(100))
    assert epochs[0] != epochs[1]
    assert first.update(0).tolist() != second.update(0).tolist()
