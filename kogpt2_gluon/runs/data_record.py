"""RUN_DIR/data.json: what a run was trained and evaluated on, for its report, which may be made on another machine."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kogpt2_gluon.storage.files import write_file

DATA_FILE = "data.json"


def write_data_record(run_dir: Path, fingerprint: str, sets: Sequence[Mapping[str, Any]]) -> Path:
    """Writes the record: the fingerprint of the reading order, and the facts of each set by name; returns its path."""
    path = run_dir / DATA_FILE
    plain = {"fingerprint": fingerprint, "sets": list(sets)}
    write_file(path, (json.dumps(plain, indent=1, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace"))
    return path
