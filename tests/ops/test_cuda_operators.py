"""The CUDA operators as MXNet sees them, against MXNet's own: attributes, requests, gradients, types, written states.

Their kernels run on the host; cuda_operators_check.py has the checks.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import ROOT, run
from tests.ops import cuda_operators_check

pytest_plugins = ["tests.ops.cuda_kernel_fixtures"]
SCRIPT = Path(cuda_operators_check.__file__)


@pytest.fixture(scope="module")
def results(host_library: Path) -> dict[str, str]:
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(SCRIPT), str(host_library)]
    done = subprocess.run(command, capture_output=True, text=True, env=variables, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", [function.__name__ for function in cuda_operators_check.CHECKS])
def test_operator(results: dict[str, str], name: str) -> None:
    assert results[name] == "", results[name]


def test_they_load_after_horovod(host_library: Path) -> None:
    """Horovod makes MXNet's symbols global: without -Bsymbolic they replace the library's own, and loading crashes."""
    code = (
        "import sys, horovod.mxnet; from kogpt2_gluon.machine.runtime import mx; mx.library.load(sys.argv[1], False)\n"
        "print(hasattr(mx.nd, 'kogpt2_cuda_layer_norm'))"
    )
    assert run(sys.executable, "-c", code, host_library).stdout.splitlines()[-1] == "True"
