"""A state.json whose values are not what a run writes is refused in one line, before anything goes on from it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kogpt2_gluon.errors import DataError
from kogpt2_gluon.training.loss_scale import loss_scale_for
from kogpt2_gluon.training.resume import restore_state
from kogpt2_gluon.training.saved_records import check_records

SCALE = {"scale": 65536.0, "clean_updates": 3, "skipped_at_smallest": 0}
STATE: dict[str, Any] = {
    "step": 3,
    "skipped": 1,
    "epoch_perplexity": 4.5,
    "stop_rule_met": False,
    "evaluation": {"step": 3, "attempt": 4, "loss": 1.5, "perplexity": 4.5},
    "begun_as": "a/b",
    "loss_scale": SCALE,
    "reader": {"source": "shards"},
}


def test_what_a_run_writes_passes_and_is_used() -> None:
    saved = json.loads(json.dumps(STATE))
    check_records(saved, "here")
    assert restore_state(saved).attempt == 4 and loss_scale_for("float16", saved["loss_scale"]).scale == 65536.0
    for earlier in ({"step": 3}, {**STATE, "epoch_perplexity": None, "evaluation": None, "loss_scale": None}):
        check_records(earlier, "here")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("skipped", value) for value in (-1, 1.5, "1", None, True, [])),
        *(("epoch_perplexity", value) for value in ("4", [4.5], True)),
        *(("stop_rule_met", value) for value in (0, "false", None)),
        *(("evaluation", value) for value in ([], {}, {"step": "3"}, {"step": 3, "perplexity": [1]}, 5)),
        *(("begun_as", value) for value in (5, None, ["a"])),
        *(("loss_scale", {**SCALE, "scale": value}) for value in (0.0, -1.0, "1", None, float("nan"), float("inf"))),
        *(("loss_scale", {**SCALE, "clean_updates": value}) for value in (-1, 1.5, None)),
        *(("loss_scale", value) for value in (65536.0, [], {})),
        *(("reader", value) for value in (None, [], "shards", 5)),
        ("changes", [{"step": 1, "key": ["training.total_batch_size"], "from": 8, "to": 16}]),
        ("changes", [{"step": 1, "key": "training.total_batch_size", "from": float("inf"), "to": 16}]),
    ],
)
def test_anything_else_is_named(key: str, value: Any) -> None:
    with pytest.raises(DataError, match=rf'here: "{key}" in its state is not'):
        check_records({**STATE, key: value}, "here")


def test_numbers_that_no_float_holds() -> None:
    changes = [{"step": 1, "key": "training.total_batch_size", "from": 10**400, "to": 16}]
    check_records({**STATE, "changes": changes}, "here")  # a count, however large, is one
