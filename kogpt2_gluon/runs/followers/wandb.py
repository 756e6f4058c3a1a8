"""Weights & Biases: a run on its server, or offline in the run folder for a later `wandb sync`."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kogpt2_gluon.runs.environment import hide_secrets
from kogpt2_gluon.runs.followers.background import CLOSE_SECONDS, Figures
from kogpt2_gluon.storage.files import write_file

ID_FILE = "wandb_id"  # in the run folder: a run that goes on is the same one at the server
FINISH_SECONDS = 0.8 * CLOSE_SECONDS  # so that the log of the run has its warning
GROUP_FILE = "wandb_group"  # the id of the first start


class WandB:
    """Logs to a run whose project is the recipe's name; account, server and entity come from W&B's own variables.

    A run that goes on online is the same one there. Offline each start has an id of its own, because what `wandb sync`
    sends takes the place of what the server has under that id; the starts of a run share a group.
    """

    def __init__(self, mode: str, project: str, run_dir: Path, settings: Mapping[str, Any], is_new: bool) -> None:
        os.environ.setdefault("WANDB_SILENT", "true")  # without a key it would ask for one on a terminal
        try:
            import wandb
        except ImportError as error:
            raise ImportError(f"cannot be imported ({error}): pip install wandb") from None
        is_offline = mode == "offline"
        known = "" if is_new or is_offline else _read(run_dir / ID_FILE)
        number = known or os.urandom(8).hex()
        group = ("" if is_new else _read(run_dir / GROUP_FILE)) or number
        self._run = wandb.init(
            project=project,
            id=number,
            group=group,
            name=run_dir.resolve().name,
            dir=str(run_dir),
            mode="offline" if is_offline else "online",
            config=dict(settings),
            resume="allow",
            settings=wandb.Settings(
                console="off",
                silent=True,
                disable_git=True,
                x_disable_stats=True,
                x_disable_meta=hide_secrets(sys.argv) != sys.argv,  # its record of the machine has the command line
                init_timeout=CLOSE_SECONDS,  # of an attempt, which Python waits for at its end; there are others
                finish_timeout=FINISH_SECONDS,
                finish_timeout_raises=True,
            ),
        )
        # Its own count of calls only grows, and drops what is logged under a step that it has passed: after a roll-back
        # all that comes. So the step is a figure, by which it draws the others.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")
        write_file(run_dir / GROUP_FILE, group.encode())
        if not is_offline:
            write_file(run_dir / ID_FILE, number.encode())

    def add(self, records: Sequence[Figures]) -> None:
        for record in records:
            figures = {f"{record.kind}/{name}": value for name, value in record.numbers.items()}
            self._run.log({"step": record.step, **figures})

    def close(self, done: bool) -> None:
        self._run.finish(exit_code=0 if done else 1)


def _read(path: Path) -> str:
    """Returns the id in a file; "" if there is none."""
    text = path.read_text(errors="replace").strip() if path.is_file() else ""
    return text if text.isalnum() else ""
