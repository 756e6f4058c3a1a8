"""Weights & Biases: a run on its server, or offline in the run folder for a later `wandb sync`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kogpt2_gluon.runs.followers.background import Figures
from kogpt2_gluon.storage.files import write_file

ID_FILE = "wandb_id"  # in the run folder: a run that goes on is the same one there


class WandB:
    """Logs to a run whose project is the recipe's name; account, server and entity come from W&B's own variables."""

    def __init__(self, mode: str, project: str, run_dir: Path, settings: Mapping[str, Any], is_new: bool) -> None:
        try:
            import wandb
        except ImportError as error:
            raise ImportError(f"cannot be imported ({error}): pip install wandb") from None
        path = run_dir / ID_FILE
        known = "" if is_new or not path.is_file() else path.read_text(errors="replace").strip()
        number = known if known.isalnum() else os.urandom(8).hex()
        self._run = wandb.init(
            project=project,
            id=number,
            name=run_dir.resolve().name,
            dir=str(run_dir),
            mode="offline" if mode == "offline" else "online",
            config=dict(settings),
            resume="allow",
            settings=wandb.Settings(console="off", silent=True, disable_git=True, x_disable_stats=True),
        )
        write_file(path, number.encode())

    def add(self, records: Sequence[Figures]) -> None:
        for record in records:
            figures = {f"{record.kind}/{name}": value for name, value in record.numbers.items()}
            self._run.log(figures, step=record.step)

    def close(self, done: bool) -> None:
        self._run.finish(exit_code=0 if done else 1)
