"""One worker of a launched run: `kogpt2`, with the faults that the variable KOGPT2_CHAOS asks for."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.chaos.file_layer import arm_from

if __name__ == "__main__":
    from kogpt2_gluon.machine import runtime

    runtime.prepare(1)
    arm_from(os.environ["KOGPT2_CHAOS"])
    from kogpt2_gluon.cli.main import main

    main()
