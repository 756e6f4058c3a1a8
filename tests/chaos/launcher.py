"""Launches a tiny training as `kogpt2-launch run` does, except that its workers are trainer.py, so faults reach them.

python tests/chaos/launcher.py SIZE RESTARTS OVERRIDES...
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.chaos.world import TRAINER

if __name__ == "__main__":
    from kogpt2_gluon.errors import one_line
    from kogpt2_launch.hosts import Host
    from kogpt2_launch.plan.plan import make_plan
    from kogpt2_launch.run.attempt import Options
    from kogpt2_launch.run.local import run_local
    from kogpt2_launch.run.restart import Policy

    size, restarts, *overrides = sys.argv[1:]
    with one_line("kogpt2-launch"):
        plan = make_plan("debug_cpu", overrides, [Host("localhost", int(size))])
        worker = [*TRAINER, *plan.worker_argv()[1:]]
        sys.exit(run_local(plan, Options(detect=5.0, hang=60.0), Policy(int(restarts), 0.1, longest=1.0), worker))
