"""The loss scale of mixed precision, alone."""

from __future__ import annotations

import json

import numpy as np

from kogpt2_gluon.training.loss_scale import DynamicLossScale, LossScale


def test_scale_halves_at_once_and_doubles_after_a_window():
    scale = DynamicLossScale()
    assert scale.scale == 2**16
    for finite in (False, False, *[True] * 1999):
        scale.count(finite)
    assert scale.scale == 2**14 and scale.clean_updates == 1999
    scale.count(False)  # one update short of the window: the count begins again
    for _ in range(1999):
        scale.count(True)
    assert scale.scale == 2**13
    scale.count(True)
    assert scale.scale == 2**14 and scale.clean_updates == 0 and not scale.exhausted


def test_scale_has_a_cap():
    scale = DynamicLossScale({"scale": 2.0**23, "clean_updates": 0, "skipped_at_smallest": 0})
    for _ in range(6000):
        scale.count(True)
    assert scale.scale == 2**24


def test_scale_has_a_floor_and_an_end_there():
    scale = DynamicLossScale()
    for _ in range(16):
        scale.count(False)
    assert scale.scale == 1 and scale.skipped_at_smallest == 0
    for _ in range(3):  # nine in a row are not yet ten
        for _ in range(9):
            scale.count(False)
        assert scale.scale == 1 and not scale.exhausted
        scale.count(True)
    for _ in range(9):
        scale.count(False)
    again = DynamicLossScale(json.loads(json.dumps(scale.state())))  # the count is kept in a checkpoint
    again.count(False)
    assert again.exhausted and again.scale == 1


def test_scale_goes_on_from_its_state():
    outcomes = np.random.RandomState(0).rand(20_000) > 0.0008
    whole = DynamicLossScale()
    broken = DynamicLossScale()
    scales = set()
    for place, finite in enumerate(outcomes):
        whole.count(finite)
        broken.count(finite)
        if place % 777 == 0:
            broken = DynamicLossScale(json.loads(json.dumps(broken.state())))
        assert broken.state() == whole.state()
        scales.add(whole.scale)
    assert len(scales) >= 4  # it went up and down


def test_without_a_scale_an_overflow_is_the_end():
    scale = LossScale()
    scale.count(True)
    assert scale.scale == 1 and not scale.exhausted and scale.state() is None
    scale.count(False)
    assert scale.exhausted
