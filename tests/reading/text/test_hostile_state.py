"""The saved state of a reader of text that no run wrote: refused in one line that names the key."""

from __future__ import annotations

from typing import Any

import pytest

from kogpt2_gluon.corpus.sources import Source
from kogpt2_gluon.errors import DataError
from kogpt2_gluon.reading.text.files import TextFiles
from kogpt2_gluon.reading.text.saved import TextSettings, saved_files
from kogpt2_gluon.reading.text.tokens import Cursor

FILES = TextFiles((Source("a.txt", 9, "1"),))
SETTINGS = TextSettings("5a", "line", 0.0, 16, 0)
STATE: dict[str, Any] = {
    "version": 1,
    "source": "text",
    "settings": {"tokenizer_sha256": "5a", "documents": "line", "bpe_dropout": 0.0, "seq_length": 16, "seed": 0},
    "consumed": 8,
    "epoch": 0,
    "share_read": 0.5,
    "unread": 0.0,
    "epoch_ended": False,
    "reported": 0,
    "history": [[0, FILES.fingerprint, 1, 9]],
    "history_hash": "h",
    "files": FILES.to_state(),
    "workers": [[*Cursor().to_row(), 8]],
}
OPTIONAL = ("version", "source", "unread")  # an earlier version has no "unread"; another source is another reader's


def found(state: dict[str, Any]) -> TextFiles:
    return saved_files(state, SETTINGS, 1, FILES, "here")


def test_what_a_run_writes_is_read() -> None:
    assert found(STATE) == FILES
    assert found({key: value for key, value in STATE.items() if key != "unread"}) == FILES
    recoded = TextFiles((Source("a.txt", 9, "1", "cp949"),))
    state = {**STATE, "files": recoded.to_state(), "history": [[0, recoded.fingerprint, 1, 9]]}
    assert saved_files(state, SETTINGS, 1, recoded, "here") == recoded


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *((key, value) for key in STATE if key not in OPTIONAL for value in (None, [[[]]], -1)),
        *((key, value) for key in ("consumed", "epoch", "reported") for value in (1.5, "8", True)),
        *(("settings", value) for value in ({}, {**STATE["settings"], "seq_length": "16"})),
        *(("share_read", value) for value in (-0.1, 1.1, float("nan"), "0.5")),
        *(("unread", value) for value in (float("inf"), "0", None)),
        *(("history", value) for value in ([], [[]], [0], [[0]])),
        *(
            ("files", value)
            for value in ([], [["a.txt"]], [["a.txt", "9", "1"]], [[5, 9, "1"]], [["a.txt", 9, "1", 5]])
        ),
        *(("workers", value) for value in ([], [[]], [[1, 2]], [["0"] * 13], [[0.5] * 13], [[-1] * 13], [{}])),
    ],
)
def test_anything_else_is_named(key: str, value: Any) -> None:
    with pytest.raises(DataError, match=f"here: not the state of a reader of text: {key} is not what a run writes"):
        found({**STATE, key: value})
