"""The conditions under which a benchmark's figures were measured."""

from __future__ import annotations

import os
import platform
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np


def conditions() -> dict[str, Any]:
    """Returns processor, cores, versions, date and the load at the start, which shows whether the machine is shared."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "date": date.today().isoformat(),
        "load": os.getloadavg()[0],
    }
