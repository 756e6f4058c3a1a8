"""Find installed commands."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from kogpt2_gluon.errors import KoGPT2Error


def find_program(name: str) -> str:
    """The path of an installed command: in the folder of this Python, as in a virtual environment, else on PATH."""
    installed = Path(sys.executable).with_name(name)
    found = str(installed) if os.access(installed, os.X_OK) else shutil.which(name)
    if found is None:
        way = "make horovod builds it" if name == "horovodrun" else "install this package there"
        raise KoGPT2Error(f"{name}: not in the folder of {sys.executable} and not on PATH; {way}")
    return found
