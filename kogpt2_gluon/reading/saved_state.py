"""The check that the state of a reader in a checkpoint is of the kind that this run reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kogpt2_gluon.errors import DataError


def check_source(saved: Mapping[str, Any], source: str, version: int, checkpoint: str) -> None:
    """Raises DataError unless `saved`, from `checkpoint`, is a state of data.source=`source` in this `version`.

    A state without these two keys is the first version of that of shards.
    """
    found = saved.get("source", "shards"), saved.get("version", 1)
    if found != (source, version):
        raise DataError(
            f"{checkpoint}: saved with data.source={found[0]} (state version {found[1]}), but this run reads {source} "
            f"(version {version}); use the data.source and the release that saved it, or start a new run in another "
            "run_dir"
        )
