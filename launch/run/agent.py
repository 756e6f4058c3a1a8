"""The archive of launch/host, and the programs with it that ssh passes to a host through stdin."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import Any

from kogpt2_gluon.machine import job

PACKAGE = "kogpt2_launch.host"
MAIN = f"import sys\nfrom {PACKAGE}.supervisor import main\nsys.exit(main())\n"
# Everything that varies is JSON inside a Python string: whatever it holds is data.
PROGRAM = """
import base64, json, sys, tempfile
with tempfile.NamedTemporaryFile(suffix=".zip") as archive:
    archive.write(base64.b64decode({archive!r}))
    archive.flush()
    sys.path.insert(0, archive.name)
    from {package} import visit
    visit.{verb}(json.loads({data!r}), archive.name)
"""


@lru_cache(maxsize=1)
def archive() -> bytes:
    """launch/host and the contract with the worker (machine/job.py) as a zip file that Python runs as it is.

    Equal sources give equal bytes. The package `kogpt2_gluon` in it holds that one file, so the archive may only ever
    be on the path of the supervisor itself: a worker is another process, and finds the installed package.
    """
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(zipfile.ZipInfo("__main__.py"), MAIN)
        for package in ("kogpt2_launch", "kogpt2_gluon", "kogpt2_gluon/machine"):
            file.writestr(zipfile.ZipInfo(f"{package}/__init__.py"), "")
        sources = {
            f"kogpt2_launch/host/{path.name}": path for path in (Path(__file__).parents[1] / "host").glob("*.py")
        }
        sources["kogpt2_gluon/machine/job.py"] = Path(job.__file__)
        for name in sorted(sources):
            file.writestr(zipfile.ZipInfo(name), sources[name].read_bytes(), zipfile.ZIP_DEFLATED)
    return packed.getvalue()


def program(verb: str, data: dict[str, Any]) -> str:
    """Returns the Python program that calls `verb`, a function of launch/host/visit.py, on a host."""
    assert verb in ("prepare", "sweep")
    packed = base64.b64encode(archive()).decode()
    return PROGRAM.format(archive=packed, package=PACKAGE, verb=verb, data=json.dumps(data))
