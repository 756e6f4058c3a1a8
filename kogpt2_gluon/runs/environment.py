"""Records the environment of a run: versions, machine, revision, threads and command line, but never a secret."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from kogpt2_gluon.machine.cuda import list_gpus
from kogpt2_gluon.storage.files import write_file

PACKAGES = (
    *("kogpt2-gluon", "mxnet", "mxnet-cu112", "gluonnlp", "horovod", "numpy", "sentencepiece"),
    *("tensorboardX", "tokenizers", "safetensors", "torch", "transformers"),
)
VARIABLES = ("OMP_", "MXNET_", "HOROVOD_", "NCCL_", "KOGPT2_")
HIDDEN = "(hidden)"
SECRET_VARIABLE = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)
# In a command line `tokenizer` and `tokens` are everyday words, not secrets.
SECRET_OPTION = re.compile(r"key|token(?!iz|s)|secret|password|credential", re.IGNORECASE)
USER_IN_URL = re.compile(r"(?<=://)[^/@\s]+(?=@)")


def collect_environment(run_dir: Path) -> dict[str, Any]:
    """Returns the facts about this process and its machine, as plain data for JSON."""
    return {
        "written": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": hide_secrets(sys.argv),
        "packages": _package_versions(),
        "revision": _git_revision(Path(__file__).resolve().parents[2]),
        "host": {
            "name": platform.node(),
            "system": platform.platform(),
            "cpu": _cpu_model(),
            "cores": os.cpu_count(),
            "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "memory_mb": psutil.virtual_memory().total // 2**20,
            "free_disk_mb": shutil.disk_usage(run_dir).free // 2**20,
            "gpus": _list_gpus(),
        },
        "variables": select_variables(os.environ),
    }


def write_environment(run_dir: Path) -> Path:
    """Writes RUN_DIR/env.json, in place of an earlier start's; returns its path."""
    run_dir.mkdir(parents=True, exist_ok=True)
    path = run_dir / "env.json"
    text = json.dumps(collect_environment(run_dir), indent=2, ensure_ascii=False) + "\n"
    write_file(path, text.encode("utf-8", "backslashreplace"))
    return path


def select_variables(variables: Mapping[str, str]) -> dict[str, str]:
    """Selects the variables that shape a run, by an allowlist of prefixes, without those named like a secret."""
    return {
        name: hide_users(value)
        for name, value in sorted(variables.items())
        if name.startswith(VARIABLES) and not SECRET_VARIABLE.search(name)
    }


def hide_users(text: str) -> str:
    """Returns a text without the names and passwords in its addresses: ``http://name:password@host``."""
    return USER_IN_URL.sub(HIDDEN, text)


def hide_secrets(arguments: Sequence[str]) -> list[str]:
    """Returns a command line without the values of options named like a secret: `--x-key V`, `--x-key=V`, `a.key=V`."""
    shown: list[str] = []
    hide_next = False
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        secret = bool(SECRET_OPTION.search(name))
        if hide_next:
            argument = HIDDEN
        elif equals and secret:
            argument = f"{name}={HIDDEN}"
        hide_next = not hide_next and secret and not equals and argument.startswith("-")
        shown.append(hide_users(argument))
    return shown


def _package_versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _git_revision(root: Path) -> dict[str, Any] | None:
    """Returns the commit of the checkout that the package runs from, and if tracked files differ; None if installed."""
    commit = _output_of("git", "-C", str(root), "rev-parse", "HEAD") if (root / ".git").exists() else None
    if commit is None:
        return None
    changes = _output_of("git", "-C", str(root), "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit.strip(), "modified": None if changes is None else bool(changes.strip())}


def _cpu_model() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        found = None
    return found.group(1) if found else platform.processor()


def _list_gpus() -> list[str]:
    """Returns name, memory and driver of each GPU that the driver's own tool reports, or that tool's words."""
    gpus, problem = list_gpus()
    return [f"{gpu.name}, {gpu.memory_mib} MiB, {gpu.driver}" for gpu in gpus] or ([problem] if problem else [])


def _output_of(*command: str) -> str | None:
    """Returns the output of a command; None if it is missing, fails or hangs."""
    try:
        done = subprocess.run(command, capture_output=True, timeout=10, check=True, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("utf-8", "replace")
