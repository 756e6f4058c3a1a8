"""The task of a fine-tuned network, as its checkpoint holds it: what its heads answer, without the task's data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kogpt2_gluon.errors import DataError

CLASSIFICATION, REGRESSION, TOKEN_LABELS, JOINT = "classification", "regression", "token labels", "joint"
HEADS = (CLASSIFICATION, REGRESSION, TOKEN_LABELS, JOINT)  # joint: a class for the text and spans in it
TASK = "task"  # its place in the state of a checkpoint


@dataclass(frozen=True)
class SavedTask:
    """The answers that the heads of a network give; the attributes are those of a :class:`..tasks.task.Task`."""

    name: str
    head: str
    labels: tuple[str, ...]
    kinds: tuple[str, ...]
    is_pair: bool
    value_range: tuple[float, float]

    def to_dict(self) -> dict[str, Any]:
        """Returns it as plain data, which :func:`saved_task` reads."""
        return {
            **asdict(self),
            "labels": list(self.labels),
            "kinds": list(self.kinds),
            "value_range": list(self.value_range),
        }

    @property
    def answers(self) -> int:
        """Rows of the head for the whole text: one for each class, 1 for a number, 0 if there is none."""
        return {REGRESSION: 1, TOKEN_LABELS: 0}.get(self.head, len(self.labels))

    @property
    def tag_names(self) -> tuple[str, ...]:
        """The labels that a token can have, in the order of the head's rows: O, and B-kind and I-kind of each kind."""
        if self.head not in (TOKEN_LABELS, JOINT):
            return ()
        return ("O", *(f"{place}-{kind}" for kind in self.kinds for place in "BI"))


def saved_task(state: Mapping[str, Any], source: Path) -> SavedTask | None:
    """Returns the task in the state of a checkpoint; None if the checkpoint is of a language model.

    DataError, which names `source`, if it is not what a run writes there.
    """
    saved = state.get(TASK)
    if saved is None:
        return None
    try:
        low, high = map(float, saved["value_range"])
        texts = [saved[key] for key in ("labels", "kinds")]
        is_right = (
            isinstance(saved["name"], str)
            and saved["head"] in HEADS
            and type(saved["is_pair"]) is bool
            and all(isinstance(each, list) and all(isinstance(text, str) for text in each) for each in texts)
            and all(len(set(each)) == len(each) for each in texts)
            and (saved["head"] != REGRESSION or low < high)
            and math.isfinite(low)
            and math.isfinite(high)
            and (saved["head"] not in (CLASSIFICATION, JOINT) or texts[0])
            and (saved["head"] not in (TOKEN_LABELS, JOINT) or texts[1])
        )
    except (KeyError, OverflowError, TypeError, ValueError):
        is_right = False
    if not is_right:
        raise DataError(f'{source}: "{TASK}" in its state is not what a run writes there')
    labels, kinds = map(tuple, texts)
    return SavedTask(saved["name"], saved["head"], labels, kinds, saved["is_pair"], (low, high))
