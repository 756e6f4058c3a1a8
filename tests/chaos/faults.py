"""The faults and records that a training process is given: by trainer.py, from the variable KOGPT2_CHAOS.

{"files": arguments of a FileLayer, "record": a folder, "memory": arguments of flip_in_memory}
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from tests.chaos.file_layer import FileLayer, arm
from tests.chaos.record import record_training


def arm_from(text: str) -> None:
    """Arms what is asked for."""
    asked = json.loads(text)
    if asked.get("record"):
        record_training(Path(asked["record"]))
    if asked.get("memory"):
        flip_in_memory(**asked["memory"])
    if asked.get("files"):
        arm(FileLayer(**asked["files"]))


def flip_in_memory(after: int, rank: int, array: int, place: int, bit: int) -> None:
    """Flips one bit of this worker's parameters or moments after a step, as a cosmic ray or a worn chip does."""
    import numpy as np

    from kogpt2_gluon.training import loop

    run_step = loop.run_step

    def step_and_flip(recipe: Any, run: Any, *others: Any) -> Any:
        result = run_step(recipe, run, *others)
        if run.state.step == after and run.worker.rank == rank:
            arrays = {**run.update.masters, **run.update.moments()}
            chosen = arrays[sorted(arrays)[array % len(arrays)]]
            values = chosen.asnumpy()
            bits = values.reshape(-1).view(np.uint32)
            bits[place % bits.size] ^= np.uint32(1 << bit)
            chosen[:] = values
        return result

    loop.run_step = step_and_flip


def note_end(text: str, code: object) -> None:
    """Writes down when and with which exit code this process ends, next to its record."""
    from kogpt2_gluon.machine import job

    record = json.loads(text).get("record")
    if record:
        folder = Path(f"{record}.ends")
        folder.mkdir(exist_ok=True)
        content = {"rank": job.rank() or 0, "code": code, "at": time.monotonic()}
        (folder / str(os.getpid())).write_text(json.dumps(content))
