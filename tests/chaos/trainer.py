"""`kogpt2`, with the faults that the variable KOGPT2_CHAOS asks for: one process of a training."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.chaos.faults import arm_from, note_end

if __name__ == "__main__":
    from kogpt2_gluon.machine import runtime

    runtime.prepare(1)
    arm_from(os.environ["KOGPT2_CHAOS"])
    from kogpt2_gluon.cli.main import main

    try:
        main()
    except SystemExit as end:
        note_end(os.environ["KOGPT2_CHAOS"], end.code)
        raise
